// Reductions along axes, positions of extremes, the largest elements, running totals.
// https://onnx.ai/onnx/operators/onnx__ReduceSum.html and its neighbours.
// Axes are an attribute before opset 18 (ReduceSum: 13) and input 1 since then, when
// `noop_with_empty_axes` leaves a tensor without axes as it is; else no axes mean all of them.
#include <algorithm>
#include <optional>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- Reduce*

bool keeps_dims(const NodeContext& c) {
  return c.attr_int("keepdims", 1) != 0;
}

/// Whether axes are given that only the run knows.
bool has_unknown_axes(const NodeContext& c) {
  if (!c.has_ints("axes", 1) || c.ints("axes", 1)) return false;
  // An empty vector needs no contents.
  const Shape& s = c.shape(1);
  return !(s.has_rank() && s.rank() == 1 && s[0].is_const() && s[0].value() == 0);
}

/// The axes as given; empty where none are.
Ints given_axes(const NodeContext& c) {
  return c.ints("axes", 1).value_or(Ints{});
}

/// Nothing is reduced: each element is a reduction of itself.
bool reduces_nothing(const NodeContext& c) {
  const bool noop = c.attr_int("noop_with_empty_axes", 0) != 0;
  return noop && !has_unknown_axes(c) && given_axes(c).empty();
}

Shape reduced_shape(const NodeContext& c, const Ints& axes, bool keep) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return {};
  const std::vector<bool> along = c.axis_mask(axes, s.rank());
  Dims out;
  for (std::size_t i = 0; i < s.rank(); ++i) {
    const bool reduced = axes.empty() || along[i];
    if (!reduced) {
      out.push_back(s[i]);
    } else if (keep) {
      out.emplace_back(1);
    }
  }
  return Shape(std::move(out));
}

void infer_reduce(InferContext& c) {
  const bool keep = keeps_dims(c);
  if (reduces_nothing(c)) return c.set(0, c.dtype(0), c.shape(0));
  if (has_unknown_axes(c))
    return c.set(0, c.dtype(0), keep && c.rank(0) ? Shape::unknown_dims(*c.rank(0)) : Shape());
  const Ints axes = given_axes(c);
  if (axes.empty() && !c.rank(0) && !keep) return c.set(0, c.dtype(0), Shape::of({}));
  c.set(0, c.dtype(0), reduced_shape(c, axes, keep));
}

Dim add(const Dim& a, const Dim& b) {
  return a + b;
}
Dim mul(const Dim& a, const Dim& b) {
  return a * b;
}

/// Contents of a reduction of sizes to one number.
template <Dim (*Combine)(const Dim&, const Dim&)>
void infer_reduce_sizes(InferContext& c) {
  infer_reduce(c);
  const auto v = c.contents(0);
  if (!v || v->empty() || c.rank(0) != 1U || !ir::is_integer(c.dtype(0)) || has_unknown_axes(c))
    return;
  if (reduces_nothing(c)) return c.set_contents(0, *v);
  Dim all = v->front();
  for (std::size_t i = 1; i < v->size(); ++i) all = Combine(all, (*v)[i]);
  c.set_contents(0, {all});
}

enum class Kind { Sum, Mean, Prod, Max, Min, L1, L2, LogSum, LogSumExp, SumSquare };

const char* kind_name(Kind k) {
  switch (k) {
    case Kind::Sum:
      return "sum";
    case Kind::Mean:
      return "mean";
    case Kind::Prod:
      return "prod";
    case Kind::Max:
      return "max";
    case Kind::Min:
      return "min";
    case Kind::L1:
      return "l1";
    case Kind::L2:
      return "l2";
    case Kind::LogSum:
      return "log_sum";
    case Kind::LogSumExp:
      return "log_sum_exp";
    default:
      return "sum_square";
  }
}

