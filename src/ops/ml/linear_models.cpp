// Linear models and support vector machines of ai.onnx.ml.
// https://onnx.ai/onnx/operators/index.html#ai-onnx-ml
#include <algorithm>

#include "ops/lower.h"
#include "ops/ml/scores.h"
#include "ops/ml/trees.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

namespace {

// ---------------------------------------------------------------- linear models

void infer_linear_regressor(InferContext& c) {
  c.set(0, DType::Float32, Shape({batch_size(c), Dim(c.attr_int("targets", 1))}));
}

void lower_linear_regressor(LowerContext& c) {
  const std::int64_t targets = c.attr_int("targets", 1);
  const auto coefficients = floats(c, "coefficients");
  if (targets < 1 || coefficients.empty() ||
      coefficients.size() % static_cast<std::size_t>(targets) != 0)
    c.fail(std::to_string(coefficients.size()) + " coefficients do not make " +
           std::to_string(targets) + " rows");
  Args args{c.in(0), floats_buffer(c, "coefficients", coefficients)};
  if (const auto intercepts = floats(c, "intercepts"); !intercepts.empty())
    args.push_back(floats_buffer(c, "intercepts", intercepts));
  Kwargs kw;
  if (targets != 1) kw.emplace_back("targets", Ex(targets));
  add_post_transform(kw, post_transform(c));
  c.out(0, helper("linear_regressor", args, kw));
}

void infer_linear_classifier(InferContext& c) {
  const Labels labels(c, "classlabels_ints");
  // One row of coefficients for two labels gives two columns.
  set_classes(c, labels, labels.count >= 2 ? Dim(static_cast<std::int64_t>(labels.count)) : Dim());
}

void lower_linear_classifier(LowerContext& c) {
  c.ignore_attr("multi_class");
  const Labels labels(c, "classlabels_ints");
  const auto coefficients = floats(c, "coefficients");
  if (coefficients.empty()) c.fail("it has no coefficients");
  const auto intercepts = floats(c, "intercepts");
  Kwargs kw;
  add_post_transform(kw, post_transform(c));
  const Ex y = helper(
      "linear_classifier",
      {c.in(0), floats_buffer(c, "coefficients", coefficients),
       intercepts.empty() ? kNone : floats_buffer(c, "intercepts", intercepts), labels.lower(c)},
      kw);
  c.outs(y, 2);
}

// ---------------------------------------------------------------- support vectors

void add_kernel(LowerContext& c, Kwargs& kw) {
  const std::string kernel =
      checked_choice(c, "kernel_type", c.attr_string("kernel_type", "LINEAR"),
                     {"LINEAR", "POLY", "RBF", "SIGMOID"});
  const auto params = floats(c, "kernel_params");
  if (kernel != "LINEAR") kw.emplace_back("kernel_type", Ex(kernel));
  if (!params.empty() && kernel != "LINEAR") {
    if (params.size() != 3)
      c.fail("kernel_params has " + std::to_string(params.size()) + " numbers, not 3");
    kw.emplace_back("kernel_params", Ex(params));
  }
}

void infer_svm_regressor(InferContext& c) {
  c.set(0, DType::Float32, Shape({batch_size(c), Dim(1)}));
}

void lower_svm_regressor(LowerContext& c) {
  c.ignore_attr("post_transform");  // so does ONNX Runtime
  const std::int64_t supports = c.attr_int("n_supports", 0);
  const auto vectors = floats(c, "support_vectors");
  const auto rho = floats(c, "rho");
  if (rho.empty()) c.fail("rho is missing");
  Args args{c.in(0), floats_buffer(c, "coefficients", floats(c, "coefficients")),
            floats_buffer(c, "rho", rho)};
  Kwargs kw;
  if (supports > 0) {
    if (vectors.empty() || vectors.size() % static_cast<std::size_t>(supports) != 0)
      c.fail("support_vectors make no " + std::to_string(supports) + " rows");
    args.push_back(floats_buffer(c, "support_vectors", vectors));
    kw.emplace_back("n_supports", Ex(supports));
  }
  add_kernel(c, kw);
  if (const std::int64_t one_class = c.attr_int("one_class", 0); one_class != 0)
    kw.emplace_back("one_class", Ex(one_class));
  c.out(0, helper("svm_regressor", args, kw));
}

void infer_svm_classifier(InferContext& c) {
  const Labels labels(c, "classlabels_ints");
  c.set(0, labels.dtype(), Shape({batch_size(c)}));
  c.set(1, DType::Float32, Shape({batch_size(c), Dim()}));
}

void lower_svm_classifier(LowerContext& c) {
  const Labels labels(c, "classlabels_ints");
  const auto coefficients = floats(c, "coefficients");
  const auto rho = floats(c, "rho");
  const auto vectors = floats(c, "support_vectors");
  const Ints per_class = c.attr_ints("vectors_per_class").value_or(Ints{});
  const auto prob_a = floats(c, "prob_a");
  const auto prob_b = floats(c, "prob_b");
  if (labels.count == 0) c.fail("it has no class labels");
  if (rho.empty()) c.fail("rho is missing");
  Args args{c.in(0), floats_buffer(c, "coefficients", coefficients), floats_buffer(c, "rho", rho),
            labels.lower(c)};
  Kwargs kw;
  if (!per_class.empty() && !vectors.empty()) {
    const std::size_t pairs = labels.count * (labels.count - 1) / 2;
    if (per_class.size() != labels.count)
      c.fail("vectors_per_class has not one number for each class");
    if (std::any_of(per_class.begin(), per_class.end(), [](std::int64_t n) { return n < 0; }))
      c.fail("vectors_per_class holds a negative number");
    if (rho.size() < pairs) c.fail("rho has too few numbers");
    args.push_back(floats_buffer(c, "support_vectors", vectors));
    kw.emplace_back("vectors_per_class", Ex(per_class));
    if (!prob_a.empty()) {
      if (prob_a.size() < pairs || prob_b.size() < pairs)
        c.fail("prob_a or prob_b has too few numbers");
      kw.emplace_back("prob_a", floats_buffer(c, "prob_a", prob_a));
      kw.emplace_back("prob_b", floats_buffer(c, "prob_b", prob_b));
    }
  } else if (all_positive(coefficients)) {
    kw.emplace_back("all_positive", true);
  }
  add_kernel(c, kw);
  add_post_transform(kw, post_transform(c));
  c.outs(helper("svm_classifier", args, kw), 2);
}

constexpr OpDef kLinearModelsOps[] = {
    {.type = "LinearRegressor",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_linear_regressor,
     .lower = lower_linear_regressor},
    {.type = "LinearClassifier",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_linear_classifier,
     .lower = lower_linear_classifier},
    {.type = "SVMRegressor",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_svm_regressor,
     .lower = lower_svm_regressor},
    {.type = "SVMClassifier",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_svm_classifier,
     .lower = lower_svm_classifier},
};

}  // namespace

std::span<const OpDef> linear_model_ops() {
  return kLinearModelsOps;
}

}  // namespace onnx2nn::ops
