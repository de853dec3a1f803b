// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear; the first two in com.microsoft's domain
// too. https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html Opset 13 brought one scale per
// slice along `axis`, 19 float8, 21 blocks, `output_dtype` and four-bit types, 23 `precision`.
// Weights stay quantised in the file; they are made real where they are used.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/lower.h"
#include "ops/onnx/widen.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// One value for all, or one for each slice along `axis`, or for each block of slices.
struct Layout {
  bool single = false;
  std::optional<std::int64_t> axis;  // counted from the first; unknown where the rank is
  std::int64_t given_axis = 1;
  std::int64_t block = 0;
};

Layout layout_of(const NodeContext& c) {
  Layout out;
  out.block = c.attr_int("block_size", 0);
  if (out.block < 0) c.fail("block_size is negative");
  out.given_axis = c.attr_int("axis", 1);
  const Shape& scale = c.shape(1);
  out.single = (scale.has_rank() && scale.rank() == 0) ||
               (out.block == 0 && scale.has_rank() && scale.rank() == 1 && scale[0].is_const() &&
                scale[0].value() == 1);
  if (!out.single && c.rank(0)) out.axis = c.axis(out.given_axis, *c.rank(0));
  return out;
}

/// The constant input `i` so that it broadcasts with input 0, where it can without a copy.
ir::TensorPtr broadcastable(const NodeContext& c, std::size_t i, const Layout& layout) {
  const ir::TensorPtr& t = c.input(i)->constant;
  if (layout.single) return t->size() == 1 ? t->reshaped({}) : nullptr;
  if (layout.block != 0 || !layout.axis || t->rank() != 1) return nullptr;
  Ints dims(*c.rank(0), 1);
  dims[static_cast<std::size_t>(*layout.axis)] = t->size();
  return t->reshaped(dims);
}

/// A scale or zero point, input `i`, so that it broadcasts with input 0: a number where it is one.
Ex spread(LowerContext& c, std::size_t i, const Layout& layout) {
  if (c.is_constant(i) && ir::info(c.dtype(i)).bits >= 8) {
    if (const ir::TensorPtr t = broadcastable(c, i, layout))
      return t->rank() == 0 ? number(*t) : c.buffer(c.input(i)->name, t);
  }
  Ex value = c.in(i);
  if (c.is_constant(i)) value = c.buffer(c.input(i)->name, c.input(i)->constant);
  if (layout.single) return c.rank(i) == 0U ? value : aten("squeeze", {value});
  if (layout.block == 0 && layout.axis) {
    // Trailing ones broadcast it along its axis.
    const auto after = static_cast<std::int64_t>(*c.rank(0)) - 1 - *layout.axis;
    Ints dims(static_cast<std::size_t>(after) + 1, 1);
    dims[0] = -1;
    return after == 0 ? value : aten("reshape", {value, Ex(dims)});
  }
  Kwargs kw;
  kw.emplace_back("axis", Ex(layout.axis.value_or(layout.given_axis)));
  if (layout.block != 0) kw.emplace_back("block_size", Ex(layout.block));
  return helper("spread_blocks", {value, c.in(0)}, kw);
}

struct Limits {
  std::int64_t low = 0;
  std::int64_t high = 0;
};

Limits limits_of(DType t) {
  const int bits = static_cast<int>(ir::info(t).bits);
  if (ir::info(t).kind == 'u') return {0, (std::int64_t{1} << bits) - 1};
  return {-(std::int64_t{1} << (bits - 1)), (std::int64_t{1} << (bits - 1)) - 1};
}

/// Whether it may be no number, since what it is computed of was read back by an infinite scale: a mask
/// of -inf was quantised. Other scales give finite numbers.
bool may_be_nan(const ir::Value* value) {
  constexpr std::size_t kMostLooked = 24;
  std::vector<const ir::Node*> seen;
  const auto look = [&](const ir::Value* v) {
    const ir::Node* n = v != nullptr ? v->producer() : nullptr;
    if (n != nullptr && std::find(seen.begin(), seen.end(), n) == seen.end()) seen.push_back(n);
  };
  look(value);
  for (std::size_t i = 0; i < std::min(seen.size(), kMostLooked); ++i) {
    const ir::Node& n = *seen[i];
    if (n.op_type == "DequantizeLinear") {
      const ir::TensorPtr scale = n.input_count() > 1 && n.input(1) ? n.input(1)->constant : nullptr;
      if (scale && ir::is_float(scale->dtype()) && scale->size() == 1 && std::isinf(scale->double_at(0)))
        return true;
      continue;
    }
    for (std::size_t k = 0; k < n.input_count(); ++k) look(n.input(k));
  }
  return false;
}

// ---------------------------------------------------------------- QuantizeLinear

DType quantized_dtype(const NodeContext& c) {
  if (c.has_input(2)) return c.dtype(2);
  return c.attr_dtype("output_dtype", DType::UInt8);
}

