// Elementwise operators of two or more tensors: arithmetic, comparison, logic, bits.
// https://onnx.ai/onnx/operators/onnx__Add.html and its neighbours.
// Opsets 1-6 broadcast only where the attribute `broadcast` is set: the second operand's dimensions
// are matched with the first's from `axis` on (default: the last ones). From 7 on as in numpy.
#include <algorithm>
#include <cmath>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- inference

/// The second operand's shape as the old rule aligns it with the first's.
Shape legacy_shape(const NodeContext& c) {
  const Shape& a = c.shape(0);
  const Shape& b = c.shape(1);
  if (c.opset() < 7 && c.has_attr("axis") && (!a.has_rank() || !b.has_rank())) return {};
  if (c.opset() >= 7 || !a.has_rank() || !b.has_rank() || b.rank() == 0 || b.rank() > a.rank())
    return b;
  const auto axis =
      c.attr_int("axis", static_cast<std::int64_t>(a.rank()) - static_cast<std::int64_t>(b.rank()));
  const auto start = static_cast<std::size_t>(c.axis(axis, a.rank()));
  Dims dims = b.dims();
  for (std::size_t i = start + b.rank(); i < a.rank(); ++i) dims.emplace_back(1);
  return Shape(std::move(dims));
}

Shape binary_shape(const NodeContext& c) {
  return broadcast(c.shape(0), legacy_shape(c));
}

void infer_binary(InferContext& c) {
  c.set(0, c.dtype(0), binary_shape(c));
}

/// The elements of an output computed from those of two inputs, which broadcast.
template <typename Combine>
std::optional<Dims> combine(const NodeContext& c, std::size_t i, std::size_t j, const Combine& f) {
  const auto a = c.contents(i);
  const auto b = c.contents(j);
  if (!a || !b || c.rank(i).value_or(9) > 1 || c.rank(j).value_or(9) > 1) return std::nullopt;
  const std::size_t n = a->size() == 1 ? b->size() : a->size();
  if ((a->size() != n && a->size() != 1) || (b->size() != n && b->size() != 1)) return std::nullopt;
  Dims out;
  for (std::size_t k = 0; k < n; ++k)
    out.push_back(f((*a)[a->size() == 1 ? 0 : k], (*b)[b->size() == 1 ? 0 : k]));
  return out;
}

/// Contents of integer arithmetic on shapes.
template <Dim (*Combine)(const Dim&, const Dim&)>
void infer_integers(InferContext& c) {
  infer_binary(c);
  if (!ir::is_integer(c.dtype(0))) return;
  if (auto v = combine(c, 0, 1, Combine)) c.set_contents(0, std::move(*v));
}

Dim add(const Dim& a, const Dim& b) {
  return a + b;
}
Dim sub(const Dim& a, const Dim& b) {
  return a - b;
}
Dim mul(const Dim& a, const Dim& b) {
  return a * b;
}

/// ONNX divides integers towards zero.
Dim div(const Dim& a, const Dim& b) {
  if (a.is_const() && b.is_const()) {
    if (b.value() == 0) return {};
    return b.value() == -1 ? Dim(0) - a : Dim(a.value() / b.value());
  }
  return is_not_negative(a) && is_not_negative(b) ? Dim::floor_div(a, b) : Dim();
}

/// The remainder's sign is the divisor's, as that of Dim::mod is.
Dim remainder(const Dim& a, const Dim& b) {
  return b.is_const() && b.value() == 0 ? Dim() : Dim::mod(a, b);
}

/// With `fmod` the sign is the dividend's; where neither is negative both meanings are the same.
Dim truncated_remainder(const Dim& a, const Dim& b) {
  return is_not_negative(a) && is_not_negative(b) ? remainder(a, b) : Dim();
}

void infer_mod(InferContext& c) {
  if (c.attr_int("fmod", 0) != 0) return infer_integers<truncated_remainder>(c);
  infer_integers<remainder>(c);
}

/// Says 1 or 0 where a comparison of sizes has one answer for all sizes.
template <bool OnLess, bool OnEqual, bool OnGreater>
Dim compare(const Dim& a, const Dim& b) {
  const Dim d = a - b;
  if (!d.known()) return {};
  if (d.is_const())
    return Dim((d.value() < 0 ? OnLess : d.value() == 0 ? OnEqual : OnGreater) ? 1 : 0);
  if (OnGreater == OnEqual && is_not_negative(d)) return Dim(OnGreater ? 1 : 0);
  if (OnLess == OnEqual && is_not_negative(Dim(0) - d)) return Dim(OnLess ? 1 : 0);
  if (is_not_negative(d - Dim(1))) return Dim(OnGreater ? 1 : 0);
  if (is_not_negative(Dim(-1) - d)) return Dim(OnLess ? 1 : 0);
  return {};
}

