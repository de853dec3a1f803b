// Convolutions
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> conv_ops() { return {}; }

}  // namespace onnx2nn::ops