void infer_quantize(InferContext& c) {
  c.set(0, quantized_dtype(c), c.shape(0));
}

void lower_quantize(LowerContext& c) {
  c.ignore_attr("output_dtype");
  const DType to = quantized_dtype(c);
  if (to == DType::Undefined) c.unsupported("the zero point's type is not known");
  const Layout layout = layout_of(c);
  const DType precision = c.attr_dtype("precision", DType::Undefined);
  const bool saturate = c.attr_int("saturate", 1) != 0;
  const DType t = precision != DType::Undefined ? precision
                  : ir::is_float(c.dtype(0))    ? c.dtype(0)
                                                : c.dtype(1);
  const auto as_real = [&](const Ex& x, DType from) {
    return from != t && !is_literal(x) ? to_dtype(x, t) : x;
  };
  Ex y = aten("div.Tensor", {as_real(c.in(0), c.dtype(0)), as_real(spread(c, 1, layout), c.dtype(1))});
  if (ir::is_narrow_float(to))
    return c.out(0, helper("cast_narrow_float", {y}, {{"mantissa", Ex(ir::narrow_mantissa(to))}}));
  if (ir::is_float(to)) {
    Kwargs kw;
    if (!saturate) kw.emplace_back("saturate", Ex(0));
    return c.out(0, helper("cast_float8", {y, Ex(to)}, kw));
  }
  if (t != DType::Float32) y = to_dtype(y, DType::Float32);
  y = aten("round", {y});
  if (c.has_input(2)) {
    const Ex zero = spread(c, 2, layout);
    if (zero->kind != torch::ExprKind::Int || zero->integer != 0)
      y = aten(zero->kind == torch::ExprKind::Int ? "add.Scalar" : "add.Tensor", {y, zero});
  }
  // What is not a number becomes the lowest, as in ONNX Runtime.
  if (may_be_nan(c.input(0))) y = aten("nan_to_num", {y, Ex(-kInfinity)});
  const Limits limits = limits_of(to);
  c.out(0, to_dtype(aten("clamp", {y, limits.low, limits.high}), ir::carrier(to)));
}

// ---------------------------------------------------------------- DequantizeLinear

DType real_dtype(const NodeContext& c) {
  return c.attr_dtype("output_dtype", c.dtype(1));
}

void infer_dequantize(InferContext& c) {
  c.set(0, real_dtype(c), c.shape(0));
}

bool is_zero(const ir::Tensor& t) {
  for (std::int64_t i = 0; i < t.size(); ++i)
    if (t.int_at(i) != 0) return false;
  return true;
}

/// The constant input `i`, a scale or zero point of a weight: one, one for each slice, or one for each of
/// blocks of one size, as many as input 0 has along the axis.
ir::TensorPtr beside_weight(const NodeContext& c, std::size_t i, const Layout& layout) {
  if (layout.single || layout.block == 0) return broadcastable(c, i, layout);
  const ir::TensorPtr& t = c.input(i)->constant;
  Ints dims = c.constant(0)->dims();
  if (!layout.axis || t->rank() != dims.size()) return nullptr;
  std::int64_t& size = dims[static_cast<std::size_t>(*layout.axis)];
  if (size % layout.block != 0) return nullptr;
  size /= layout.block;
  return t->dims() == dims ? t : nullptr;
}

/// Integers that are constant stay so in the file, and are a real weight to all who read it.
bool keep_as_weight(LowerContext& c, const Layout& layout) {
  const DType from = c.dtype(0);
  const DType to = real_dtype(c);
  const bool known = from == DType::Int8 || from == DType::UInt8 || from == DType::Int16 ||
                     from == DType::UInt16 || from == DType::Int32 || from == DType::Int4 ||
                     from == DType::UInt4 || from == DType::Int2 || from == DType::UInt2;
  if (!known || !c.is_constant(0) || !c.is_constant(1) || to != c.dtype(1)) return false;
  if (to != DType::Float32 && to != DType::Float16 && to != DType::BFloat16) return false;
  QuantizedWeight weight;
  weight.integers = c.input(0);
  weight.scale = beside_weight(c, 1, layout);
  if (weight.scale == nullptr) return false;
  if (c.has_input(2)) {
    if (!c.is_constant(2)) return false;
    if (!is_zero(*c.constant(2))) {
      weight.zero_point = beside_weight(c, 2, layout);
      // Only what float32 holds may be subtracted in it.
      if (weight.zero_point == nullptr || from == DType::Int32) return false;
    }
  }
  c.keep_quantized(std::move(weight));
  return true;
}

