// Folding: what is known before the model runs becomes a constant.
#include <algorithm>

#include "eval/eval.h"
#include "ops/training.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

// Folding may not make the file much larger: a few bytes never become a large constant.
constexpr std::uint64_t kMaxGrowth = 64 * 1024;
// A float tensor of so few elements is a constant of a formula, not a weight.
constexpr std::int64_t kSmall = 64;
// Weights above this stay in their file.
constexpr std::uint64_t kMaxMoved = 16 * 1024 * 1024;

/// The model's weight among the inputs: what people train, as opposed to the constants of formulas.
const ir::Value* weight_of(const ir::Node& n) {
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const ir::Value* v = n.input(i);
    if (v != nullptr && v->is_initializer && v->constant && ir::is_float(v->constant->dtype()) &&
        v->constant->size() > kSmall)
      return v;
  }
  return nullptr;
}

std::uint64_t constant_bytes(const ir::Node& n) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < n.input_count(); ++i)
    if (n.input(i) != nullptr && n.input(i)->constant) sum += n.input(i)->constant->byte_size();
  return sum;
}

/// Conversion leaves weights as they are, unless the operator only moves or casts them.
bool may_fold(const Rewriter& w, const ir::Node& n) {
  if (w.options().change_weights) {
    // Quantised weights stay so: that is what makes the file small.
    static const std::set<std::string_view> kKept = {"DequantizeLinear", "QuantizeLinear",
                                                     "DequantizeBFP", "DequantizeWithOrder"};
    return kKept.count(n.op_type) == 0 && constant_bytes(n) <= kMaxMoved;
  }
  const ir::Value* weight = weight_of(n);
  if (weight == nullptr) return true;
  static const std::set<std::string_view> kMoves = {"Transpose", "Reshape",  "Squeeze", "Unsqueeze",
                                                    "Flatten",   "Identity", "Cast"};
  // A weight with other uses is a tied one: a copy of it would train by itself.
  if (!weight->has_one_use()) return false;
  return kMoves.count(n.op_type) != 0 && weight->constant->byte_size() <= kMaxMoved;
}

bool foldable(const ir::Node& n) {
  return n.op != nullptr && !ops::is_random(n);
}

// Shape(x: [2, 3]) -> y   =>   y = {2, 3}
bool fold_shapes(Rewriter& w, ir::Node& n) {
  if (!foldable(n)) return false;
  bool done = false;
  for (ir::Value* v : n.outputs()) {
    if (v == nullptr || !v->has_uses() || !v->contents || !v->type.is_tensor() ||
        !v->type.shape.has_rank())
      continue;
    const ir::DType dtype = v->type.dtype;
    if (dtype != ir::DType::Int64 && dtype != ir::DType::Int32) continue;
    const auto values = const_ints(v);
    if (!values || v->type.shape.rank() > 1 || (v->type.shape.rank() == 0 && values->size() != 1))
      continue;
    std::vector<std::int64_t> dims;
    if (v->type.shape.rank() == 1) dims.push_back(static_cast<std::int64_t>(values->size()));
    const auto tensor =
        dtype == ir::DType::Int64
            ? ir::Tensor::from<std::int64_t>(dtype, dims, *values)
            : ir::Tensor::from<std::int32_t>(dtype, dims, {values->begin(), values->end()});
    w.replace(v, w.constant(*n.graph(), v->name, tensor));
    done = true;
  }
  return done;
}

// Identity(x) -> y   =>   x for y
bool fold_identity(Rewriter& w, ir::Node& n) {
  if (!foldable(n) || n.op->fold == nullptr) return false;
  ops::FoldContext c(n);
  try {
    if (!n.op->fold(c)) return false;
  } catch (const Error&) {
    return false;  // lowering says what is wrong with it
  }
  bool done = false;
  for (std::size_t i = 0; i < c.results.size(); ++i) {
    ir::Value* v = n.output(i);
    ir::Value* with = c.results[i].value;
    if (v == nullptr || !v->has_uses() || with == nullptr || !compatible(v, with)) continue;
    w.replace(v, with);
    done = true;
  }
  return done;
}

// Add({1}, {2}) -> y   =>   y = {3}
bool fold_constants(Rewriter& w, ir::Node& n) {
  if (!foldable(n) || n.input_count() == 0) return false;
  for (std::size_t i = 0; i < n.input_count(); ++i)
    if (n.input(i) != nullptr && !n.input(i)->constant) return false;
  if (!may_fold(w, n)) return false;
  const std::uint64_t most =
      std::min(constant_bytes(n) + kMaxGrowth, w.options().max_constant);
  std::optional<std::vector<ir::TensorPtr>> computed;
  try {
    computed = eval::evaluate(n, most);
  } catch (const Error&) {
    return false;
  }
  if (!computed) return false;
  bool done = false;
  for (std::size_t i = 0; i < computed->size(); ++i) {
    const ir::TensorPtr& t = (*computed)[i];
    ir::Value* v = n.output(i);
    if (v == nullptr || !v->has_uses() || !t || t->byte_size() > most) continue;
    const ir::Value* weight = weight_of(n);
    w.replace(v, weight == nullptr ? w.constant(*n.graph(), v->name, t)
                                   : n.graph()->add_initializer(
                                         weight->has_one_use() ? weight->name : v->name, t, true));
    done = true;
  }
  return done;
}

}  // namespace

std::span<const Rule> fold_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fold-shapes",
       .what = "shape arithmetic that is known becomes a constant",
       .apply = fold_shapes,
       .in_conversion = true},
      {.name = "fold-identity",
       .what = "what passes its input on is passed over",
       .apply = fold_identity,
       .in_conversion = true},
      {.name = "fold-constants",
       .what = "operators of constants become constants",
       .apply = fold_constants,
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
