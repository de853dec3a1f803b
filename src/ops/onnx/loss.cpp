// Losses, and ai.onnx.preview.training: gradients and the optimisers' steps.
// https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html and its neighbours.
#include "ops/lower.h"
#include "ops/onnx/pass_on.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- losses

void infer_loss(InferContext& c) {
  const bool reduced = c.attr_string("reduction", "mean") != "none";
  c.set(0, c.dtype(0), reduced ? Shape(Dims{}) : c.shape(1));
  c.set(1, c.dtype(0), c.shape(0));
}

Kwargs loss_options(LowerContext& c) {
  Kwargs kw;
  if (c.has_attr("ignore_index")) kw.emplace_back("ignore_index", Ex(c.attr_int("ignore_index")));
  const std::string reduction = c.attr_string("reduction", "mean");
  if (reduction != "none" && reduction != "sum" && reduction != "mean")
    c.fail("the reduction \"" + reduction + "\" is none, sum nor mean");
  if (reduction != "mean") kw.emplace_back("reduction", Ex(reduction));
  return kw;
}

Args loss_inputs(LowerContext& c) {
  Args args{c.in(0), c.in(1)};
  if (c.has_input(2)) args.push_back(c.in(2));
  return args;
}

/// torch's own losses take int64 labels only.
bool native_labels(const LowerContext& c) {
  return c.dtype(1) == DType::Int64;
}

Kwargs native_options(LowerContext& c) {
  Kwargs kw;
  if (c.has_input(2)) kw.emplace_back("weight", c.in(2));
  for (auto& option : loss_options(c)) kw.push_back(std::move(option));
  return kw;
}

void lower_nll_loss(LowerContext& c) {
  if (native_labels(c)) return c.out(0, aten("nll_loss_nd", {c.in(0), c.in(1)}, native_options(c)));
  c.out(0, helper("negative_log_likelihood_loss", loss_inputs(c), loss_options(c)));
}

void lower_cross_entropy(LowerContext& c) {
  const bool log_prob = c.has_output(1) && c.node().output(1)->has_uses();
  if (log_prob)
    return c.outs(helper("softmax_cross_entropy_loss", loss_inputs(c), loss_options(c)));
  if (native_labels(c))
    return c.out(0, aten("cross_entropy_loss", {c.in(0), c.in(1)}, native_options(c)));
  c.out(0, op("[]", {helper("softmax_cross_entropy_loss", loss_inputs(c), loss_options(c)), 0}));
}

// ---------------------------------------------------------------- Gradient
// The reader turns the names in its attributes into the graph "function", of xs and then zs.

std::size_t differentiated_count(const NodeContext& c) {
  const ir::Graph& function = *c.attr_graph("function");
  const std::size_t n = c.attr_strings("xs").value_or(std::vector<std::string>{}).size();
  if (c.input_count() != function.inputs.size() || c.output_count() > n)
    c.fail("it has " + std::to_string(c.input_count()) + " inputs and " +
           std::to_string(c.output_count()) + " outputs for " +
           std::to_string(function.inputs.size()) + " names, " + std::to_string(n) +
           " of them differentiated");
  return n;
}

void infer_gradient(InferContext& c) {
  differentiated_count(c);
  ir::Graph& function = *c.attr_graph("function");
  for (std::size_t i = 0; i < c.input_count(); ++i) function.inputs[i]->type = c.type(i);
  c.infer_graph(function);
  for (std::size_t i = 0; i < c.output_count(); ++i) c.set(i, c.type(i));
}

void lower_gradient(LowerContext& c) {
  c.ignore_attr("y");
  c.ignore_attr("zs");
  const std::size_t n = differentiated_count(c);
  const Ex function = nested_function(c, "function");
  Args xs;
  Args zs;
  for (std::size_t i = 0; i < c.input_count(); ++i) (i < n ? xs : zs).push_back(c.in(i));
  Args args{function, list(xs)};
  if (!zs.empty()) args.push_back(list(zs));
  outs_of(c, helper("gradient", args), n);
}

// ---------------------------------------------------------------- optimisers
// After the rate and the count come groups: all parameters, all gradients, then the states.

void infer_step(InferContext& c, std::size_t groups) {
  if (c.input_count() < 2 || (c.input_count() - 2) % groups != 0)
    c.fail("its inputs make no full groups");
  const std::size_t n = (c.input_count() - 2) / groups;
  // Outputs: the parameters, then the states; gradients are not given back.
  for (std::size_t i = 0; i < n * (groups - 1); ++i) c.set(i, c.type(2 + (i < n ? i : i + n)));
}

template <std::size_t Groups>
void infer_step(InferContext& c) {
  infer_step(c, Groups);
}

void lower_step(LowerContext& c, const char* function, Kwargs keywords) {
  Args args;
  for (std::size_t i = 0; i < c.input_count(); ++i) args.push_back(c.in(i));
  c.outs(helper(function, args, keywords));
}

void lower_adagrad(LowerContext& c) {
  lower_step(c, "adagrad",
             {{"norm_coefficient", Ex(c.attr_float("norm_coefficient", 0))},
              {"epsilon", Ex(c.attr_float("epsilon", 0))},
              {"decay_factor", Ex(c.attr_float("decay_factor", 0))}});
}

void lower_adam(LowerContext& c) {
  lower_step(c, "adam",
             {{"alpha", Ex(c.attr_float("alpha", 0.9F))},
              {"beta", Ex(c.attr_float("beta", 0.999F))},
              {"epsilon", Ex(c.attr_float("epsilon", 0))},
              {"norm_coefficient", Ex(c.attr_float("norm_coefficient", 0))},
              {"norm_coefficient_post", Ex(c.attr_float("norm_coefficient_post", 0))}});
}

void lower_momentum(LowerContext& c) {
  lower_step(c, "momentum_step",
             {{"alpha", Ex(c.attr_float("alpha", 0))},
              {"beta", Ex(c.attr_float("beta", 0))},
              {"mode", Ex(c.attr_string("mode", "standard"))},
              {"norm_coefficient", Ex(c.attr_float("norm_coefficient", 0))}});
}

constexpr std::string_view kTraining = "ai.onnx.preview.training";

constexpr OpDef kLossOps[] = {
    {.type = "NegativeLogLikelihoodLoss",
     .changed_at = {12, 13},
     .infer = infer_loss,
     .lower = lower_nll_loss},
    {.type = "SoftmaxCrossEntropyLoss",
     .changed_at = {12, 13},
     .infer = infer_loss,
     .lower = lower_cross_entropy},
    {.type = "Gradient",
     .domain = kTraining,
     .changed_at = {1},
     .infer = infer_gradient,
     .lower = lower_gradient},
    {.type = "Adagrad",
     .domain = kTraining,
     .changed_at = {1},
     .infer = infer_step<3>,
     .lower = lower_adagrad},
    {.type = "Adam",
     .domain = kTraining,
     .changed_at = {1},
     .infer = infer_step<4>,
     .lower = lower_adam},
    {.type = "Momentum",
     .domain = kTraining,
     .changed_at = {1},
     .infer = infer_step<3>,
     .lower = lower_momentum},
};

}  // namespace

std::span<const OpDef> loss_ops() {
  return kLossOps;
}

}  // namespace onnx2nn::ops