/// A number that is rounded by QuantizeLinear and read back at once, by the same scale.
bool lower_pair(LowerContext& c) {
  const ir::Node* q = c.input(0)->producer();
  if (q == nullptr || q->graph() != c.node().graph()) return false;
  if (q->is("DynamicQuantizeLinear") && c.input(1) == q->output(1) && c.input(2) == q->output(2)) {
    c.out(0, helper("fake_quantize_by_range", {c.value(q->input(0))}));
    return true;
  }
  if (q->op_type != "QuantizeLinear") return false;
  const NodeContext quantize(*q);
  const DType t = quantize.dtype(0);
  const DType integers = c.dtype(0);
  const bool plain = (t == DType::Float32 || (t == DType::Float16 && ir::info(integers).bits <= 8)) &&
                     ir::is_integer(integers) && ir::info(integers).bits <= 16 &&
                     c.dtype(1) == t && quantize.dtype(1) == t && real_dtype(c) == t &&
                     quantize.attr_dtype("precision", t) == t;
  if (!plain || !layout_of(c).single || !layout_of(quantize).single) return false;
  const auto same = [&](std::size_t i) {
    if (c.input(i) == quantize.input(i)) return true;
    const ir::Tensor* a = c.constant(i);
    const ir::Tensor* b = quantize.constant(i);
    return a != nullptr && b != nullptr && a->same(*b);
  };
  const auto scale = c.const_number(1);
  if (!scale || !same(1) || (c.has_input(2) && !c.is_constant(2)) || !same(2)) return false;
  const Limits limits = limits_of(integers);
  const std::int64_t zero = c.has_input(2) ? c.constant(2)->int_at(0) : 0;
  if (*scale == kInfinity && t == DType::Float32 && zero > limits.low) {
    // No finite number is a step away from zero, and zero steps of it are not a number.
    const Ex finite = aten("isfinite", {c.value(quantize.input(0))});
    const Ex nan(std::numeric_limits<double>::quiet_NaN());
    c.out(0, aten("where.Scalar", {finite, nan, Ex(-kInfinity)}));
    return true;
  }
  // Of no other scale are the steps of a number of the same order.
  if (!std::isnormal(*scale)) return false;
  Ex x = c.value(quantize.input(0));
  if (may_be_nan(quantize.input(0))) x = aten("nan_to_num", {x, Ex(-kInfinity)});
  Args args{x, Ex(*scale), Ex(zero)};
  if (integers == DType::Int8) return c.out(0, helper("fake_quantize", args)), true;
  args.insert(args.end(), {limits.low, limits.high});
  c.out(0, helper("fake_quantize_between", args));
  return true;
}

void lower_dequantize(LowerContext& c) {
  const Layout layout = layout_of(c);
  if (keep_as_weight(c, layout) || lower_pair(c)) return;
  const DType from = c.dtype(0);
  Ex y = c.in(0);
  const bool is_float = ir::is_float(from);
  if (!is_float && c.has_input(2)) {
    const Ex zero = spread(c, 2, layout);
    const bool number = zero->kind == torch::ExprKind::Int;
    if (!number || zero->integer != 0)
      y = aten(number ? "sub.Scalar" : "sub.Tensor",
               {to_dtype(y, DType::Int32), number ? zero : to_dtype(zero, DType::Int32)});
  }
  if (from != DType::Float32) y = to_dtype(y, DType::Float32);
  Ex scale = spread(c, 1, layout);
  if (c.dtype(1) != DType::Float32 && !is_literal(scale))
    scale = to_dtype(scale, DType::Float32);
  y = aten("mul.Tensor", {y, scale});
  const DType to = real_dtype(c);
  c.out(0, to == DType::Float32 ? y : to_dtype(y, to));
}

// ---------------------------------------------------------------- DynamicQuantizeLinear

void infer_dynamic(InferContext& c) {
  c.set(0, DType::UInt8, c.shape(0));
  c.set(1, DType::Float32, Shape::of({}));
  c.set(2, DType::UInt8, Shape::of({}));
}

void lower_dynamic(LowerContext& c) {
  c.outs(helper("dynamic_quantize_linear", {c.in(0)}), 3);
}

constexpr OpDef kQuantizeOps[] = {
    {.type = "QuantizeLinear",
     .changed_at = {10, 13, 19, 21, 23},
     .infer = infer_quantize,
     .lower = lower_quantize},
    {.type = "DequantizeLinear",
     .changed_at = {10, 13, 19, 21, 23},
     .infer = infer_dequantize,
     .lower = lower_dequantize},
    {.type = "DynamicQuantizeLinear",
     .changed_at = {11},
     .infer = infer_dynamic,
     .lower = lower_dynamic},
    {.type = "QuantizeLinear",
     .domain = "com.microsoft",
     .changed_at = {1},
     .infer = infer_quantize,
     .lower = lower_quantize},
    {.type = "DequantizeLinear",
     .domain = "com.microsoft",
     .changed_at = {1},
     .infer = infer_dequantize,
     .lower = lower_dequantize},
};

}  // namespace

std::span<const OpDef> quantize_ops() {
  return kQuantizeOps;
}

}  // namespace onnx2nn::ops