template <Dim (*Combine)(const Dim&, const Dim&)>
void infer_comparison(InferContext& c) {
  c.set(0, DType::Bool, binary_shape(c));
  if (!ir::is_integer(c.dtype(0))) return;
  auto v = combine(c, 0, 1, Combine);
  if (v && std::all_of(v->begin(), v->end(), [](const Dim& d) { return d.is_const(); }))
    c.set_contents(0, std::move(*v));
}

void infer_logic(InferContext& c) {
  c.set(0, DType::Bool, binary_shape(c));
}
void infer_pow(InferContext& c) {
  c.set(0, c.dtype(0), binary_shape(c));
}

void infer_many(InferContext& c) {
  Shape shape = c.shape(0);
  for (std::size_t i = 1; i < c.input_count(); ++i) shape = broadcast(shape, c.shape(i));
  c.set(0, c.dtype(0), std::move(shape));
}

template <Dim (*Combine)(const Dim&, const Dim&)>
void infer_extreme(InferContext& c) {
  infer_many(c);
  if (c.input_count() == 2 && ir::is_integer(c.dtype(0)))
    if (auto v = combine(c, 0, 1, Combine)) c.set_contents(0, std::move(*v));
}

// ---------------------------------------------------------------- lowering

bool is_host(LowerContext& c, std::size_t i) {
  return !c.is_constant(i) && c.has_input(i) && c.lowered(i).host;
}

/// Whether `operand(i)` is a Python number.
bool is_plain(LowerContext& c, std::size_t i) {
  return c.is_scalar_constant(i) ||
         (is_host(c, i) && c.rank(i) == 0U && c.lowered(i).elements.size() == 1);
}

/// An operand beside input `other`: a Python number where that changes neither dtype nor shape.
Ex beside(LowerContext& c, std::size_t i, std::size_t other) {
  const ir::Tensor* t = c.constant(i);
  // A constant of one element that no one trains, such as a node's [0.5], need not be a tensor.
  if (t != nullptr && t->size() == 1 && t->rank() > 0 && !c.input(i)->is_initializer &&
      c.rank(other).value_or(0) >= t->rank() && ir::info(t->dtype()).kind != 's' &&
      ir::info(t->dtype()).kind != 'c' && !ir::is_sub_byte(t->dtype()))
    return number(*t);
  return c.operand(i);
}

/// Both operands; the second reshaped where the old rule aligns it otherwise than numpy does.
std::pair<Ex, Ex> operands(LowerContext& c) {
  if (c.opset() < 7) {
    c.ignore_attr("consumed_inputs");
    c.ignore_attr("broadcast");
    const Shape b = legacy_shape(c);
    const bool ranked = c.rank(0) && c.rank(1);
    if (!ranked && c.has_attr("axis"))
      return {c.in(0), helper("aligned", {c.in(1), c.in(0), c.attr_int("axis")})};
    c.ignore_attr("axis");
    if (ranked && b.rank() != *c.rank(1)) {
      const auto sizes = c.sizes(b);
      if (!sizes) return {c.in(0), helper("aligned", {c.in(1), c.in(0), c.attr_int("axis")})};
      return {c.in(0), aten("reshape", {c.in(1), list(*sizes)})};
    }
  }
  const DType t = c.dtype(0);
  if (is_wide_unsigned(t) || t == DType::String) return {c.in(0), c.in(1)};
  // One of both stays a tensor: a Python number takes a tensor's dtype, and has none of its own.
  if (is_plain(c, 0) && is_plain(c, 1)) return {c.in(0), c.operand(1)};
  const Ex b = beside(c, 1, 0);
  return {is_literal(b) ? c.in(0) : beside(c, 0, 1), b};
}

template <const char* const& Overload>
void lower_arithmetic(LowerContext& c) {
  const auto [a, b] = operands(c);
  const DType t = c.dtype(0);
  c.out(0, computed(t, aten(Overload, {computable(t, a), computable(t, b)})));
}

template <const char* const& Overload>
void lower_comparison(LowerContext& c) {
  const auto [a, b] = operands(c);
  const DType t = c.dtype(0);
  if (t == DType::String) {
    if (c.node().op_type != "Equal") c.unsupported("strings have no order");
    return c.out(0, helper("string_equal", {a, b}));
  }
  // torch compares every type for equality.
  const bool ordered = c.node().op_type != "Equal";
  c.out(0, ordered ? aten(Overload, {comparable(t, a), comparable(t, b)}) : aten(Overload, {a, b}));
}

