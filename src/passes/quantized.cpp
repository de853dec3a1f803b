// Operators on quantised tensors, said as the real ones that they stand for: the operands are
// dequantised, the result is quantised. What is left is pairs of QuantizeLinear and DequantizeLinear,
// and weights in integers, which lowering knows. For conversion alone: runtimes want them whole.
#include <optional>

#include "passes/match.h"
#include "passes/quantized_values.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// The value `real` for what `n` makes, quantised with `q`'s scale and zero point.
bool become(Rewriter& w, ir::Node& n, ir::Value* real, const Quantized& q) {
  ir::Value* const inputs[] = {real, q.scale, q.zero};
  ir::Node* made = w.add("QuantizeLinear", inputs, *n.output(0), n);
  made->opset = kRealOpset;
  w.replace(n.output(0), made->output(0));
  return true;
}

/// The scale and zero point of the result, which are at inputs `i` and `i + 1`; its type follows.
std::optional<Quantized> result(const ir::Node& n, std::size_t i) {
  Quantized q{n.output(0), n.input(i), n.input(i + 1), std::nullopt};
  if (q.zero == nullptr || !is_plain(q)) return std::nullopt;
  return q;
}

/// A bias in int32, whose scale is the product of those of the factors that it is added to.
std::optional<Quantized> bias(Rewriter& w, ir::Node& n, ir::Value* b, const Quantized& x,
                              const Quantized& weight, double alpha = 1.0) {
  if (b == nullptr || !b->constant || b->constant->dtype() != ir::DType::Int32) return std::nullopt;
  const ir::Tensor& factors = *weight.scale->constant;
  const bool single = is_one_number(weight.scale);
  if (b->constant->rank() != 1 || (!single && b->constant->size() != factors.size()))
    return std::nullopt;
  std::vector<float> scale;
  for (std::int64_t i = 0; i < factors.size(); ++i)
    scale.push_back(x.scale->constant->at<float>(0) * factors.at<float>(i) *
                    static_cast<float>(alpha));
  auto tensor = ir::Tensor::from<float>(
      ir::DType::Float32, single ? Ints{} : Ints{factors.size()}, scale);
  Quantized q{b, w.constant(*n.graph(), b->name + "_scale", std::move(tensor)), nullptr, std::nullopt};
  if (!single) q.axis = 0;
  return q;
}

// ---------------------------------------------------------------- with weights

