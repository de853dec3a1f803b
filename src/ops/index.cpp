// Gather, Scatter and their relatives
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> index_ops() { return {}; }

}  // namespace onnx2nn::ops
