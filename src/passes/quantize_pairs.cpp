// Pairs of QuantizeLinear and DequantizeLinear: what they need not do twice, where they stand, and their
// constants. For conversion alone.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "passes/match.h"
#include "passes/quantized_values.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

// ---------------------------------------------------------------- what only moves elements

/// Whether every element of its result is one of its first input's, or the largest of some.
bool picks_elements(const ir::Node& n) {
  static constexpr std::string_view kOps[] = {
      "DepthToSpace", "Expand",    "Flatten", "Gather",  "GlobalMaxPool", "Identity", "MaxPool",
      "Reshape",      "Slice",     "SpaceToDepth", "Squeeze", "Tile", "Transpose", "Unsqueeze"};
  if (!n.domain.empty() || n.output_count() == 0) return false;
  for (std::size_t i = 1; i < n.output_count(); ++i)
    if (n.output(i) != nullptr && n.output(i)->has_uses()) return false;
  if (n.op_type == "Resize")
    return attr_string(n, "mode", "nearest") == "nearest" &&
           attr_string(n, "coordinate_transformation_mode", "") != "tf_crop_and_resize";
  return std::find(std::begin(kOps), std::end(kOps), n.op_type) != std::end(kOps);
}

/// The same node on `x`, which is real.
ir::Node* moved(Rewriter& w, const ir::Node& n, ir::Value* x, const ir::Value& like,
                ir::Node& before) {
  Values inputs{x};
  for (std::size_t i = 1; i < n.input_count(); ++i) inputs.push_back(n.input(i));
  ir::Node* made = w.add(n.op_type, inputs, like, before);
  made->opset = n.opset;
  made->name = n.name;
  made->metadata = n.metadata;
  for (const ir::Attribute& a : n.attributes) copy_attributes(n, *made, {a.name});
  return made;
}

// DequantizeLinear(Reshape(x))   =>   Reshape(DequantizeLinear(x))
bool dequantize_first(Rewriter& w, ir::Node& n) {
  ir::Node* move = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  if (move == nullptr || n.output(0) == nullptr || !n.output(0)->has_uses() ||
      move->graph() != n.graph() || !picks_elements(*move))
    return false;
  Quantized x = quantized_operand(n, 0);
  x.value = move->input(0);
  if (!is_plain(x)) return w.miss(n, "its scale and zero point are no numbers");
  if (!n.input(0)->has_one_use()) return w.miss(n, "{} has other users", n.input(0)->name);
  ir::Value* real = dequantized(w, n, x);
  w.replace(n.output(0), moved(w, *move, real, *n.output(0), n)->output(0));
  return true;
}

bool same_steps(const ir::Node& a, const ir::Node& b) {
  return same_value(a.input(1), b.input(1)) && same_value(a.input(2), b.input(2));
}

// DequantizeLinear(QuantizeLinear(Reshape(DequantizeLinear(x))))   =>   Reshape(DequantizeLinear(x))
// by one scale and zero point
bool quantize_once(Rewriter& w, ir::Node& n) {
  constexpr int kMostMoves = 16;
  const ir::Node* quantize = producer_of(n.input(0), "QuantizeLinear");
  if (quantize == nullptr || n.output(0) == nullptr || !n.output(0)->has_uses() ||
      !is_plain(quantized_operand(n, 0)) || !same_steps(n, *quantize))
    return false;
  ir::Value* x = quantize->input(0);
  const ir::Value* v = x;
  for (int i = 0; i < kMostMoves && v != nullptr && v->producer() != nullptr; ++i) {
    const ir::Node& before = *v->producer();
    if (before.is("DequantizeLinear")) {
      if (!same_steps(n, before) || before.input(0) == nullptr ||
          before.input(0)->type.dtype != n.input(0)->type.dtype)
        return w.miss(n, "{} is quantised otherwise", v->name);
      // Its values are those of whole steps, under either name.
      x->has_one_use() ? w.replace_by_changed(n.output(0), x) : w.replace(n.output(0), x);
      return true;
    }
    if (!picks_elements(before)) return false;
    v = before.input(0);
  }
  return false;
}

