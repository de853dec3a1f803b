// Softmax and sums of squares in their arithmetic, and reductions whose axes come or go afterwards.
#include <algorithm>
#include <array>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// The single axis that is reduced and kept as one.
std::optional<std::int64_t> kept_axis(const ir::Node* n) {
  if (n == nullptr) return std::nullopt;
  const auto axes = kept_axes(*n);
  return axes && axes->size() == 1 ? std::optional(axes->front()) : std::nullopt;
}

bool are_last(const Ints& axes, std::size_t rank) {
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (axes[i] != static_cast<std::int64_t>(rank - axes.size() + i)) return false;
  return true;
}

/// x, where `v` is x less its maximum along `axis`.
ir::Value* less_maximum(const ir::Value* v, std::int64_t axis) {
  const ir::Node* sub = producer_of(v, "Sub");
  if (sub == nullptr || sub->input_count() != 2) return nullptr;
  const ir::Node* max = producer_of(sub->input(1), "ReduceMax");
  return kept_axis(max) == axis && max->input(0) == sub->input(0) ? sub->input(0) : nullptr;
}

/// `op_type`, Softmax or LogSoftmax, of x along `axis` for the output of `n`.
bool become_softmax(Rewriter& w, ir::Node& n, std::string_view op_type, ir::Value* x,
                    std::int64_t axis) {
  constexpr std::int64_t kOneAxis = 13;
  if (!is_fusible_type(w, x) || !same_type(x, n.output(0)))
    return w.miss(n, "the element type or the shape changes on the way");
  // ONNX Runtime moves any other axis to the end and back, which takes longer than the arithmetic.
  const bool last = axis == static_cast<std::int64_t>(x->type.shape.rank()) - 1;
  if (!last && !w.options().any_opset) return w.miss(n, "the axis is not the last one");
  // Before opset 13 all axes from the given one on were normalised together.
  if (!last && n.opset < kOneAxis && !w.options().any_opset) return false;
  ir::Value* const inputs[] = {x};
  ir::Node* made = w.add(op_type, inputs, *n.output(0), n);
  if (w.options().any_opset) made->opset = std::max(n.opset, kOneAxis);
  set_attr(*made, "axis", axis);
  w.replace(n.output(0), made->output(0));
  return true;
}

// e = Exp(Sub(x, ReduceMax(x))); Div(e, ReduceSum(e))   =>   Softmax(x)
bool fuse_softmax(Rewriter& w, ir::Node& n) {
  if (n.input_count() != 2 || n.output(0) == nullptr) return false;
  const ir::Node* sum = sole_producer(n.input(1), "ReduceSum");
  const ir::Node* exp = producer_of(n.input(0), "Exp");
  const auto axis = kept_axis(sum);
  if (!axis || exp == nullptr || sum->input(0) != n.input(0)) return false;
  ir::Value* x = less_maximum(exp->input(0), *axis);
  if (x == nullptr)
    return w.miss(n, "without the maximum taken off first, large numbers overflow");
  return become_softmax(w, n, "Softmax", x, *axis);
}

// d = Sub(x, ReduceMax(x)); Sub(d, Log(ReduceSum(Exp(d))))   =>   LogSoftmax(x)
bool fuse_log_softmax(Rewriter& w, ir::Node& n) {
  if (n.input_count() != 2 || n.output(0) == nullptr) return false;
  const ir::Node* log = sole_producer(n.input(1), "Log");
  const ir::Node* sum = log != nullptr ? sole_producer(log->input(0), "ReduceSum") : nullptr;
  const auto axis = kept_axis(sum);
  const ir::Node* exp = axis ? sole_producer(sum->input(0), "Exp") : nullptr;
  if (exp == nullptr || exp->input(0) != n.input(0)) return false;
  ir::Value* x = less_maximum(n.input(0), *axis);
  return x != nullptr && become_softmax(w, n, "LogSoftmax", x, *axis);
}

/// The opset from which `op_type` takes its axes as an input.
std::int64_t axes_are_input_since(std::string_view op_type) {
  constexpr std::int64_t kFirst = 13;
  constexpr std::int64_t kOthers = 18;
  return op_type == "ReduceSum" || op_type == "Squeeze" ? kFirst : kOthers;
}

