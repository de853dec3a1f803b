// Elementwise arithmetic, comparison, logic and mathematics.
// https://onnx.ai/onnx/operators/onnx__Add.html and its neighbours.
// Opsets 1-6 broadcast only where the attribute `broadcast` is set: the second operand's dimensions
// are matched with the first's from `axis` on (default: the last ones). From 7 on as in numpy.
#include <algorithm>

#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- inference

/// The second operand's shape as the old rule aligns it with the first's.
Shape legacy_shape(const NodeContext& c) {
  const Shape& a = c.shape(0);
  const Shape& b = c.shape(1);
  if (c.opset() >= 7 || !a.has_rank() || !b.has_rank() || b.rank() == 0) return b;
  const auto axis = c.attr_int("axis", static_cast<std::int64_t>(a.rank()) - static_cast<std::int64_t>(b.rank()));
  const auto start = static_cast<std::size_t>(c.axis(axis, a.rank() + 1));
  Dims dims = b.dims();
  for (std::size_t i = start + b.rank(); i < a.rank(); ++i) dims.emplace_back(1);
  return Shape(std::move(dims));
}

Shape binary_shape(const NodeContext& c) { return broadcast(c.shape(0), legacy_shape(c)); }

void infer_binary(InferContext& c) { c.set(0, c.dtype(0), binary_shape(c)); }
void infer_comparison(InferContext& c) { c.set(0, DType::Bool, binary_shape(c)); }
void infer_unary(InferContext& c) { c.set(0, c.type(0)); }
void infer_predicate(InferContext& c) { c.set(0, DType::Bool, c.shape(0)); }

/// Contents of integer arithmetic on shapes.
template <Dim (*Combine)(const Dim&, const Dim&)>
void infer_integers(InferContext& c) {
  infer_binary(c);
  if (!ir::is_integer(c.dtype(0))) return;
  const auto a = c.contents(0);
  const auto b = c.contents(1);
  if (!a || !b || c.rank(0).value_or(9) > 1 || c.rank(1).value_or(9) > 1) return;
  const std::size_t n = std::max(a->size(), b->size());
  if ((a->size() != n && a->size() != 1) || (b->size() != n && b->size() != 1)) return;
  Dims out;
  for (std::size_t i = 0; i < n; ++i) out.push_back(Combine((*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]));
  c.set_contents(0, std::move(out));
}

Dim add(const Dim& a, const Dim& b) { return a + b; }
Dim sub(const Dim& a, const Dim& b) { return a - b; }
Dim mul(const Dim& a, const Dim& b) { return a * b; }
/// ONNX divides integers towards zero; the sizes of tensors are not negative.
Dim div(const Dim& a, const Dim& b) {
  if (a.is_const() && b.is_const()) return b.value() == 0 ? Dim() : Dim(b.value() == -1 ? -a.value() : a.value() / b.value());
  return Dim::floor_div(a, b);
}

// ---------------------------------------------------------------- lowering

/// Both operands; the second reshaped where the old rule aligns it otherwise than numpy does.
std::pair<Ex, Ex> operands(LowerContext& c) {
  if (c.opset() < 7) {
    c.ignore_attr("consumed_inputs");
    c.ignore_attr("broadcast");
    c.ignore_attr("axis");
    const Shape b = legacy_shape(c);
    if (b.has_rank() && c.rank(1) && b.rank() != *c.rank(1)) {
      const auto sizes = c.sizes(b);
      if (!sizes) c.unsupported("the second operand's shape is not known");
      return {c.in(0), aten("reshape", {c.in(1), list(*sizes)})};
    }
  }
  // One of both stays a tensor.
  if (c.is_scalar_constant(0) && c.is_scalar_constant(1)) return {c.in(0), c.operand(1)};
  const bool first_host = !c.is_constant(0) && c.lowered(0).host;
  if (first_host && (c.is_scalar_constant(1) || (!c.is_constant(1) && c.lowered(1).host))) return {c.in(0), c.operand(1)};
  // A Python number takes the tensor's dtype; a tensor of rank 0 that stands alone must keep its own.
  return {c.operand(0), c.operand(1)};
}

template <const char* const& Overload>
void lower_binary(LowerContext& c) {
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

void lower_div(LowerContext& c) {
  const auto [a, b] = operands(c);
  if (ir::is_integer(c.dtype(0))) return c.out(0, aten("div.Tensor_mode", {a, b}, {{"rounding_mode", "trunc"}}));
  c.out(0, aten("div.Tensor", {a, b}));
}

template <const char* const& Overload>
void lower_unary(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  c.out(0, aten(Overload, {c.in(0)}));
}

constexpr const char* kAbs = "abs";
constexpr const char* kNeg = "neg";
constexpr const char* kSqrt = "sqrt";
constexpr const char* kExp = "exp";
constexpr const char* kLog = "log";
constexpr const char* kErf = "erf";
constexpr const char* kNot = "logical_not";

constexpr OpDef kOps[] = {
    {.type = "Add", .changed_at = {1, 7}, .infer = infer_integers<add>, .lower = lower_binary<kAdd>},
    {.type = "Sub", .changed_at = {1, 7}, .infer = infer_integers<sub>, .lower = lower_binary<kSub>},
    {.type = "Mul", .changed_at = {1, 7}, .infer = infer_integers<mul>, .lower = lower_binary<kMul>},
    {.type = "Div", .changed_at = {1, 7}, .infer = infer_integers<div>, .lower = lower_div},
    {.type = "Equal", .changed_at = {1, 7}, .infer = infer_comparison, .lower = lower_binary<kEq>},
    {.type = "Less", .changed_at = {1, 7}, .infer = infer_comparison, .lower = lower_binary<kLt>},
    {.type = "LessOrEqual", .changed_at = {12}, .infer = infer_comparison, .lower = lower_binary<kLe>},
    {.type = "Greater", .changed_at = {1, 7}, .infer = infer_comparison, .lower = lower_binary<kGt>},
    {.type = "GreaterOrEqual", .changed_at = {12}, .infer = infer_comparison, .lower = lower_binary<kGe>},
    {.type = "Abs", .changed_at = {1}, .infer = infer_unary, .lower = lower_unary<kAbs>},
    {.type = "Neg", .changed_at = {1}, .infer = infer_unary, .lower = lower_unary<kNeg>},
    {.type = "Sqrt", .changed_at = {1}, .infer = infer_unary, .lower = lower_unary<kSqrt>},
    {.type = "Exp", .changed_at = {1}, .infer = infer_unary, .lower = lower_unary<kExp>},
    {.type = "Log", .changed_at = {1}, .infer = infer_unary, .lower = lower_unary<kLog>},
    {.type = "Erf", .changed_at = {9}, .infer = infer_unary, .lower = lower_unary<kErf>},
    {.type = "Not", .changed_at = {1}, .infer = infer_predicate, .lower = lower_unary<kNot>},
};

}  // namespace

std::span<const OpDef> elementwise_ops() { return kOps; }

}  // namespace onnx2nn::ops
