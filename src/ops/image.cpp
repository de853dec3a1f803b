// Images: Pad, Resize, grids, regions
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> image_ops() { return {}; }

}  // namespace onnx2nn::ops
