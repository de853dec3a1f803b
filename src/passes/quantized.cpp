// Operators on quantised tensors, said as the real ones that they stand for: the operands are
// dequantised, the result is quantised. What is left is pairs of QuantizeLinear and DequantizeLinear,
// and weights in integers, which lowering knows. For conversion alone: runtimes want them whole.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

using Values = std::vector<ir::Value*>;

constexpr std::string_view kMicrosoft = "com.microsoft";
// Of the operators that are made, unless an older one means the same.
constexpr std::int64_t kOpset = 13;

/// An integer tensor, and what its values stand for: (value - zero) * scale.
struct Quantized {
  ir::Value* value = nullptr;
  ir::Value* scale = nullptr;
  ir::Value* zero = nullptr;  // null for 0
  std::optional<std::int64_t> axis;  // of scale and zero, where they are more than one number
};

Quantized operand(const ir::Node& n, std::size_t i) {
  return {n.input(i), n.input(i + 1), n.input(i + 2), std::nullopt};
}

bool is_one_number(const ir::Value* v) {
  return v != nullptr && v->constant != nullptr && v->constant->size() == 1 &&
         v->constant->rank() <= 1;
}

bool is_zero(const ir::Tensor& t) {
  for (std::int64_t i = 0; i < t.size(); ++i)
    if (t.int_at(i) != 0) return false;
  return true;
}

bool is_byte(ir::DType t) {
  return t == ir::DType::Int8 || t == ir::DType::UInt8;
}

/// Bytes with a scale of float32 above zero.
bool is_plain(const Quantized& q) {
  const auto is = [](const ir::Value* v, ir::DType t) {
    return v != nullptr && v->type.is_tensor() && v->type.dtype == t;
  };
  if (q.value == nullptr || !q.value->type.is_tensor() || !is_byte(q.value->type.dtype))
    return false;
  if (!is_one_number(q.scale) || !is(q.scale, ir::DType::Float32)) return false;
  const double scale = q.scale->constant->double_at(0);
  return scale > 0.0 && std::isfinite(scale) &&
         (q.zero == nullptr || (is_one_number(q.zero) && is(q.zero, q.value->type.dtype)));
}

/// A constant of bytes with a scale, or with as many as `axis` has slices.
bool is_plain_weight(Quantized& q, std::size_t axis) {
  if (q.value == nullptr || q.scale == nullptr || !q.value->constant || !q.scale->constant)
    return false;
  const ir::Tensor& w = *q.value->constant;
  const ir::Tensor& scale = *q.scale->constant;
  if (!is_byte(w.dtype()) || scale.dtype() != ir::DType::Float32) return false;
  if (q.zero != nullptr) {
    if (!q.zero->constant || q.zero->constant->dtype() != w.dtype()) return false;
    if (is_zero(*q.zero->constant)) q.zero = nullptr;
  }
  if (is_one_number(q.scale)) return q.zero == nullptr || is_one_number(q.zero);
  if (axis >= w.rank() || scale.rank() != 1 || scale.size() != w.dims()[axis]) return false;
  if (q.zero != nullptr && q.zero->constant->dims() != scale.dims()) return false;
  q.axis = static_cast<std::int64_t>(axis);
  return true;
}

ir::Node* add(Rewriter& w, ir::Node& n, std::string_view op_type, const Values& inputs,
              const ir::Value& from, std::int64_t opset = kOpset) {
  ir::Type type = ir::Type::tensor(ir::DType::Float32, ir::Shape());
  ir::Node* made = w.add_new(op_type, inputs, from.name, std::move(type), opset, n);
  made->metadata = n.metadata;
  return made;
}

/// The node that makes `q` real already; null where it is not among the first that read it.
ir::Node* find_dequantized(const Quantized& q) {
  constexpr int kMostLooked = 16;
  int looked = 0;
  for (const ir::Use* u = q.value->first_use(); u != nullptr && looked < kMostLooked;
       u = u->next, ++looked) {
    const ir::Node& user = *u->user;
    if (user.is("DequantizeLinear") && u->index == 0 && user.input(1) == q.scale &&
        user.input(2) == q.zero && user.graph() == q.value->producer()->graph() && !q.axis)
      return u->user;
  }
  return nullptr;
}

