// Cast, CastLike and BitCast between all element types.
// https://onnx.ai/onnx/operators/onnx__Cast.html
// torch converts what it holds natively; the helpers do float8 (saturation), bare exponents,
// strings, and the types narrower than a byte, which are carried in int8, uint8 or (floats)
// float32.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

DType target(const NodeContext& c) {
  if (c.node().op_type == "CastLike") return c.dtype(1);
  const DType t = c.attr_dtype("to", DType::Undefined);
  if (t == DType::Undefined) c.fail("the attribute \"to\" is missing");
  return t;
}

// ---------------------------------------------------------------- sizes in floating point
// Exporters scale sizes as floats: Cast, Mul by 0.5, Floor, Cast back. Where no step rounds, the
// result is integer arithmetic.

/// numerator / denominator, the latter positive.
struct Ratio {
  Dim numerator;
  std::int64_t denominator = 1;
  bool rounded =
      false;  // a quotient that float holds nearly: right when rounded to an integer next
};
using Ratios = std::vector<Ratio>;

constexpr std::int64_t kMaxDenominator = 1 << 12;

/// A number that is a small multiple of a small power of two.
std::optional<Ratio> exact_ratio(double v) {
  for (std::int64_t d = 1; d <= kMaxDenominator; d *= 2) {
    const double n = v * static_cast<double>(d);
    if (std::abs(n) > kMaxDenominator) return std::nullopt;
    if (n == std::floor(n)) return Ratio{Dim(static_cast<std::int64_t>(n)), d};
  }
  return std::nullopt;
}

std::optional<Ratio> times(const Ratio& a, const Ratio& b) {
  const std::int64_t d = a.denominator * b.denominator;
  if (a.rounded || b.rounded || d > kMaxDenominator) return std::nullopt;
  return Ratio{a.numerator * b.numerator, d};
}

std::optional<Ratio> over(const Ratio& a, const Ratio& b) {
  if (a.rounded || b.rounded || !b.numerator.is_const() || b.numerator.value() <= 0)
    return std::nullopt;
  const std::int64_t n = b.numerator.value();
  if (n > kMaxDenominator) return std::nullopt;
  const std::int64_t d = a.denominator * n;
  if (d > kMaxDenominator) return std::nullopt;
  return Ratio{a.numerator * Dim(b.denominator), d, (n & (n - 1)) != 0};
}

std::optional<Ratio> plus(const Ratio& a, const Ratio& b, std::int64_t sign) {
  if (a.rounded || b.rounded || a.denominator * b.denominator > kMaxDenominator)
    return std::nullopt;
  return Ratio{a.numerator * Dim(b.denominator) + Dim(sign) * b.numerator * Dim(a.denominator),
               a.denominator * b.denominator};
}

std::optional<Ratio> combine(std::string_view op, const Ratio& a, const Ratio& b) {
  if (op == "Mul") return times(a, b);
  if (op == "Div") return over(a, b);
  return plus(a, b, op == "Add" ? 1 : -1);
}