bool open_conv(Rewriter& w, ir::Node& n) {
  const Quantized x = quantized_operand(n, 0);
  Quantized weight = quantized_operand(n, 3);
  const auto y = result(n, 6);
  if (attr_int(n, "channels_last", 0) != 0) return w.miss(n, "its channels are last");
  if (!y || !is_plain(x) || !is_plain_weight(weight, 0))
    return w.miss(n, "its weight, scales or zero points are no constants of bytes and float32");
  Values inputs;
  std::optional<Quantized> b;
  if (n.input(8) != nullptr && !(b = bias(w, n, n.input(8), x, weight)))
    return w.miss(n, "its bias is no constant");
  inputs = {dequantized(w, n, x), dequantized(w, n, weight)};
  if (b) inputs.push_back(dequantized(w, n, *b));
  ir::Node* conv = add_real(w, n, "Conv", inputs, *n.output(0));
  copy_attributes(n, *conv, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"});
  return become(w, n, conv->output(0), *y);
}

bool open_matmul(Rewriter& w, ir::Node& n) {
  const Quantized a = quantized_operand(n, 0);
  Quantized b = quantized_operand(n, 3);
  const auto y = result(n, 6);
  if (!y || !is_plain(a)) return w.miss(n, "its scales are no numbers of float32");
  const bool is_weight = b.value != nullptr && b.value->constant && b.value->constant->rank() >= 2 &&
                         is_plain_weight(b, b.value->constant->rank() - 1);
  if (!is_weight && !is_plain(b)) return w.miss(n, "its scales are no numbers of float32");
  const ir::Node* product =
      add_real(w, n, "MatMul", {dequantized(w, n, a), dequantized(w, n, b)}, *n.output(0));
  return become(w, n, product->output(0), *y);
}

bool open_gemm(Rewriter& w, ir::Node& n) {
  const Quantized a = quantized_operand(n, 0);
  Quantized b = quantized_operand(n, 3);
  const bool is_real = n.input(7) == nullptr && n.input(8) == nullptr;
  const auto y = result(n, 7);
  const std::size_t columns = attr_int(n, "transB", 0) != 0 ? 0 : 1;
  if ((!is_real && !y) || !is_plain(a) || !is_plain_weight(b, columns))
    return w.miss(n, "its weight, scales or zero points are no constants of bytes and float32");
  std::optional<Quantized> c;
  if (n.input(6) != nullptr && !(c = bias(w, n, n.input(6), a, b, attr_float(n, "alpha", 1.0))))
    return w.miss(n, "its bias is no constant vector");
  Values inputs{dequantized(w, n, a), dequantized(w, n, b)};
  if (c) inputs.push_back(dequantized(w, n, *c));
  ir::Node* gemm = is_real ? w.add("Gemm", inputs, *n.output(0), n)
                           : add_real(w, n, "Gemm", inputs, *n.output(0));
  gemm->opset = kRealOpset;
  copy_attributes(n, *gemm, {"alpha", "transA", "transB"});
  if (!is_real) return become(w, n, gemm->output(0), *y);
  w.replace(n.output(0), gemm->output(0));
  return true;
}

// ---------------------------------------------------------------- without

/// What takes `count` quantised operands from input `first` on, then the result's scale and zero
/// point.
bool open(Rewriter& w, ir::Node& n, std::string_view op_type, std::size_t first, std::size_t count,
          std::initializer_list<std::string_view> attributes, std::int64_t opset = kRealOpset) {
  const auto y = result(n, first + 3 * count);
  Values inputs;
  for (std::size_t i = 0; i < first; ++i) inputs.push_back(n.input(i));
  bool plain = y.has_value();
  for (std::size_t i = 0; i < count; ++i) plain = plain && is_plain(quantized_operand(n, first + 3 * i));
  if (!plain) return w.miss(n, "its scales and zero points are no numbers of bytes and float32");
  for (std::size_t i = 0; i < count; ++i)
    inputs.push_back(dequantized(w, n, quantized_operand(n, first + 3 * i)));
  ir::Node* made = add_real(w, n, op_type, inputs, *n.output(0), opset);
  copy_attributes(n, *made, attributes);
  return become(w, n, made->output(0), *y);
}

bool open_concat(Rewriter& w, ir::Node& n) {
  const auto y = result(n, 0);
  bool plain = y.has_value() && n.input_count() > 2 && (n.input_count() - 2) % 3 == 0;
  for (std::size_t i = 2; plain && i < n.input_count(); i += 3) plain = is_plain(quantized_operand(n, i));
  if (!plain) return w.miss(n, "its scales and zero points are no numbers of bytes and float32");
  Values inputs;
  for (std::size_t i = 2; i < n.input_count(); i += 3)
    inputs.push_back(dequantized(w, n, quantized_operand(n, i)));
  ir::Node* made = add_real(w, n, "Concat", inputs, *n.output(0));
  copy_attributes(n, *made, {"axis"});
  return become(w, n, made->output(0), *y);
}

bool open_pool(Rewriter& w, ir::Node& n) {
  if (attr_int(n, "channels_last", 0) != 0) return w.miss(n, "its channels are last");
  if (n.op_type == "QLinearGlobalAveragePool") return open(w, n, "GlobalAveragePool", 0, 1, {});
  // Its last window is not where that of AveragePool is.
  if (attr_int(n, "ceil_mode", 0) != 0) return w.miss(n, "it rounds its size up");
  return open(w, n, "AveragePool", 0, 1,
              {"auto_pad", "count_include_pad", "kernel_shape", "pads", "strides"}, 11);
}

bool open_softmax(Rewriter& w, ir::Node& n) {
  const std::int64_t opset = attr_int(n, "opset", kRealOpset) < kRealOpset ? 11 : kRealOpset;
  if (n.attribute("axis") == nullptr) set_attr(n, "axis", std::int64_t{-1});
  return open(w, n, "Softmax", 0, 1, {"axis"}, opset);
}

// QLinearConv(x, x_scale, x_zero, ...)   =>   QuantizeLinear(Conv(DequantizeLinear(x, ...), ...))
bool open_quantized(Rewriter& w, ir::Node& n) {
  if (n.output(0) == nullptr || !n.output(0)->has_uses()) return false;
  const bool is_own = n.domain == kMicrosoft;
  if (!is_own && !n.domain.empty()) return false;
  if (n.op_type == "QLinearConv") return open_conv(w, n);
  if (n.op_type == "QLinearMatMul") return open_matmul(w, n);
  if (!is_own) return false;
  if (n.op_type == "QGemm") return open_gemm(w, n);
  if (n.op_type == "QLinearAdd") return open(w, n, "Add", 0, 2, {});
  if (n.op_type == "QLinearMul") return open(w, n, "Mul", 0, 2, {});
  if (n.op_type == "QLinearWhere") return open(w, n, "Where", 1, 2, {});
  if (n.op_type == "QLinearConcat") return open_concat(w, n);
  if (n.op_type == "QLinearSigmoid") return open(w, n, "Sigmoid", 0, 1, {});
  if (n.op_type == "QLinearLeakyRelu") return open(w, n, "LeakyRelu", 0, 1, {"alpha"});
  if (n.op_type == "QLinearReduceMean")
    return open(w, n, "ReduceMean", 0, 1, {"axes", "keepdims"});
  if (n.op_type == "QLinearSoftmax") return open_softmax(w, n);
  if (n.op_type == "QLinearAveragePool" || n.op_type == "QLinearGlobalAveragePool")
    return open_pool(w, n);
  return false;
}

}  // namespace

std::span<const Rule> quantized_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "open-quantized",
       .what = "QLinearConv and its like become real operators, dequantised before and quantised after",
       .apply = open_quantized,
       .ops = {},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "open-matmul-nbits",
       .what = "MatMulNBits becomes a linear layer of a weight that is dequantised in blocks",
       .apply = open_nbits,
       .ops = {},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "open-gather-blocks",
       .what = "GatherBlockQuantized becomes Gather from a table that is dequantised in blocks",
       .apply = open_gather,
       .ops = {},
       .in_conversion = true,
       .conversion_only = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