/// The scope that the names of all who read `v` have in common, as a name in it.
std::string common_scope(const ir::Value& v) {
  constexpr int kMostLooked = 16;
  std::string common;
  int looked = 0;
  for (const ir::Use* u = v.first_use(); u != nullptr && looked < kMostLooked;
       u = u->next, ++looked) {
    const std::string& name = u->user->name;
    if (looked == 0) common = name;
    const auto [end, _] = std::mismatch(common.begin(), common.end(), name.begin(), name.end());
    common.erase(end, common.end());
    common.erase(common.rfind('/') == std::string::npos ? 0 : common.rfind('/') + 1);
  }
  return common.empty() ? common : common + "DequantizeLinear";
}

/// `q` as real numbers, for `n`: once for all who read it, right behind what makes it.
ir::Value* dequantized(Rewriter& w, ir::Node& n, const Quantized& q) {
  const auto is_before = [&](const ir::Value* v) {
    return v == nullptr || v->producer() == nullptr || v->producer() == q.value->producer();
  };
  const ir::Node* producer = q.value->producer();
  const bool shared = producer != nullptr && producer->graph() == n.graph() &&
                      is_before(q.scale) && is_before(q.zero);
  if (shared) {
    if (ir::Node* found = find_dequantized(q)) {
      if (found != producer->next()) n.graph()->move_before(found, producer->next());
      // It is no longer what the file calls so: that is not read where the integers are.
      found->output(0)->name = w.model().new_name(q.value->name);
      return found->output(0);
    }
  }
  Values inputs{q.value, q.scale};
  if (q.zero != nullptr) inputs.push_back(q.zero);
  ir::Node& place = shared ? *producer->next() : n;
  ir::Node* made = add(w, place, "DequantizeLinear", inputs, *q.value);
  // What is quantised by its own range is so for those who read it, wherever they are.
  const bool of_readers = producer != nullptr && q.scale->producer() == producer;
  made->metadata = of_readers ? decltype(n.metadata){} : shared ? producer->metadata : n.metadata;
  made->name = of_readers ? common_scope(*q.value) : shared ? producer->name : n.name;
  made->output(0)->type.shape = q.value->type.shape;
  if (q.axis) set_attr(*made, "axis", *q.axis);
  return made->output(0);
}

