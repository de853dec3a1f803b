// The com.microsoft domain and internal ones of runtimes
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> microsoft_ops() { return {}; }

}  // namespace onnx2nn::ops
