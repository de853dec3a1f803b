// DFT, STFT, windows
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

std::span<const OpDef> signal_ops() { return {}; }

}  // namespace onnx2nn::ops
