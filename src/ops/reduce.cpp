// Reductions and scans
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> reduce_ops() { return {}; }

}  // namespace onnx2nn::ops
