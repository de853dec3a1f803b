// Attention and its relatives
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> attention_ops() { return {}; }

}  // namespace onnx2nn::ops