/// `op_type` of x in the place of `n`, over `axes`, kept or not as `sum` does.
ir::Node* reduce_like(Rewriter& w, ir::Node& n, std::string_view op_type, ir::Value* x,
                      const ir::Node& sum, const Ints& axes) {
  std::vector<ir::Value*> inputs = {x};
  const bool as_input = n.opset >= axes_are_input_since(op_type);
  if (as_input) inputs.push_back(w.constant(*n.graph(), "axes", ir::Tensor::ints(axes)));
  ir::Node* made = w.add(op_type, inputs, *n.output(0), n);
  if (!as_input) set_attr(*made, "axes", axes);
  set_attr(*made, "keepdims", attr_int(sum, "keepdims", 1));
  w.replace(n.output(0), made->output(0));
  return made;
}

/// x, where `v` is its square for one user alone.
ir::Value* squared(const ir::Value* v) {
  if (v == nullptr || !v->has_one_use()) return nullptr;
  if (const auto p = before_number(v->producer(), "Pow")) return p->number == 2.0 ? p->x : nullptr;
  const ir::Node* mul = producer_of(v, "Mul");
  return mul != nullptr && mul->input(0) == mul->input(1) ? mul->input(0) : nullptr;
}

bool is_float32(const ir::Value* v) {
  return v != nullptr && v->type.is_tensor() && v->type.dtype == ir::DType::Float32;
}

// ReduceSum(Mul(x, x))   =>   ReduceSumSquare(x), over the last axes: runtimes are slower elsewhere
bool fuse_sum_square(Rewriter& w, ir::Node& n) {
  ir::Value* x = squared(n.input(0));
  if (x == nullptr || !is_float32(x) || !same_type(x, n.input(0))) return false;
  const auto axes = reduced_axes(n);
  if (!axes) return w.miss(n, "the axes are not known");
  if (!are_last(*axes, x->type.shape.rank())) return w.miss(n, "the axes are not the last ones");
  reduce_like(w, n, "ReduceSumSquare", x, n, *axes);
  return true;
}

// Sqrt(ReduceSumSquare(x))   =>   ReduceL2(x)
bool fuse_l2(Rewriter& w, ir::Node& n) {
  const ir::Node* sum = sole_producer(n.input(0), "ReduceSumSquare");
  if (sum == nullptr || !is_float32(sum->input(0))) return false;
  const auto axes = reduced_axes(*sum);
  if (!axes) return w.miss(n, "the axes are not known");
  reduce_like(w, n, "ReduceL2", sum->input(0), *sum, *axes);
  return true;
}

bool is_reduction(const ir::Node& n) {
  static constexpr std::array<std::string_view, 12> kReductions = {
      "ReduceSum", "ReduceMean",      "ReduceMax",    "ReduceMin",       "ReduceProd", "ReduceL1",
      "ReduceL2",  "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ArgMax",     "ArgMin"};
  return n.domain.empty() &&
         std::find(kReductions.begin(), kReductions.end(), n.op_type) != kReductions.end();
}

// Unsqueeze(ReduceSum(x) over axis 1 that goes) at axis 1   =>   ReduceSum(x) over axis 1 that
// stays; and the other way round with Squeeze
bool fuse_reduced_axes(Rewriter& w, ir::Node& n) {
  const ir::Value* reduced = n.input(0);
  if (reduced == nullptr || reduced->producer() == nullptr || !reduced->has_one_use() ||
      !is_reduction(*reduced->producer()))
    return false;
  const ir::Node& reduce = *reduced->producer();
  const std::int64_t keeps = attr_int(reduce, "keepdims", 1);
  if (keeps != (n.is("Squeeze") ? 1 : 0)) return false;
  std::optional<Ints> axes;
  if (reduce.is("ArgMax") || reduce.is("ArgMin"))
    axes = counted_axes(Ints{attr_int(reduce, "axis", 0)}, reduce.input(0));
  else
    axes = reduced_axes(reduce);
  auto changed = ints_of(n, "axes", 1);
  if (!axes || !changed) return w.miss(n, "the axes are not known");
  changed = counted_axes(std::move(*changed), reduce.input(0));
  if (changed != axes) return w.miss(n, "the axes are not those of {}", reduce.describe());
  std::vector<ir::Value*> inputs;
  for (std::size_t i = 0; i < reduce.input_count(); ++i) inputs.push_back(reduce.input(i));
  ir::Node* made = w.add(reduce.op_type, inputs, *n.output(0), n);
  made->opset = reduce.opset;
  for (const ir::Attribute& a : reduce.attributes) {
    if (const auto* i = std::get_if<std::int64_t>(&a.data)) set_attr(*made, a.name, *i);
    if (const auto* ints = std::get_if<Ints>(&a.data)) set_attr(*made, a.name, *ints);
  }
  set_attr(*made, "keepdims", 1 - keeps);
  w.replace(n.output(0), made->output(0));
  return true;
}