// ---------------------------------------------------------------- constants

/// x in steps of a scale, as QuantizeLinear rounds it; null where x is not finite.
template <typename T>
ir::TensorPtr steps_of(const ir::Tensor& x, float scale, std::int64_t zero) {
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(x.size()));
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const float v = x.at<float>(i) / scale;
    if (!std::isfinite(v)) return nullptr;
    const float step = std::nearbyint(v) + static_cast<float>(zero);
    out.push_back(static_cast<T>(std::clamp(step, static_cast<float>(std::numeric_limits<T>::min()),
                                            static_cast<float>(std::numeric_limits<T>::max()))));
  }
  return ir::Tensor::from<T>(std::is_signed_v<T> ? ir::DType::Int8 : ir::DType::UInt8, x.dims(), out);
}

// QuantizeLinear(weight)   =>   the weight in integers
bool quantize_weight(Rewriter& w, ir::Node& n) {
  constexpr std::size_t kMost = std::size_t{1} << 26;
  const ir::Value* x = n.input(0);
  if (x == nullptr || !x->constant || x->constant->dtype() != ir::DType::Float32 ||
      n.output(0) == nullptr || !n.output(0)->has_uses() || n.input(2) == nullptr)
    return false;
  const Quantized y{n.output(0), n.input(1), n.input(2), std::nullopt};
  if (!is_plain(y)) return w.miss(n, "its scale and zero point are no numbers");
  if (!x->has_one_use()) return w.miss(n, "{} has other users", x->name);
  Budget& budget = w.model().budget();
  const std::size_t bytes = x->constant->byte_size();
  if (bytes > kMost || bytes > budget.left(Resource::Folded) || bytes > budget.left(Resource::Steps))
    return false;
  budget.spend(Resource::Folded, bytes / sizeof(float));
  budget.spend(Resource::Steps, bytes);
  const float scale = y.scale->constant->at<float>(0);
  const std::int64_t zero = y.zero->constant->int_at(0);
  const ir::TensorPtr integers = y.value->type.dtype == ir::DType::Int8
                                     ? steps_of<std::int8_t>(*x->constant, scale, zero)
                                     : steps_of<std::uint8_t>(*x->constant, scale, zero);
  if (integers == nullptr) return w.miss(n, "{} is not finite", x->name);
  w.replace(n.output(0), w.weight(*n.graph(), *x, integers));
  return true;
}

// DequantizeLinear(3, scale, zero)   =>   a number
bool dequantize_number(Rewriter& w, ir::Node& n) {
  const Quantized x = quantized_operand(n, 0);
  if (x.value == nullptr || !x.value->constant || x.value->constant->rank() != 0 ||
      n.output(0) == nullptr || !n.output(0)->has_uses() || !is_plain(x))
    return false;
  const std::int64_t zero = x.zero == nullptr ? 0 : x.zero->constant->int_at(0);
  const float value = static_cast<float>(x.value->constant->int_at(0) - zero) *
                      x.scale->constant->at<float>(0);
  w.replace(n.output(0), w.constant(*n.graph(), n.output(0)->name,
                                    ir::Tensor::from<float>(ir::DType::Float32, {}, {value})));
  return true;
}

}  // namespace

std::span<const Rule> quantize_pair_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "quantize-weight",
       .what = "QuantizeLinear of a weight becomes the weight in integers",
       .apply = quantize_weight,
       .ops = {"QuantizeLinear"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "dequantize-number",
       .what = "DequantizeLinear of one constant number becomes the number",
       .apply = dequantize_number,
       .ops = {"DequantizeLinear"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "quantize-once",
       .what = "what was quantised, and only moved since, is not quantised by the same steps again",
       .apply = quantize_once,
       .ops = {"DequantizeLinear"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "dequantize-first",
       .what = "DequantizeLinear goes before what only moves elements",
       .apply = dequantize_first,
       .ops = {"DequantizeLinear"},
       .in_conversion = true,
       .conversion_only = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
