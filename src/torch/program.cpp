#include "torch/program.h"

#include "support/text.h"

namespace onnx2nn::torch {

std::string Param::key() const { return join(path, "."); }

}  // namespace onnx2nn::torch