/// The reduction of a single element.
Ex of_one(LowerContext& c, Kind k) {
  const Ex x = c.in(0);
  const DType t = c.dtype(0);
  const Ex y = computable(t, x);
  switch (k) {
    case Kind::L1:
    case Kind::L2:
      return ir::is_unsigned(t) ? x : aten("abs", {x});
    case Kind::SumSquare:
      return computed(t, aten("square", {y}));
    case Kind::LogSum: {
      const Ex log = aten("log", {y});
      return ir::is_float(t) ? log : aten("to.dtype", {log, Ex(t)});
    }
    default:
      return x;
  }
}

/// Whether an extreme might be taken of nothing, which torch refuses: the sizes that a model's
/// values decide, such as the number of boxes found, come from a node and not from an input.
bool may_be_empty(LowerContext& c) {
  const Shape& s = c.shape(0);
  return s.has_rank() && std::any_of(s.dims().begin(), s.dims().end(), [&](const Dim& d) {
           return d.is_const() ? d.value() == 0 : c.is_counted(d);
         });
}

/// torch's own call: `x.mean(dim=(2, 3), keepdim=True)`.
Ex reduce_natively(LowerContext& c, Kind k, const Ints& axes, bool keep) {
  Ex x = c.in(0);
  const DType t = c.dtype(0);
  // torch adds up small integers in int64.
  Kwargs dtype;
  if (ir::is_integer(t) && t != DType::Int64) dtype.emplace_back("dtype", Ex(t));
  const bool all = axes.empty() && !keep;
  // No axes, but kept dimensions: torch's empty list means all of them.
  Ex dims = Ex(axes);
  if (axes.empty() && c.rank(0)) {
    Ints every(*c.rank(0));
    for (std::size_t i = 0; i < every.size(); ++i) every[i] = static_cast<std::int64_t>(i);
    dims = Ex(every);
  }
  const auto call = [&](const char* whole, const char* along, const Ex& v, const Kwargs& kw) {
    return all ? aten(whole, {v}, kw) : aten(along, {v, dims, keep}, kw);
  };
  switch (k) {
    case Kind::Sum:
      return call("sum", "sum.dim_IntList", x, dtype);
    case Kind::Mean:
      return call("mean", "mean.dim", x, {});
    case Kind::L1:
      return call("sum", "sum.dim_IntList", aten("abs", {x}), dtype);
    case Kind::SumSquare:
      return call("sum", "sum.dim_IntList", aten("square", {x}), dtype);
    case Kind::LogSum:
      return aten("log", {call("sum", "sum.dim_IntList", x, {})});
    case Kind::Max:
      return call("amax", "amax", x, {});
    case Kind::Min:
      return call("amin", "amin", x, {});
    case Kind::LogSumExp:
      return aten("logsumexp", {x, dims, keep});
    case Kind::L2:
      return all ? aten("linalg_vector_norm", {x}) : aten("linalg_vector_norm", {x, 2, dims, keep});
    case Kind::Prod:
      break;
  }
  if (all) return aten("prod", {x}, dtype);
  // One axis a call, the last first so that the others keep their number.
  Ints order;
  for (const auto& a : dims->args) order.push_back(a->integer);
  std::sort(order.rbegin(), order.rend());
  for (const std::int64_t a : order) x = aten("prod.dim_int", {x, a, keep}, dtype);
  return x;
}