/// The value `real` for what `n` makes, quantised with `q`'s scale and zero point.
bool become(Rewriter& w, ir::Node& n, ir::Value* real, const Quantized& q) {
  ir::Value* const inputs[] = {real, q.scale, q.zero};
  ir::Node* made = w.add("QuantizeLinear", inputs, *n.output(0), n);
  made->opset = kOpset;
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

void copy_attributes(const ir::Node& from, ir::Node& to,
                     std::initializer_list<std::string_view> names) {
  for (const ir::Attribute& a : from.attributes) {
    if (std::find(names.begin(), names.end(), a.name) == names.end()) continue;
    if (const auto* i = std::get_if<std::int64_t>(&a.data)) set_attr(to, a.name, *i);
    if (const auto* f = std::get_if<double>(&a.data)) set_attr(to, a.name, *f);
    if (const auto* s = std::get_if<std::string>(&a.data)) set_attr(to, a.name, *s);
    if (const auto* v = std::get_if<Ints>(&a.data)) set_attr(to, a.name, *v);
  }
}

// ---------------------------------------------------------------- with weights

bool open_conv(Rewriter& w, ir::Node& n) {
  const Quantized x = operand(n, 0);
  Quantized weight = operand(n, 3);
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
  ir::Node* conv = add(w, n, "Conv", inputs, *n.output(0));
  copy_attributes(n, *conv, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"});
  return become(w, n, conv->output(0), *y);
}

bool open_matmul(Rewriter& w, ir::Node& n) {
  const Quantized a = operand(n, 0);
  Quantized b = operand(n, 3);
  const auto y = result(n, 6);
  if (!y || !is_plain(a)) return w.miss(n, "its scales are no numbers of float32");
  const bool is_weight = b.value != nullptr && b.value->constant && b.value->constant->rank() >= 2 &&
                         is_plain_weight(b, b.value->constant->rank() - 1);
  if (!is_weight && !is_plain(b)) return w.miss(n, "its scales are no numbers of float32");
  const ir::Node* product =
      add(w, n, "MatMul", {dequantized(w, n, a), dequantized(w, n, b)}, *n.output(0));
  return become(w, n, product->output(0), *y);
}

bool open_gemm(Rewriter& w, ir::Node& n) {
  const Quantized a = operand(n, 0);
  Quantized b = operand(n, 3);
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
                           : add(w, n, "Gemm", inputs, *n.output(0));
  gemm->opset = kOpset;
  copy_attributes(n, *gemm, {"alpha", "transA", "transB"});
  if (!is_real) return become(w, n, gemm->output(0), *y);
  w.replace(n.output(0), gemm->output(0));
  return true;
}

// ---------------------------------------------------------------- without

/// What takes `count` quantised operands from input `first` on, then the result's scale and zero
/// point.
bool open(Rewriter& w, ir::Node& n, std::string_view op_type, std::size_t first, std::size_t count,
          std::initializer_list<std::string_view> attributes, std::int64_t opset = kOpset) {
  const auto y = result(n, first + 3 * count);
  Values inputs;
  for (std::size_t i = 0; i < first; ++i) inputs.push_back(n.input(i));
  bool plain = y.has_value();
  for (std::size_t i = 0; i < count; ++i) plain = plain && is_plain(operand(n, first + 3 * i));
  if (!plain) return w.miss(n, "its scales and zero points are no numbers of bytes and float32");
  for (std::size_t i = 0; i < count; ++i)
    inputs.push_back(dequantized(w, n, operand(n, first + 3 * i)));
  ir::Node* made = add(w, n, op_type, inputs, *n.output(0), opset);
  copy_attributes(n, *made, attributes);
  return become(w, n, made->output(0), *y);
}

bool open_concat(Rewriter& w, ir::Node& n) {
  const auto y = result(n, 0);
  bool plain = y.has_value() && n.input_count() > 2 && (n.input_count() - 2) % 3 == 0;
  for (std::size_t i = 2; plain && i < n.input_count(); i += 3) plain = is_plain(operand(n, i));
  if (!plain) return w.miss(n, "its scales and zero points are no numbers of bytes and float32");
  Values inputs;
  for (std::size_t i = 2; i < n.input_count(); i += 3)
    inputs.push_back(dequantized(w, n, operand(n, i)));
  ir::Node* made = add(w, n, "Concat", inputs, *n.output(0));
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
  const std::int64_t opset = attr_int(n, "opset", kOpset) < kOpset ? 11 : kOpset;
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
  Quantized x = operand(n, 0);
  x.value = move->input(0);
  if (!is_plain(x)) return w.miss(n, "its scale and zero point are no numbers");
  if (!n.input(0)->has_one_use()) return w.miss(n, "{} has other users", n.input(0)->name);
  ir::Value* real = dequantized(w, n, x);
  w.replace(n.output(0), moved(w, *move, real, *n.output(0), n)->output(0));
  return true;
}

bool same_value(const ir::Value* a, const ir::Value* b) {
  return a == b || (a != nullptr && b != nullptr && a->constant && b->constant &&
                    a->constant->same(*b->constant));
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
      !is_plain(operand(n, 0)) || !same_steps(n, *quantize))
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
  const Quantized x = operand(n, 0);
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

// ---------------------------------------------------------------- products of integers

/// A product of integers in the form of its real one.
struct Product {
  std::string_view op_type;
  Quantized a, b;
};

/// Whether `q`'s scale and zero point are what DynamicQuantizeLinear found for it.
bool is_found(const Quantized& q) {
  const ir::Node* found = producer_of(q.value, "DynamicQuantizeLinear");
  return found != nullptr && q.scale == found->output(1) && q.zero == found->output(2);
}

/// A constant scale of one number, or one a slice of `size`, with ones beside where it is broadcast.
bool is_scale(const ir::Value* v, std::size_t axis_from_end) {
  if (v == nullptr || !v->constant || v->constant->dtype() != ir::DType::Float32) return false;
  const Ints& dims = v->constant->dims();
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (dims[i] != 1 && dims.size() - 1 - i != axis_from_end) return false;
  return true;
}

ir::Value* flat_scale(Rewriter& w, ir::Value* v) {
  if (v->constant->rank() <= 1) return v;
  const Ints dims = v->constant->size() == 1 ? Ints{} : Ints{v->constant->size()};
  return w.constant(*v->graph(), v->name, v->constant->reshaped(dims));
}

std::optional<Product> integer_product(Rewriter& w, const ir::Node& n, ir::Value* x_scale,
                                       ir::Value* w_scale) {
  const bool conv = n.is("ConvInteger");
  const auto rank = n.input(1) != nullptr && n.input(1)->constant ? n.input(1)->constant->rank() : 0;
  if (rank < 2 || !is_scale(w_scale, conv ? rank - 2 : 0)) return std::nullopt;
  Product p{conv ? "Conv" : "MatMul",
            {n.input(0), x_scale, n.input(2), std::nullopt},
            {n.input(1), flat_scale(w, w_scale), n.input(3), std::nullopt}};
  if ((!is_found(p.a) && !is_plain(p.a)) || !is_plain_weight(p.b, conv ? 0 : rank - 1)) return std::nullopt;
  return p;
}

/// The same by the constant product of both scales, where the first is known from another reader.
std::optional<Product> scaled_product(Rewriter& w, const ir::Node& n, ir::Value* scales) {
  constexpr int kMostLooked = 16;
  if (n.input(0) == nullptr || scales == nullptr || !scales->constant ||
      scales->constant->dtype() != ir::DType::Float32)
    return std::nullopt;
  int looked = 0;
  for (const ir::Use* u = n.input(0)->first_use(); u != nullptr && looked < kMostLooked;
       u = u->next, ++looked) {
    const Quantized x{n.input(0), u->user->input(1), n.input(2), std::nullopt};
    if (!u->user->is("DequantizeLinear") || u->index != 0 || !same_value(u->user->input(2), x.zero) ||
        !is_plain(x))
      continue;
    std::vector<float> rest;
    for (std::int64_t i = 0; i < scales->constant->size(); ++i)
      rest.push_back(scales->constant->at<float>(i) / x.scale->constant->at<float>(0));
    ir::Value* w_scale = w.constant(
        *n.graph(), scales->name,
        ir::Tensor::from<float>(ir::DType::Float32, scales->constant->dims(), rest));
    return integer_product(w, n, x.scale, w_scale);
  }
  return std::nullopt;
}

// Mul(Cast(MatMulInteger(q, w, zero)), Mul(scale, w_scale))   =>   MatMul(DequantizeLinear(q, scale, zero), w)
// where q, scale and zero are found by DynamicQuantizeLinear
bool open_integer_product(Rewriter& w, ir::Node& n) {
  for (std::size_t i = 0; i < 2; ++i) {
    const ir::Node* cast = sole_producer(n.input(i), "Cast");
    if (cast == nullptr || n.output(0)->type.dtype != ir::DType::Float32) continue;
    const ir::Node* product = sole_producer(cast->input(0), "MatMulInteger");
    if (product == nullptr) product = sole_producer(cast->input(0), "ConvInteger");
    if (product == nullptr) continue;
    std::optional<Product> p;
    if (const ir::Node* scales = producer_of(n.input(1 - i), "Mul")) {
      p = integer_product(w, *product, scales->input(0), scales->input(1));
      if (!p) p = integer_product(w, *product, scales->input(1), scales->input(0));
    } else {
      p = scaled_product(w, *product, n.input(1 - i));
    }
    if (!p) return w.miss(n, "it is no product with the scales of both factors");
    const Values inputs{dequantized(w, n, p->a), dequantized(w, n, p->b)};
    ir::Node* made = w.add(p->op_type, inputs, *n.output(0), n);
    made->opset = kOpset;
    made->name = product->name;
    copy_attributes(*product, *made,
                    {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"});
    w.replace(n.output(0), made->output(0));
    return true;
  }
  return false;
}

/// `bias` as one number a channel, where it is [channels, 1, 1] or [1, channels, 1, 1] for `conv`.
ir::TensorPtr bias_of(const ir::Node& conv, const ir::Value* bias) {
  const ir::Value* weight = conv.input(1);
  if (bias == nullptr || !bias->constant || !bias->has_one_use() || weight == nullptr ||
      !weight->type.shape.has_rank() || weight->type.shape.rank() < 3)
    return nullptr;
  const std::size_t rank = weight->type.shape.rank();
  const Ints& dims = bias->constant->dims();
  if (dims.size() + 1 < rank || dims.size() > rank || !weight->type.shape[0].is_const())
    return nullptr;
  Ints wanted(dims.size(), 1);
  wanted[dims.size() - rank + 1] = weight->type.shape[0].value();
  return dims == wanted ? bias->constant->reshaped({bias->constant->size()}) : nullptr;
}

// Add(Conv(x, w), b)   =>   Conv(x, w, b)
bool bias_into_conv(Rewriter& w, ir::Node& n) {
  // What an author of torch adds has a key of its own.
  if (w.model().info.producer_name == "pytorch") return w.miss(n, "the bias is the author's");
  for (std::size_t i = 0; i < 2; ++i) {
    ir::Node* conv = sole_producer(n.input(i), "Conv");
    if (conv == nullptr || conv->input_count() > 2 || conv->unsound) continue;
    const ir::Value* bias = n.input(1 - i);
    const ir::TensorPtr b = bias_of(*conv, bias);
    if (b == nullptr || b->dtype() != conv->output(0)->type.dtype) continue;
    const Values inputs{conv->input(0), conv->input(1), w.weight(*n.graph(), *bias, b)};
    ir::Node* made = w.add("Conv", inputs, *n.output(0), n);
    made->opset = conv->opset;
    made->name = conv->name;
    made->metadata = conv->metadata;
    for (const ir::Attribute& a : conv->attributes) copy_attributes(*conv, *made, {a.name});
    w.replace(n.output(0), made->output(0));
    return true;
  }
  return false;
}

/// com.microsoft's products that quantise their first factor, or scale what they give.
// DynamicQuantizeMatMul(x, w, w_scale, w_zero, bias)   =>   Add(MatMul(DequantizeLinear(...), w), bias)
bool open_scaled_product(Rewriter& w, ir::Node& n) {
  if (n.domain != kMicrosoft || n.output(0) == nullptr || !n.output(0)->has_uses()) return false;
  const bool dynamic = n.op_type == "DynamicQuantizeMatMul";
  if (!dynamic && n.op_type != "MatMulIntegerToFloat") return false;
  if (n.output(0)->type.dtype != ir::DType::Float32) return w.miss(n, "it is not of float32");
  Quantized b{n.input(1), n.input(dynamic ? 2 : 3), n.input(dynamic ? 3 : 5), std::nullopt};
  if (b.value == nullptr || !b.value->constant || b.value->constant->rank() < 2 ||
      !is_plain_weight(b, b.value->constant->rank() - 1))
    return w.miss(n, "its weight or scales are no constants of bytes and float32");
  Quantized a{n.input(0), n.input(2), n.input(4), std::nullopt};
  if (!dynamic && !is_found(a) && !is_plain(a)) return w.miss(n, "its first factor's scale is no number");
  if (dynamic) {
    const std::vector<std::string> names{w.model().new_name("quantized"), w.model().new_name("scale"),
                                         w.model().new_name("zero_point")};
    ir::Value* const inputs[] = {n.input(0)};
    ir::Node* found = n.graph()->add_node("DynamicQuantizeLinear", "", inputs, names, &n);
    found->name = n.name;
    found->metadata = n.metadata;
    found->op = ops::find_op("", found->op_type);
    found->opset = kOpset;
    w.push(found);
    a = {found->output(0), found->output(1), found->output(2), std::nullopt};
    a.value->type = ir::Type::tensor(ir::DType::UInt8, n.input(0)->type.shape);
  }
  const Values factors{dequantized(w, n, a), dequantized(w, n, b)};
  ir::Value* bias = n.input(dynamic ? 4 : 6);
  ir::Node* made = bias == nullptr ? w.add("MatMul", factors, *n.output(0), n)
                                   : add(w, n, "MatMul", factors, *n.output(0));
  if (bias != nullptr) {
    ir::Value* const terms[] = {made->output(0), bias};
    made->output(0)->type.shape = n.output(0)->type.shape;
    made->opset = kOpset;
    made = w.add("Add", terms, *n.output(0), n);
  }
  made->opset = kOpset;
  w.replace(n.output(0), made->output(0));
  return true;
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
      {.name = "open-integer-product",
       .what = "MatMulInteger and ConvInteger with their scales become real products",
       .apply = open_integer_product,
       .ops = {"Mul"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "open-scaled-product",
       .what = "DynamicQuantizeMatMul and MatMulIntegerToFloat become real products",
       .apply = open_scaled_product,
       .ops = {},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "bias-into-conv",
       .what = "Add of one constant a channel becomes the bias of the Conv before it",
       .apply = bias_into_conv,
       .ops = {"Add"},
       .in_conversion = true,
       .conversion_only = true},
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
