// The ai.onnx.ml domain
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> ml_ops() { return {}; }

}  // namespace onnx2nn::ops