template <const char* const& Overload>
void lower_bits(LowerContext& c) {
  const auto [a, b] = operands(c);
  c.out(0, aten(Overload, {a, b}));
}

constexpr const char* kAdd = "add.Tensor";
constexpr const char* kSub = "sub.Tensor";
constexpr const char* kMul = "mul.Tensor";
constexpr const char* kEq = "eq.Tensor";
constexpr const char* kLt = "lt.Tensor";
constexpr const char* kLe = "le.Tensor";
constexpr const char* kGt = "gt.Tensor";
constexpr const char* kGe = "ge.Tensor";
constexpr const char* kAnd = "bitwise_and.Tensor";
constexpr const char* kOr = "bitwise_or.Tensor";
constexpr const char* kXor = "bitwise_xor.Tensor";
constexpr const char* kMaximum = "maximum";
constexpr const char* kMinimum = "minimum";

void lower_div(LowerContext& c) {
  const auto [a, b] = operands(c);
  const DType t = c.dtype(0);
  if (is_wide_unsigned(t)) return c.out(0, helper("integer_divide", {a, b}));
  if (!ir::is_integer(t)) return c.out(0, aten("div.Tensor", {a, b}));
  // Python's own division would round towards minus infinity, and torch's without a mode gives
  // floats.
  const Ex x = is_literal(a) ? c.in(0) : a;
  c.out(0, aten("div.Tensor_mode", {x, b}, {{"rounding_mode", "trunc"}}));
}

void lower_mod(LowerContext& c) {
  const bool fmod = c.attr_int("fmod", 0) != 0;
  const auto [a, b] = operands(c);
  if (is_wide_unsigned(c.dtype(0)))
    return c.out(0, helper("mod", {a, b}, {{"fmod", Ex(fmod ? 1 : 0)}}));
  const Ex x = is_literal(a) ? c.in(0) : a;
  c.out(0, fmod ? aten("fmod.Tensor", {x, b}) : aten("remainder.Tensor", {x, b}));
}

/// The result has the base's type. Opsets 1-11 know one type for both.
void lower_pow(LowerContext& c) {
  const DType base = c.dtype(0);
  const DType exponent = c.dtype(1);
  const auto [a, b] = operands(c);
  if (ir::is_float(base) && is_literal(b)) {
    // x**2 is a multiplication; the base's type wins over a Python number's.
    const double p =
        b->kind == torch::ExprKind::Float ? b->number : static_cast<double>(b->integer);
    return c.out(0, aten("pow.Tensor_Scalar", {a, neat(p)}));
  }
  const Ex x = is_literal(a) ? c.in(0) : a;
  const bool same = base == exponent ||
                    (ir::is_float(base) && ir::is_integer(exponent) && !is_wide_unsigned(exponent));
  if (ir::is_float(base) && same) return c.out(0, aten("pow.Tensor_Tensor", {x, b}));
  if (base == exponent && b->kind == torch::ExprKind::Int && b->integer >= 0)
    return c.out(0, aten("pow.Tensor_Scalar", {x, b}));
  c.out(0, helper("power", {x, is_literal(b) ? c.in(1) : b}));
}

void lower_bit_shift(LowerContext& c) {
  const std::string direction = c.attr_string("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") c.fail("direction must be LEFT or RIGHT");
  const auto count = c.const_number(1);
  // Shifts by a whole width or more are the helper's.
  if (c.dtype(0) == DType::UInt8 && count && *count < 8 && !is_plain(c, 0)) {
    const auto [a, b] = operands(c);
    return c.out(
        0, aten(direction == "LEFT" ? "bitwise_left_shift.Tensor" : "bitwise_right_shift.Tensor",
                {a, b}));
  }
  c.out(0, helper("bit_shift", {c.in(0), c.in(1)}, {{"direction", Ex(direction)}}));
}

/// All inputs joined two by two. Those of many get names in between: nothing nests without end.
template <typename Join>
Ex joined(LowerContext& c, const char* name, Join&& join) {
  constexpr std::size_t kNested = 50;
  Ex out = c.in(0);
  for (std::size_t i = 1; i < c.input_count(); ++i) {
    if (i % kNested == 0) out = c.let(out, name);
    out = join(out, i);
  }
  return out;
}

