// What quantises constants as the model runs: a bias that was stored in floats.
#include <algorithm>
#include <cmath>

#include "eval/array.h"

namespace onnx2nn::eval {
namespace {

/// In single precision and in this order, as the operator's definition has it: the quantised
/// numbers depend on how the scale is rounded.
Result dynamic_quantize_linear(const Call& c) {
  constexpr float kMost = 255.0F;
  const Tensor& x = *c.in(0);
  if (x.dtype() != DType::Float32 || x.size() == 0 || c.node().output_count() != 3)
    return std::nullopt;
  float low = 0.0F;
  float high = 0.0F;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const float v = x.at<float>(i);
    if (!std::isfinite(v)) return std::nullopt;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  const float scale = (high - low) / kMost;
  // Of zeros alone, runtimes differ about the scale.
  if (!std::isnormal(scale)) return std::nullopt;
  const float zero = std::nearbyint(std::clamp(0.0F - low / scale, 0.0F, kMost));
  if (!c.room(DType::UInt8, x.size())) return std::nullopt;
  std::vector<std::uint8_t> y;
  y.reserve(static_cast<std::size_t>(x.size()));
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const float q = std::nearbyint(x.at<float>(i) / scale) + zero;
    y.push_back(static_cast<std::uint8_t>(std::clamp(q, 0.0F, kMost)));
  }
  return std::vector<TensorPtr>{
      Tensor::from<std::uint8_t>(DType::UInt8, x.dims(), y),
      Tensor::from<float>(DType::Float32, {}, {scale}),
      Tensor::from<std::uint8_t>(DType::UInt8, {}, {static_cast<std::uint8_t>(zero)})};
}

}  // namespace

Result quantization(const Call& c) {
  if (c.node().op_type == "DynamicQuantizeLinear") return dynamic_quantize_linear(c);
  return std::nullopt;
}

}  // namespace onnx2nn::eval