/// The elements of a floating-point value of rank 0 or 1, where they are exact functions of sizes.
std::optional<Ratios> ratios(const ir::Value* v, int depth = 0) {
  constexpr int kMaxDepth = 16;
  constexpr std::int64_t kMaxElements = 8;
  if (v == nullptr || depth > kMaxDepth || !v->type.is_tensor() ||
      v->type.shape.has_rank() == false || v->type.shape.rank() > 1)
    return std::nullopt;
  Ratios out;
  if (v->constant) {
    if (!ir::is_float(v->constant->dtype()) || v->constant->size() > kMaxElements)
      return std::nullopt;
    for (const double x : v->constant->to_doubles()) {
      const auto r = exact_ratio(x);
      if (!r) return std::nullopt;
      out.push_back(*r);
    }
    return out;
  }
  const ir::Node* n = v->producer();
  if (n == nullptr || !n->domain.empty() ||
      (v->type.dtype != DType::Float32 && v->type.dtype != DType::Float64))
    return std::nullopt;
  const std::string& op = n->op_type;
  if (op == "Cast" || op == "CastLike") {
    const ir::Value* from = n->input(0);
    if (from == nullptr || !ir::is_integer(from->type.dtype) || !from->contents)
      return ratios(from, depth + 1);
    for (const Dim& d : *from->contents) {
      if (!d.known()) return std::nullopt;
      out.push_back({d});
    }
    return out;
  }
  if (op == "Mul" || op == "Div" || op == "Add" || op == "Sub") {
    const auto a = ratios(n->input(0), depth + 1);
    const auto b = a ? ratios(n->input(1), depth + 1) : std::nullopt;
    if (!b || a->empty() || b->empty() ||
        (a->size() != b->size() && a->size() != 1 && b->size() != 1))
      return std::nullopt;
    for (std::size_t i = 0; i < std::max(a->size(), b->size()); ++i) {
      const auto r = combine(op, (*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]);
      if (!r || !r->numerator.known()) return std::nullopt;
      out.push_back(*r);
    }
    return out;
  }
  if (op == "Concat") {
    for (std::size_t i = 0; i < n->input_count(); ++i) {
      const auto part = ratios(n->input(i), depth + 1);
      if (!part) return std::nullopt;
      out.insert(out.end(), part->begin(), part->end());
    }
    return out;
  }
  const auto same = op == "Floor" || op == "Ceil" || op == "Identity" || op == "Unsqueeze" ||
                            op == "Squeeze" || op == "Reshape"
                        ? ratios(n->input(0), depth + 1)
                        : std::nullopt;
  if (!same) return std::nullopt;
  for (const Ratio& r : *same) {
    if (op == "Floor") {
      out.push_back({Dim::floor_div(r.numerator, Dim(r.denominator))});
    } else if (op == "Ceil") {
      out.push_back({Dim::ceil_div(r.numerator, Dim(r.denominator))});
    } else {
      out.push_back(r);
    }
  }
  return out;
}

/// Sizes that took the way through floating point: a conversion rounds towards zero.
void infer_sizes_from_float(InferContext& c) {
  const auto all = ratios(c.input(0));
  if (!all) return;
  Dims out;
  for (const Ratio& r : *all) {
    const bool whole = r.denominator == 1;
    if (!whole && !is_not_negative(r.numerator)) return;
    out.push_back(whole ? r.numerator : Dim::floor_div(r.numerator, Dim(r.denominator)));
  }
  c.set_contents(0, std::move(out));
}

// ---------------------------------------------------------------- Cast, CastLike

void infer_cast(InferContext& c) {
  const DType to = target(c);
  c.set(0, to, c.shape(0));
  const auto v = c.contents(0);
  if (!v && (to == DType::Int64 || to == DType::Int32) && ir::is_float(c.dtype(0)) &&
      !c.constant(0))
    return infer_sizes_from_float(c);
  if (!v) return;
  Dims out = *v;
  if (ir::is_integer(to)) {
    // A size fits in int32 and int64; narrower types keep numbers only.
    const bool wide = ir::info(to).bits >= 32;
    for (Dim& d : out)
      if (d.is_const() ? !ir::holds(to, d.value()) : !wide) d = Dim();
  } else if (to == DType::Bool) {
    for (Dim& d : out) d = d.is_const() ? Dim(d.value() != 0 ? 1 : 0) : Dim();
  } else {
    return;
  }
  c.set_contents(0, std::move(out));
}

bool fold_cast(FoldContext& c) {
  const DType to = target(c);
  if (c.dtype(0) != to || to == DType::Undefined) return false;
  c.set(0, c.input(0));
  return true;
}