/// Where each axis of a reduction's output comes from in its input of `rank` dimensions.
Ints sources_of(std::size_t rank, const Ints& axes, bool keeps) {
  Ints out;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(rank); ++i)
    if (keeps || !std::binary_search(axes.begin(), axes.end(), i)) out.push_back(i);
  return out;
}

/// Reducing in two steps gives what one gives, but for the last digits of a sum of wide floats.
bool is_associative(const ir::Node& n, const ir::Value& x) {
  if (n.is("ReduceMax") || n.is("ReduceMin")) return true;
  const ir::DType t = x.type.dtype;
  const bool wide = t == ir::DType::Float32 || t == ir::DType::Float64;
  const bool whole = t == ir::DType::Int32 || t == ir::DType::Int64;
  // A mean of means of integers is cut twice.
  return wide || (whole && !n.is("ReduceMean"));
}

// ReduceMax(ReduceMax(x) over axis 3) over axis 2   =>   ReduceMax(x) over both; Min, Sum, Mean and
// Prod alike
bool collapse_reductions(Rewriter& w, ir::Node& n) {
  const ir::Node* first = sole_producer(n.input(0), n.op_type);
  if (first == nullptr || first->opset != n.opset || n.output(0) == nullptr) return false;
  ir::Value* x = first->input(0);
  auto axes = reduced_axes(*first);
  const auto second = reduced_axes(n);
  if (!axes || !second || x == nullptr || !x->type.is_tensor())
    return w.miss(n, "the axes are not known");
  const bool keeps = attr_int(n, "keepdims", 1) != 0;
  if (keeps != (attr_int(*first, "keepdims", 1) != 0))
    return w.miss(n, "one keeps its axes and the other does not");
  if (!is_associative(n, *x)) return w.miss(n, "two steps round otherwise than one");
  const Ints from = sources_of(x->type.shape.rank(), *axes, keeps);
  for (const std::int64_t a : *second) {
    if (a >= static_cast<std::int64_t>(from.size())) return false;
    axes->push_back(from[static_cast<std::size_t>(a)]);
  }
  std::sort(axes->begin(), axes->end());
  axes->erase(std::unique(axes->begin(), axes->end()), axes->end());
  reduce_like(w, n, n.op_type, x, n, *axes);
  return true;
}

// ReduceMax(Transpose(x) by (1, 0, 2)) over axis 1 that goes   =>   ReduceMax(x) over axis 0
bool reduce_transposed(Rewriter& w, ir::Node& n) {
  const ir::Node* transpose = sole_producer(n.input(0), "Transpose");
  if (transpose == nullptr || n.output(0) == nullptr || attr_int(n, "keepdims", 1) != 0)
    return false;
  const auto axes = reduced_axes(n);
  const auto perm = ints_of(*transpose, "perm", transpose->input_count());
  if (!axes || !perm || transpose->input(0) == nullptr)
    return w.miss(n, "the axes are not known");
  Ints moved;
  std::int64_t last = -1;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(perm->size()); ++i) {
    const std::int64_t from = (*perm)[static_cast<std::size_t>(i)];
    if (std::binary_search(axes->begin(), axes->end(), i)) {
      moved.push_back(from);
    } else if (from < last) {
      return w.miss(n, "the axes that stay change their order");
    } else {
      last = from;
    }
  }
  if (moved.size() != axes->size()) return false;
  std::sort(moved.begin(), moved.end());
  reduce_like(w, n, n.op_type, transpose->input(0), n, moved);
  return true;
}