template <Kind K>
void lower_reduce(LowerContext& c) {
  const bool keep = keeps_dims(c);
  c.ignore_attr("noop_with_empty_axes");
  if (reduces_nothing(c)) return c.out(0, of_one(c, K));
  const DType t = c.dtype(0);
  const Kwargs kw{{"keepdims", Ex(keep ? 1 : 0)}};
  if (has_unknown_axes(c)) {
    Kwargs noop = kw;
    if (c.attr_int("noop_with_empty_axes", 0) != 0 &&
        !(c.shape(1).has_rank() && c.shape(1).rank() == 1 && c.shape(1)[0].is_const()))
      noop.emplace_back("noop_with_empty_axes", 1);
    return c.out(0, helper("reduce_values", {c.in(0), kind_name(K), c.int_list(1)}, noop));
  }
  const auto rank = c.rank(0);
  Ints axes = given_axes(c);
  if (rank) axes = c.axes(axes, *rank);
  std::sort(axes.begin(), axes.end());
  axes.erase(std::unique(axes.begin(), axes.end()), axes.end());
  // All axes, none kept: the short form says so.
  if (rank && axes.size() == *rank && !keep) axes.clear();
  const bool extreme = K == Kind::Max || K == Kind::Min;
  const bool from_float =
      K == Kind::Mean || K == Kind::L2 || K == Kind::LogSum || K == Kind::LogSumExp;
  const bool negative_prod =
      K == Kind::Prod && (!rank && (axes.empty() || axes.front() < 0) && (keep || !axes.empty()));
  const bool whole = !ir::is_float(t);
  // torch's logsumexp takes no empty list for all axes.
  const bool nameless = K == Kind::LogSumExp && !rank && axes.empty();
  if (lacks_arithmetic(t) || nameless || (whole && from_float) || (extreme && may_be_empty(c)) || negative_prod)
    return c.out(0, helper("reduce_values", {c.in(0), kind_name(K), Ex(axes)}, kw));
  c.out(0, reduce_natively(c, K, axes, keep));
}

// ---------------------------------------------------------------- ArgMax, ArgMin

void infer_arg(InferContext& c) {
  const Ints axes{c.attr_int("axis", 0)};
  if (c.rank(0) == 0U) return c.set(0, DType::Int64, Shape::of({}));
  c.set(0, DType::Int64, reduced_shape(c, axes, keeps_dims(c)));
}

template <bool Max>
void lower_arg(LowerContext& c) {
  const bool keep = keeps_dims(c);
  std::int64_t axis = c.attr_int("axis", 0);
  if (c.rank(0) && *c.rank(0) > 0) axis = c.axis(axis, *c.rank(0));
  const DType t = c.dtype(0);
  if (c.attr_int("select_last_index", 0) != 0)
    return c.out(
        0,
        helper(Max ? "arg_max" : "arg_min", {c.in(0)},
               {{"axis", Ex(axis)}, {"keepdims", Ex(keep ? 1 : 0)}, {"select_last_index", Ex(1)}}));
  c.out(0, aten(Max ? "argmax" : "argmin", {comparable(t, c.in(0)), axis, keep}));
}

// ---------------------------------------------------------------- TopK
// `k` is an attribute in opset 1 and input 1 since 10; `largest` and `sorted` came with 11.

void infer_topk(InferContext& c) {
  Shape s = c.shape(0);
  if (s.has_rank()) {
    Dim k;
    if (c.opset() < 10) {
      k = Dim(c.attr_int("k"));
    } else if (const auto v = c.contents(1); v && v->size() == 1) {
      k = v->front();
    }
    s.dims()[static_cast<std::size_t>(c.axis(c.attr_int("axis", -1), s.rank()))] = k;
  }
  c.set(0, c.dtype(0), s);
  c.set(1, DType::Int64, s);
}

void lower_topk(LowerContext& c) {
  const Ex k = c.opset() < 10 ? Ex(c.attr_int("k")) : c.int_scalar(1);
  std::int64_t axis = c.attr_int("axis", -1);
  if (c.rank(0)) axis = c.axis(axis, *c.rank(0));
  const bool largest = c.attr_int("largest", 1) != 0;
  c.ignore_attr("sorted");  // sorted is one of the orders that unsorted allows
  const ir::Value* indices = c.node().output_count() > 1 ? c.node().output(1) : nullptr;
  if ((indices == nullptr || !indices->has_uses()) && !lacks_arithmetic(c.dtype(0)))
    return c.outs(aten("topk", {c.in(0), k, axis, largest}), 2);
  // Among equal values ONNX promises the lowest index first, and torch.topk promises nothing.
  Kwargs kw{{"axis", Ex(axis)}};
  if (!largest) kw.emplace_back("largest", Ex(0));
  c.outs(helper("top_k", {c.in(0), k}, kw), 2);
}

