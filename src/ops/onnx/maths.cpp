// Elementwise functions of one tensor, and Clip.
// https://onnx.ai/onnx/operators/onnx__Abs.html and its neighbours.
// Opset 1 carried the attribute `consumed_inputs`, which said nothing about the result.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

void infer_unary(InferContext& c) {
  c.set(0, c.dtype(0), c.shape(0));
}
void infer_predicate(InferContext& c) {
  c.set(0, DType::Bool, c.shape(0));
}

/// Neg and Not of what is known of a shape.
void infer_neg(InferContext& c) {
  infer_unary(c);
  const auto v = c.contents(0);
  if (!v || !ir::is_integer(c.dtype(0))) return;
  Dims out;
  for (const Dim& d : *v) out.push_back(Dim(0) - d);
  c.set_contents(0, std::move(out));
}

constexpr const char* kNeg = "neg";
constexpr const char* kSqrt = "sqrt";
constexpr const char* kExp = "exp";
constexpr const char* kLog = "log";
constexpr const char* kNot = "bitwise_not";
constexpr const char* kCeil = "ceil";
constexpr const char* kFloor = "floor";
constexpr const char* kRound = "round";
constexpr const char* kReciprocal = "reciprocal";
constexpr const char* kSin = "sin";
constexpr const char* kCos = "cos";
constexpr const char* kTan = "tan";
constexpr const char* kAsin = "asin";
constexpr const char* kAcos = "acos";
constexpr const char* kAtan = "atan";
constexpr const char* kSinh = "sinh";
constexpr const char* kCosh = "cosh";
constexpr const char* kTanh = "tanh";
constexpr const char* kAsinh = "asinh";
constexpr const char* kAcosh = "acosh";
constexpr const char* kAtanh = "atanh";

/// Of integers too, whose type the result keeps.
void lower_erf(LowerContext& c) {
  const DType t = c.dtype(0);
  const Ex y = aten("erf", {computable(t, c.in(0))});
  c.out(0, ir::is_integer(t) ? aten("to.dtype", {y, Ex(t)}) : computed(t, y));
}

/// What is unsigned is its own absolute value.
void lower_abs(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  c.out(0, ir::is_unsigned(c.dtype(0)) ? c.in(0) : aten("abs", {c.in(0)}));
}

void lower_sign(LowerContext& c) {
  const DType t = c.dtype(0);
  const Ex x = c.in(0);
  if (ir::is_unsigned(t)) return c.out(0, aten("to.dtype", {aten("ne.Scalar", {x, 0}), Ex(t)}));
  c.out(0, aten("sign", {x}));
}

void lower_bitwise_not(LowerContext& c) {
  if (is_wide_unsigned(c.dtype(0))) return c.out(0, helper("bitwise_not", {c.in(0)}));
  c.out(0, aten("bitwise_not", {c.in(0)}));
}

void lower_is_inf(LowerContext& c) {
  const bool negative = c.attr_int("detect_negative", 1) != 0;
  const bool positive = c.attr_int("detect_positive", 1) != 0;
  const DType t = c.dtype(0);
  const Ex x = computable(t, c.in(0));
  if (!negative && !positive)
    return c.out(0, aten("zeros_like", {x}, {{"dtype", Ex(DType::Bool)}}));
  c.out(0, aten(negative && positive ? "isinf" : positive ? "isposinf" : "isneginf", {x}));
}

void lower_is_nan(LowerContext& c) {
  c.out(0, aten("isnan", {computable(c.dtype(0), c.in(0))}));
}

// ---------------------------------------------------------------- Clip
// Bounds are attributes before opset 11 and inputs after; an absent one is no bound.

struct Bounds {
  std::optional<Ex> min;
  std::optional<Ex> max;
  bool numbers = true;
};

Bounds clip_bounds(LowerContext& c) {
  Bounds out;
  const auto bound = [&](std::string_view attribute, std::size_t i,
                         double none) -> std::optional<Ex> {
    if (c.opset() < 11) {
      if (!c.has_attr(attribute)) return std::nullopt;
      const double v = c.attr_float(attribute, 0);
      if (v == none || std::isinf(v)) return std::nullopt;
      return neat(v);
    }
    if (!c.has_input(i)) return std::nullopt;
    if (!c.const_number(i)) {
      out.numbers = false;
      return c.in(i);
    }
    const Ex e = number(*c.constant(i));
    if (e->kind != torch::ExprKind::Float) return e;
    if (e->number == none) return std::nullopt;
    return neat(e->number);
  };
  constexpr double kLargest = std::numeric_limits<float>::max();
  out.min = bound("min", 1, -kLargest);
  out.max = bound("max", 2, kLargest);
  // Torch's exporters find no overload for an integer and a float.
  if (out.numbers && out.min && out.max && out.min->is_int() != out.max->is_int()) {
    Ex& whole = out.min->is_int() ? *out.min : *out.max;
    whole = Ex(static_cast<double>(whole->integer));
  }
  return out;
}

