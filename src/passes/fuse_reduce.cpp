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

/// `op_type` of x in the place of `n`, over the axes of `sum`, whose node is of the form of opset
/// 18 or older.
ir::Node* reduce_like(Rewriter& w, ir::Node& n, std::string_view op_type, ir::Value* x,
                      const ir::Node& sum, const Ints& axes) {
  constexpr std::int64_t kAxesAreInput = 18;
  std::vector<ir::Value*> inputs = {x};
  const bool as_input = n.opset >= kAxesAreInput;
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
      {.name = "fuse-reduced-axes",
       .what = "axes that are reduced, and brought back or dropped next",
       .apply = fuse_reduced_axes,
       .ops = {"Squeeze", "Unsqueeze"},
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
