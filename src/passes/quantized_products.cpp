// Products of integers, said as the real ones that they stand for. For conversion alone.
#include <algorithm>
#include <string>

#include "passes/match.h"
#include "passes/quantized_values.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

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
    made->opset = kRealOpset;
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
    found->opset = kRealOpset;
    w.push(found);
    a = {found->output(0), found->output(1), found->output(2), std::nullopt};
    a.value->type = ir::Type::tensor(ir::DType::UInt8, n.input(0)->type.shape);
  }
  const Values factors{dequantized(w, n, a), dequantized(w, n, b)};
  ir::Value* bias = n.input(dynamic ? 4 : 6);
  ir::Node* made = bias == nullptr ? w.add("MatMul", factors, *n.output(0), n)
                                   : add_real(w, n, "MatMul", factors, *n.output(0));
  if (bias != nullptr) {
    ir::Value* const terms[] = {made->output(0), bias};
    made->output(0)->type.shape = n.output(0)->type.shape;
    made->opset = kRealOpset;
    made = w.add("Add", terms, *n.output(0), n);
  }
  made->opset = kRealOpset;
  w.replace(n.output(0), made->output(0));
  return true;
}

}  // namespace

std::span<const Rule> quantized_product_rules() {
  static const std::vector<Rule> kRules = {
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
  };
  return kRules;
}

}  // namespace onnx2nn::passes