void lower_clip(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  const DType t = c.dtype(0);
  Bounds b = clip_bounds(c);
  const Ex x = c.in(0);
  if (!b.min && !b.max) return c.out(0, x);
  if (b.numbers) {
    const auto is = [](const std::optional<Ex>& e, std::int64_t v) {
      return e && (*e).is_int() && (*e)->integer == v;
    };
    if (ir::is_float(t) && is(b.min, 0) && is(b.max, 6)) return c.out(0, aten("relu6", {x}));
    const Ex y = aten("clamp", {comparable(t, x), b.min.value_or(kNone), b.max.value_or(kNone)});
    if (t != DType::UInt64) return c.out(0, compared(t, y));
  }
  const auto tensor = [&](std::size_t i, const std::optional<Ex>& e) {
    return e ? comparable(t, c.in(i)) : kNone;
  };
  c.out(0,
        compared(t, aten("clamp.Tensor", {comparable(t, x), tensor(1, b.min), tensor(2, b.max)})));
}

constexpr OpDef kMathsOps[] = {
    {.type = "Abs", .changed_at = {1, 6}, .infer = infer_unary, .lower = lower_abs},
    {.type = "Neg", .changed_at = {1, 6}, .infer = infer_neg, .lower = lower_unary<kNeg>},
    {.type = "Sign", .changed_at = {9}, .infer = infer_unary, .lower = lower_sign},
    {.type = "Ceil", .changed_at = {1, 6}, .infer = infer_unary, .lower = lower_unary<kCeil>},
    {.type = "Floor", .changed_at = {1, 6}, .infer = infer_unary, .lower = lower_unary<kFloor>},
    {.type = "Round", .changed_at = {11}, .infer = infer_unary, .lower = lower_unary<kRound>},
    {.type = "Reciprocal",
     .changed_at = {1, 6},
     .infer = infer_unary,
     .lower = lower_unary<kReciprocal>},
    {.type = "Sqrt", .changed_at = {1, 6}, .infer = infer_unary, .lower = lower_unary<kSqrt>},
    {.type = "Exp", .changed_at = {1, 6}, .infer = infer_unary, .lower = lower_unary<kExp>},
    {.type = "Log", .changed_at = {1, 6}, .infer = infer_unary, .lower = lower_unary<kLog>},
    {.type = "Erf", .changed_at = {9}, .infer = infer_unary, .lower = lower_erf},
    {.type = "Sin", .changed_at = {7}, .infer = infer_unary, .lower = lower_unary<kSin>},
    {.type = "Cos", .changed_at = {7}, .infer = infer_unary, .lower = lower_unary<kCos>},
    {.type = "Tan", .changed_at = {7}, .infer = infer_unary, .lower = lower_unary<kTan>},
    {.type = "Asin", .changed_at = {7}, .infer = infer_unary, .lower = lower_unary<kAsin>},
    {.type = "Acos", .changed_at = {7}, .infer = infer_unary, .lower = lower_unary<kAcos>},
    {.type = "Atan", .changed_at = {7}, .infer = infer_unary, .lower = lower_unary<kAtan>},
    {.type = "Sinh", .changed_at = {9}, .infer = infer_unary, .lower = lower_unary<kSinh>},
    {.type = "Cosh", .changed_at = {9}, .infer = infer_unary, .lower = lower_unary<kCosh>},
    {.type = "Tanh", .changed_at = {1, 6}, .infer = infer_unary, .lower = lower_unary<kTanh>},
    {.type = "Asinh", .changed_at = {9}, .infer = infer_unary, .lower = lower_unary<kAsinh>},
    {.type = "Acosh", .changed_at = {9}, .infer = infer_unary, .lower = lower_unary<kAcosh>},
    {.type = "Atanh", .changed_at = {9}, .infer = infer_unary, .lower = lower_unary<kAtanh>},
    {.type = "Not", .changed_at = {1}, .infer = infer_predicate, .lower = lower_unary<kNot>},
    {.type = "BitwiseNot", .changed_at = {18}, .infer = infer_unary, .lower = lower_bitwise_not},
    {.type = "IsInf", .changed_at = {10, 20}, .infer = infer_predicate, .lower = lower_is_inf},
    {.type = "IsNaN", .changed_at = {9, 20}, .infer = infer_predicate, .lower = lower_is_nan},
    {.type = "Clip", .changed_at = {1, 6, 11, 12}, .infer = infer_unary, .lower = lower_clip},
};

}  // namespace

std::span<const OpDef> maths_ops() {
  return kMathsOps;
}

}  // namespace onnx2nn::ops
