// Tree ensembles of ai.onnx.ml.
// https://onnx.ai/onnx/operators/index.html#ai-onnx-ml

#include "ops/lower.h"
#include "ops/ml/scores.h"
#include "ops/ml/trees.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

namespace {

Args tree_args(LowerContext& c, const Forest& f, Kwargs& kw) {
  if (f.mode) kw.emplace_back("mode", c.buffer("tree_mode", f.mode));
  if (f.missing) kw.emplace_back("missing", c.buffer("tree_missing", f.missing));
  if (f.members) {
    kw.emplace_back("members", c.buffer("tree_members", f.members));
    kw.emplace_back("member_row", c.buffer("tree_member_row", f.member_row));
  }
  kw.emplace_back("depth", Ex(f.depth));
  kw.emplace_back("modes", Ex(f.modes));
  return {c.in(0),
          c.buffer("tree_roots", f.roots),
          c.buffer("tree_feature", f.feature),
          c.buffer("tree_threshold", f.threshold),
          c.buffer("tree_child", f.child),
          c.buffer("leaf_target", f.target),
          c.buffer("leaf_weight", f.weight)};
}

void add_base_values(LowerContext& c, Kwargs& kw) {
  const auto base = floats_or_tensor(c, "base_values");
  if (base.empty()) return;
  kw.emplace_back(
      "base_values",
      c.buffer("base_values", float_tensor(dtype_of_floats(c, "base_values"),
                                           {static_cast<std::int64_t>(base.size())}, base)));
}

std::int64_t target_count(const NodeContext& c) {
  const std::int64_t n = c.attr_int("n_targets", 1);
  if (n < 1 || n > std::int64_t{1} << 24) c.fail("n_targets is " + std::to_string(n));
  return n;
}

void infer_tree_regressor(InferContext& c) {
  c.set(0, DType::Float32, Shape({batch_size(c), Dim(target_count(c))}));
}

void lower_tree_regressor(LowerContext& c) {
  const std::int64_t n = target_count(c);
  const Forest forest = pack_forest(c, "target", n);
  Kwargs kw;
  add_base_values(c, kw);
  const Args args = tree_args(c, forest, kw);
  kw.emplace_back("n_targets", Ex(n));
  const std::string aggregate =
      checked_choice(c, "aggregate_function", c.attr_string("aggregate_function", "SUM"),
                     {"SUM", "AVERAGE", "MIN", "MAX"});
  if (aggregate != "SUM") kw.emplace_back("aggregate_function", Ex(aggregate));
  add_post_transform(kw, post_transform(c));
  c.out(0, helper("tree_ensemble_regressor", args, kw));
}

void infer_tree_classifier(InferContext& c) {
  const Labels labels(c, "classlabels_int64s");
  set_classes(c, labels, Dim(static_cast<std::int64_t>(labels.count)));
}

void lower_tree_classifier(LowerContext& c) {
  const Labels labels(c, "classlabels_int64s");
  if (labels.count == 0) c.fail("it has no class labels");
  const Forest forest = pack_forest(c, "class", static_cast<std::int64_t>(labels.count));
  Kwargs kw;
  add_base_values(c, kw);
  Args args = tree_args(c, forest, kw);
  args.push_back(labels.lower(c));
  const std::set<std::int64_t> named(forest.targets.begin(), forest.targets.end());
  kw.emplace_back("binary", Ex(labels.count == 2 && named.size() == 1));
  kw.emplace_back("all_positive", Ex(all_positive(forest.weights)));
  add_post_transform(kw, post_transform(c));
  c.outs(helper("tree_ensemble_classifier", args, kw), 2);
}

void infer_tree_ensemble(InferContext& c) {
  c.set(0, ir::is_float(c.dtype(0)) ? c.dtype(0) : DType::Float32,
        Shape({batch_size(c), Dim(target_count(c))}));
}

void lower_tree_ensemble(LowerContext& c) {
  static constexpr const char* kAggregates[] = {"AVERAGE", "SUM", "MIN", "MAX"};
  // The specification has SOFTMAX before LOGISTIC; ONNX Runtime, whose answers count, does not.
  static constexpr const char* kTransforms[] = {"NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO",
                                                "PROBIT"};
  const std::int64_t aggregate = c.attr_int("aggregate_function", 1);
  const std::int64_t transform = c.attr_int("post_transform", 0);
  if (aggregate < 0 || aggregate > 3) c.fail("aggregate_function is " + std::to_string(aggregate));
  if (transform < 0 || transform > 4) c.fail("post_transform is " + std::to_string(transform));
  const std::int64_t n = target_count(c);
  Kwargs kw;
  const Args args = tree_args(c, pack_tree_ensemble(c, n), kw);
  kw.emplace_back("n_targets", Ex(n));
  if (aggregate != 1) kw.emplace_back("aggregate_function", Ex(kAggregates[aggregate]));
  add_post_transform(kw, kTransforms[transform]);
  c.out(0, helper("tree_ensemble", args, kw));
}

constexpr OpDef kTreeEnsemblesOps[] = {
    {.type = "TreeEnsemble",
     .domain = kMl,
     .changed_at = {5},
     .infer = infer_tree_ensemble,
     .lower = lower_tree_ensemble},
    {.type = "TreeEnsembleRegressor",
     .domain = kMl,
     .changed_at = {1, 3},
     .infer = infer_tree_regressor,
     .lower = lower_tree_regressor},
    {.type = "TreeEnsembleClassifier",
     .domain = kMl,
     .changed_at = {1, 3},
     .infer = infer_tree_classifier,
     .lower = lower_tree_classifier},
};

}  // namespace

std::span<const OpDef> tree_ensemble_ops() {
  return kTreeEnsemblesOps;
}

}  // namespace onnx2nn::ops