// ---------------------------------------------------------------- CumSum, CumProd

void infer_cumulative(InferContext& c) {
  c.set(0, c.dtype(0), c.shape(0));
}

template <bool Sum>
void lower_cumulative(LowerContext& c) {
  const bool exclusive = c.attr_int("exclusive", 0) != 0;
  const bool reverse = c.attr_int("reverse", 0) != 0;
  const DType t = c.dtype(0);
  Ex axis = c.int_scalar(1);
  if (axis.is_int() && c.rank(0) && *c.rank(0) > 0) axis = Ex(c.axis(axis->integer, *c.rank(0)));
  if (exclusive || reverse || lacks_arithmetic(t)) {
    Kwargs kw;
    if (exclusive) kw.emplace_back("exclusive", Ex(1));
    if (reverse) kw.emplace_back("reverse", Ex(1));
    return c.out(0, helper(Sum ? "cum_sum" : "cum_prod", {c.in(0), axis}, kw));
  }
  Kwargs kw;
  if (ir::is_integer(t) && t != DType::Int64) kw.emplace_back("dtype", Ex(t));
  c.out(0, aten(Sum ? "cumsum" : "cumprod", {c.in(0), axis}, kw));
}

constexpr OpDef kReduceOps[] = {
    {.type = "ReduceSum",
     .changed_at = {1, 11, 13},
     .infer = infer_reduce_sizes<add>,
     .lower = lower_reduce<Kind::Sum>},
    {.type = "ReduceMean",
     .changed_at = {1, 11, 18},
     .infer = infer_reduce,
     .lower = lower_reduce<Kind::Mean>},
    {.type = "ReduceProd",
     .changed_at = {1, 11, 18},
     .infer = infer_reduce_sizes<mul>,
     .lower = lower_reduce<Kind::Prod>},
    {.type = "ReduceMax",
     .changed_at = {1, 11, 18, 20},
     .infer = infer_reduce_sizes<Dim::max>,
     .lower = lower_reduce<Kind::Max>},
    {.type = "ReduceMin",
     .changed_at = {1, 11, 18, 20},
     .infer = infer_reduce_sizes<Dim::min>,
     .lower = lower_reduce<Kind::Min>},
    {.type = "ReduceL1",
     .changed_at = {1, 11, 18},
     .infer = infer_reduce,
     .lower = lower_reduce<Kind::L1>},
    {.type = "ReduceL2",
     .changed_at = {1, 11, 18},
     .infer = infer_reduce,
     .lower = lower_reduce<Kind::L2>},
    {.type = "ReduceLogSum",
     .changed_at = {1, 11, 18},
     .infer = infer_reduce,
     .lower = lower_reduce<Kind::LogSum>},
    {.type = "ReduceLogSumExp",
     .changed_at = {1, 11, 18},
     .infer = infer_reduce,
     .lower = lower_reduce<Kind::LogSumExp>},
    {.type = "ReduceSumSquare",
     .changed_at = {1, 11, 18},
     .infer = infer_reduce,
     .lower = lower_reduce<Kind::SumSquare>},
    {.type = "ArgMax", .changed_at = {1, 11, 12}, .infer = infer_arg, .lower = lower_arg<true>},
    {.type = "ArgMin", .changed_at = {1, 11, 12}, .infer = infer_arg, .lower = lower_arg<false>},
    {.type = "TopK", .changed_at = {1, 10, 11}, .infer = infer_topk, .lower = lower_topk},
    {.type = "CumSum",
     .changed_at = {11},
     .infer = infer_cumulative,
     .lower = lower_cumulative<true>},
    {.type = "CumProd",
     .changed_at = {26},
     .infer = infer_cumulative,
     .lower = lower_cumulative<false>},
};

}  // namespace

std::span<const OpDef> reduce_ops() {
  return kReduceOps;
}

}  // namespace onnx2nn::ops