// ReduceSum(x: [n, 1, 8]) over axis 1 that goes   =>   Squeeze(x) of axis 1
bool squeeze_reduced(Rewriter& w, ir::Node& n) {
  ir::Value* x = n.input(0);
  if (x == nullptr || n.output(0) == nullptr || attr_int(n, "keepdims", 1) != 0) return false;
  const auto axes = reduced_axes(n);
  if (!axes || !x->type.is_tensor() || !x->type.shape.has_rank()) return false;
  for (const std::int64_t a : *axes) {
    const ir::Dim& d = x->type.shape[static_cast<std::size_t>(a)];
    if (!d.is_const() || d.value() != 1) return false;
  }
  std::vector<ir::Value*> inputs = {x};
  const bool as_input = n.opset >= axes_are_input_since("Squeeze");
  if (as_input) inputs.push_back(w.constant(*n.graph(), "axes", ir::Tensor::ints(*axes)));
  ir::Node* made = w.add("Squeeze", inputs, *n.output(0), n);
  if (!as_input) set_attr(*made, "axes", *axes);
  w.replace(n.output(0), made->output(0));
  return true;
}


// Div(x, Clip(ReduceL2(x), 1e-12)), the latter expanded perhaps   =>   Normalize(x)
bool fuse_normalize(Rewriter& w, ir::Node& n) {
  ir::Value* x = n.input(0);
  const ir::Value* norm = n.input(1);
  if (const ir::Node* expand = sole_producer(norm, "Expand")) norm = expand->input(0);
  if (x == nullptr || !same_type(x, n.output(0)) || !ir::is_float(x->type.dtype)) return false;
  std::optional<double> epsilon;
  const ir::Node* clip = sole_producer(norm, "Clip");
  if (clip != nullptr) {
    constexpr std::int64_t kInputs = 11;
    if (clip->opset < kInputs || clip->input(2) != nullptr) return false;
    epsilon = splat(clip->input(1));
    norm = clip->input(0);
  } else if (const auto most = norm != nullptr && norm->has_one_use()
                                   ? with_number(norm->producer(), "Max")
                                   : std::nullopt) {
    epsilon = most->number;
    norm = most->x;
  }
  const ir::Node* l2 = sole_producer(norm, "ReduceL2");
  if (l2 == nullptr || l2->input(0) != x || !epsilon || !(*epsilon > 0.0)) return false;
  const auto axes = kept_axes(*l2);
  if (!axes || axes->size() != 1) return w.miss(n, "the norm is not along one axis");
  ir::Value* const inputs[] = {x};
  ir::Value* const like[] = {n.output(0)};
  ir::Node* made = w.add_torch("Normalize", inputs, like, n);
  const auto rank = static_cast<std::int64_t>(x->type.shape.rank());
  set_attr(*made, "axis", axes->front() == rank - 1 ? -1 : axes->front());
  set_attr(*made, "epsilon", *epsilon);
  w.replace(n.output(0), made->output(0));
  return true;
}

}  // namespace

std::span<const Rule> reduce_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-softmax",
       .what = "Softmax in its arithmetic, with the maximum taken off",
       .apply = fuse_softmax,
       .ops = {"Div"},
       .in_conversion = true},
      {.name = "fuse-log-softmax",
       .what = "LogSoftmax in its arithmetic, with the maximum taken off",
       .apply = fuse_log_softmax,
       .ops = {"Sub"},
       .in_conversion = true},
      {.name = "fuse-sum-square",
       .what = "sums of squares along the last axes",
       .apply = fuse_sum_square,
       .ops = {"ReduceSum"}},
      {.name = "fuse-l2",
       .what = "roots of sums of squares",
       .apply = fuse_l2,
       .ops = {"Sqrt"}},
      {.name = "fuse-normalize",
       .what = "a vector over its length, for torch",
       .apply = fuse_normalize,
       .ops = {"Div"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "fuse-reduced-axes",
       .what = "axes that are reduced, and brought back or dropped next",
       .apply = fuse_reduced_axes,
       .ops = {"Squeeze", "Unsqueeze"},
       .in_conversion = true},
      {.name = "collapse-reductions",
       .what = "a maximum of maxima, a sum of sums and the like",
       .apply = collapse_reductions,
       .ops = {"ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceProd"}},
      {.name = "reduce-transposed",
       .what = "transposes before a reduction after which the order is the same",
       .apply = reduce_transposed,
       .ops = {"ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceProd", "ReduceL1",
               "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}},
      {.name = "squeeze-reduced",
       .what = "reductions over axes of one, which go",
       .apply = squeeze_reduced,
       .ops = {"ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceProd"}},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