/// `x` of type `from` as type `to`.
Ex convert(LowerContext& c, const Ex& x, DType from, DType to) {
  const bool saturate = c.attr_int("saturate", 1) != 0;
  const std::string round_mode = c.attr_string("round_mode", "up");
  const bool narrow = ir::is_sub_byte(to) && ir::is_integer(to);
  if (from == to) return x;
  if (to == DType::String) return helper("cast_to_string", {x});
  if (from == DType::String) {
    const Ex y = helper("cast_from_string", {x, Ex(to == DType::Float64 ? to
                                                   : ir::is_float(to)   ? DType::Float32
                                                   : narrow             ? DType::Int64
                                                                        : to)});
    if (ir::is_float(to) && to != DType::Float32 && to != DType::Float64)
      return convert(c, y, DType::Float32, to);
    return narrow ? convert(c, y, DType::Int64, to) : y;
  }
  if (narrow)
    return helper("cast_narrow", {x, ir::info(to).bits}, {{"signed", Ex(!ir::is_unsigned(to))}});
  if (ir::is_narrow_float(to))
    return helper("cast_narrow_float", {x}, {{"mantissa", Ex(ir::narrow_mantissa(to))}});
  if (to == DType::Float8E8M0) {
    Kwargs kw;
    if (!saturate) kw.emplace_back("saturate", Ex(0));
    if (round_mode != "up") kw.emplace_back("round_mode", Ex(round_mode));
    return helper("cast_e8m0", {x}, kw);
  }
  if (is_float8(to))
    return helper("cast_float8", {x, Ex(to)}, saturate ? Kwargs{} : Kwargs{{"saturate", Ex(0)}});
  // Narrow floats are carried in float32, narrow integers in whole bytes.
  if (ir::carrier(from) == to) return x;
  return aten("to.dtype", {x, Ex(to)});
}

void lower_cast(LowerContext& c) {
  const DType from = c.dtype(0);
  DType to = target(c);
  if (c.node().op_type == "CastLike" && to == DType::Undefined) {
    c.ignore_attr("saturate");
    c.ignore_attr("round_mode");
    return c.out(0, aten("to.other", {c.in(0), c.in(1)}));
  }
  const bool native = !ir::is_sub_byte(to) && !is_float8(to) && to != DType::String;
  if (native && !c.is_constant(0) && c.has_input(0) && c.lowered(0).host) {
    c.ignore_attr("saturate");
    c.ignore_attr("round_mode");
    return c.out(0, c.materialise(c.lowered(0), to, c.rank(0) == 0U));
  }
  c.out(0, convert(c, c.in(0), from, to));
}

// ---------------------------------------------------------------- BitCast

void infer_bit_cast(InferContext& c) {
  c.set(0, target(c), c.shape(0));
}

void lower_bit_cast(LowerContext& c) {
  const DType from = c.dtype(0);
  const DType to = target(c);
  const Ex x = c.in(0);
  if (from == to) return c.out(0, x);
  if (ir::info(from).bits != ir::info(to).bits && from != DType::Undefined)
    c.fail("the types have different widths");
  if (ir::info(from).bits == 6) c.unsupported("six bits are of no other type");
  if (from == DType::Float4E2M1) {
    const Ex bits = helper("float4_bits", {x});
    return c.out(0, ir::is_unsigned(to)
                        ? bits
                        : helper("bit_cast_narrow", {bits, 4}, {{"signed", Ex(true)}}));
  }
  if (to == DType::Float4E2M1) return c.out(0, helper("float4_values", {x}));
  if (ir::is_sub_byte(to))
    return c.out(0, helper("bit_cast_narrow", {x, ir::info(to).bits},
                           {{"signed", Ex(!ir::is_unsigned(to))}}));
  if (to == DType::Bool) return c.out(0, helper("bit_cast", {x, Ex(to)}));
  c.out(0, aten("view.dtype", {x, Ex(to)}));
}

constexpr OpDef kCastOps[] = {
    {.type = "Cast",
     .changed_at = {1, 6, 9, 13, 19, 21, 23, 24},
     .infer = infer_cast,
     .fold = fold_cast,
     .lower = lower_cast},
    {.type = "CastLike",
     .changed_at = {15, 19, 21, 23, 24},
     .infer = infer_cast,
     .fold = fold_cast,
     .lower = lower_cast},
    {.type = "BitCast", .changed_at = {26}, .infer = infer_bit_cast, .lower = lower_bit_cast},
};

}  // namespace

std::span<const OpDef> cast_ops() {
  return kCastOps;
}

}  // namespace onnx2nn::ops