/// Max and Min. Torch's clamp says the same as an extreme with a number, for NaN too.
template <const char* const& Overload, bool Max>
void lower_extreme(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  const std::size_t n = c.input_count();
  if (lacks_arithmetic(c.dtype(0))) {
    Args all;
    for (std::size_t i = 0; i < n; ++i) all.push_back(c.in(i));
    return c.out(0, helper(Max ? "maximum_of" : "minimum_of", all));
  }
  if (n == 2) {
    for (const std::size_t i : {std::size_t{1}, std::size_t{0}}) {
      if (!is_plain(c, i)) continue;
      const Ex x = c.in(1 - i);
      return c.out(
          0, Max ? aten("clamp", {x, c.operand(i)}) : aten("clamp", {x, kNone, c.operand(i)}));
    }
  }
  c.out(0, joined(c, Max ? "maximum" : "minimum", [&](const Ex& all, std::size_t i) {
          return aten(Overload, {all, c.in(i)});
        }));
}

void lower_sum(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  Ex out = joined(c, "total", [&](const Ex& sum, std::size_t i) {
    return aten("add.Tensor", {sum, i == 1 ? beside(c, 1, 0) : c.in(i)});
  });
  if (c.node().op_type == "Mean" && c.input_count() > 1)
    out = aten("div.Tensor", {out, static_cast<std::int64_t>(c.input_count())});
  c.out(0, out);
}

constexpr OpDef kElementwiseOps[] = {
    {.type = "Add",
     .changed_at = {1, 6, 7},
     .infer = infer_integers<add>,
     .lower = lower_arithmetic<kAdd>},
    {.type = "Sub",
     .changed_at = {1, 6, 7},
     .infer = infer_integers<sub>,
     .lower = lower_arithmetic<kSub>},
    {.type = "Mul",
     .changed_at = {1, 6, 7},
     .infer = infer_integers<mul>,
     .lower = lower_arithmetic<kMul>},
    {.type = "Div", .changed_at = {1, 6, 7}, .infer = infer_integers<div>, .lower = lower_div},
    {.type = "Mod", .changed_at = {10, 28}, .infer = infer_mod, .lower = lower_mod},
    {.type = "Pow", .changed_at = {1, 7, 12}, .infer = infer_pow, .lower = lower_pow},
    {.type = "Max",
     .changed_at = {1, 8},
     .infer = infer_extreme<Dim::max>,
     .lower = lower_extreme<kMaximum, true>},
    {.type = "Min",
     .changed_at = {1, 8},
     .infer = infer_extreme<Dim::min>,
     .lower = lower_extreme<kMinimum, false>},
    {.type = "Sum", .changed_at = {1, 8}, .infer = infer_many, .lower = lower_sum},
    {.type = "Mean", .changed_at = {1, 8}, .infer = infer_many, .lower = lower_sum},
    {.type = "Equal",
     .changed_at = {1, 7, 19},
     .infer = infer_comparison<compare<false, true, false>>,
     .lower = lower_comparison<kEq>},
    {.type = "Less",
     .changed_at = {1, 7},
     .infer = infer_comparison<compare<true, false, false>>,
     .lower = lower_comparison<kLt>},
    {.type = "LessOrEqual",
     .changed_at = {12},
     .infer = infer_comparison<compare<true, true, false>>,
     .lower = lower_comparison<kLe>},
    {.type = "Greater",
     .changed_at = {1, 7},
     .infer = infer_comparison<compare<false, false, true>>,
     .lower = lower_comparison<kGt>},
    {.type = "GreaterOrEqual",
     .changed_at = {12},
     .infer = infer_comparison<compare<false, true, true>>,
     .lower = lower_comparison<kGe>},
    // On bool torch's bitwise operators are the logical ones.
    {.type = "And", .changed_at = {1, 7}, .infer = infer_logic, .lower = lower_bits<kAnd>},
    {.type = "Or", .changed_at = {1, 7}, .infer = infer_logic, .lower = lower_bits<kOr>},
    {.type = "Xor", .changed_at = {1, 7}, .infer = infer_logic, .lower = lower_bits<kXor>},
    {.type = "BitwiseAnd", .changed_at = {18}, .infer = infer_binary, .lower = lower_bits<kAnd>},
    {.type = "BitwiseOr", .changed_at = {18}, .infer = infer_binary, .lower = lower_bits<kOr>},
    {.type = "BitwiseXor", .changed_at = {18}, .infer = infer_binary, .lower = lower_bits<kXor>},
    {.type = "BitShift", .changed_at = {11}, .infer = infer_binary, .lower = lower_bit_shift},
};

}  // namespace

std::span<const OpDef> elementwise_ops() {
  return kElementwiseOps;
}

}  // namespace onnx2nn::ops
