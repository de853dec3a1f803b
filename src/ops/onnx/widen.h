// Element types that torch holds but does not compute on: uint16, uint32, uint64 and the float8
// types. The operation is done in another type; the runtime helpers `computable`/`computed`
// (arithmetic) and `comparable`/`compared` (order) go there and back.
#pragma once

#include <cmath>

#include "ops/lower.h"

namespace onnx2nn::ops {

/// Whether torch lacks integer kernels for `t`.
inline bool is_wide_unsigned(DType t) {
  return t == DType::UInt16 || t == DType::UInt32 || t == DType::UInt64;
}
inline bool is_float8(DType t) {
  return ir::info(t).bits == 8 && ir::is_float(t);
}
inline bool lacks_arithmetic(DType t) {
  return is_wide_unsigned(t) || is_float8(t);
}

inline bool is_literal(const Ex& e) {
  return e->kind == torch::ExprKind::Int || e->kind == torch::ExprKind::Float ||
         e->kind == torch::ExprKind::Bool;
}

/// `x` in a type with arithmetic; Python numbers stay.
inline Ex computable(DType t, const Ex& x) {
  return lacks_arithmetic(t) && !is_literal(x) ? helper("computable", {x}) : x;
}
inline Ex computed(DType t, const Ex& y) {
  return lacks_arithmetic(t) ? helper("computed", {y, Ex(t)}) : y;
}

/// `x` in a type with an order that torch knows; bool has none for it.
inline Ex comparable(DType t, const Ex& x) {
  return (lacks_arithmetic(t) || t == DType::Bool) && !is_literal(x) ? helper("comparable", {x}) : x;
}
inline Ex compared(DType t, const Ex& y) {
  return lacks_arithmetic(t) || t == DType::Bool ? helper("compared", {y, Ex(t)}) : y;
}

/// The lowering of an operator that is one ATen function of its input.
template <const char* const& Overload>
void lower_unary(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  const DType t = c.dtype(0);
  c.out(0, computed(t, aten(Overload, {computable(t, c.in(0))})));
}

inline Ex to_dtype(const Ex& x, DType t) {
  return aten("to.dtype", {x, Ex(t)});
}

/// An attribute as elements of `t` hold it: of what is beyond them, infinity. Torch raises where a
/// number does not fit, runtimes convert it.
inline double held(DType t, double v) {
  auto nearest = static_cast<float>(v);
  if (t == DType::Float16) nearest = ir::half_to_float(ir::float_to_half(nearest));
  if (t == DType::BFloat16) nearest = ir::bfloat16_to_float(ir::float_to_bfloat16(nearest));
  const bool half = t == DType::Float16 || t == DType::BFloat16;
  return half && std::isinf(nearest) ? static_cast<double>(nearest) : v;
}

/// 2.0 as 2, for arguments where Python's integer says the same.
inline Ex neat(double v) {
  constexpr double kMax = 1e6;
  const bool whole = std::abs(v) <= kMax && v == std::trunc(v);
  if (whole && !(v == 0 && std::signbit(v))) return {static_cast<std::int64_t>(v)};
  return {v};
}

}  // namespace onnx2nn::ops
