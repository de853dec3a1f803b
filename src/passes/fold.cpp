// Folding: what is known before the model runs becomes a constant.
#include <algorithm>
#include <map>
#include <set>

#include "eval/eval.h"
#include "ops/onnx/training.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

// Whatever a model holds, so much may folding add to it beyond the nodes that go: shapes, and the
// tables of small formulas.
constexpr std::uint64_t kSmallGrowth = 1024;
// In a conversion, constants stand beside the source, which is easier to read without formulas.
constexpr std::uint64_t kGrowthInConversion = 1024 * 1024;
// A hundredth of a model's constants is what folding may add to a larger one.
constexpr std::uint64_t kShare = 100;
// Tags and lengths of a node in a file.
constexpr std::size_t kNode = 32;
// What lies between constants that are there and constants that are wanted may be larger, once.
constexpr std::uint64_t kMostBetween = 64 * 1024 * 1024;
// A float tensor of so few elements is a constant of a formula, unless its name says that it is a weight.
constexpr std::int64_t kSmall = 64;
// Weights above this stay in their file.
constexpr std::uint64_t kMaxMoved = 16 * 1024 * 1024;

/// The model's weight among the inputs: what people train, as opposed to the constants of formulas.
const ir::Value* weight_of(const Rewriter& w, const ir::Node& n) {
  // One number, written over part of a constant: an exporter's way of filling a slice.
  if (n.is("ScatterND") && n.input(2) != nullptr && n.input(2)->constant &&
      n.input(2)->constant->is_splat())
    return nullptr;
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const ir::Value* v = n.input(i);
    if (v == nullptr || !v->is_initializer || !v->constant || !ir::is_float(v->constant->dtype()))
      continue;
    if (v->constant->size() > kSmall || (!w.options().change_weights && w.is_authors_name(*v)))
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

/// A Transpose of a matrix for products alone, which nn.Linear is: what it holds is not turned.
bool is_turned_for_product(const ir::Node& n) {
  if (!n.is("Transpose") || n.output(0) == nullptr || n.input(0)->constant->rank() != 2) return false;
  const auto uses = n.output(0)->uses();
  return std::all_of(uses.begin(), uses.end(), [](const ir::Use* u) {
    return u->index == 1 && (u->user->is("MatMul") || u->user->is("Gemm"));
  });
}

/// Conversion leaves weights as they are, unless the operator only moves or casts them.
bool may_fold(const Rewriter& w, const ir::Node& n) {
  // Quantised weights stay so: that is what makes the file small.
  static const std::set<std::string_view> kKept = {"DequantizeLinear", "QuantizeLinear",
                                                   "DequantizeBFP", "DequantizeWithOrder"};
  if (kKept.count(n.op_type) != 0) return false;
  if (w.options().change_weights) return constant_bytes(n) <= kMaxMoved;
  const ir::Value* weight = weight_of(w, n);
  if (weight == nullptr) return true;
  static const std::set<std::string_view> kMoves = {"Transpose", "Reshape",  "Squeeze", "Unsqueeze",
                                                    "Flatten",   "Identity", "Cast"};
  // A weight with other uses is a tied one: a copy of it would train by itself.
  if (!weight->has_one_use() || is_turned_for_product(n)) return false;
  return kMoves.count(n.op_type) != 0 && weight->constant->byte_size() <= kMaxMoved;
}

/// Charges what was read and made; what only gives its input other dimensions does neither.
void charge(Budget& budget, const ir::Node& n, const std::vector<ir::TensorPtr>& computed) {
  std::uint64_t made = 0;
  for (const ir::TensorPtr& t : computed)
    if (t && !(n.input(0) != nullptr && n.input(0)->constant &&
               t->source().is_same_place(n.input(0)->constant->source())))
      made += t->byte_size();
  if (made == 0) return;
  budget.spend(Resource::Folded, made);
  budget.spend(Resource::Steps, constant_bytes(n) + made);
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

bool all_constant(const ir::Node& n) {
  for (std::size_t i = 0; i < n.input_count(); ++i)
    if (n.input(i) != nullptr && !n.input(i)->constant) return false;
  return n.input_count() > 0;
}

/// Whether the only one that uses `v` is `n`, or one of those that `is_known` knows.
template <typename Known>
bool is_used_by(const ir::Value& v, Known&& is_known) {
  for (const ir::Use* u = v.first_use(); u != nullptr; u = u->next)
    if (!is_known(u->user)) return false;
  return true;
}

/// Bytes that `n` itself takes in a file.
std::int64_t size_of(const ir::Node& n) {
  std::size_t sum = kNode + n.op_type.size() + n.name.size();
  for (std::size_t i = 0; i < n.input_count(); ++i)
    if (n.input(i) != nullptr) sum += n.input(i)->name.size();
  return static_cast<std::int64_t>(sum);
}

/// Bytes of `n` and of the constants that go with it, each counted once; not an input's default.
std::int64_t freed_with(const ir::Node& n) {
  std::set<const ir::Value*> seen;
  std::int64_t sum = size_of(n);
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const ir::Value* v = n.input(i);
    if (v == nullptr || !v->constant || !seen.insert(v).second) continue;
    if (is_used_by(*v, [&](const ir::Node* user) { return user == &n; }))
      sum += static_cast<std::int64_t>(v->constant->byte_size());
  }
  return sum;
}

/// A weight that is one number stays a number, and a shared one is not copied for another rank: each
/// run would have room for a few more of them.
bool is_copy(const Rewriter& w, const ir::Node& n) {
  return (n.is("ConstantOfShape") || n.is("Unsqueeze")) && w.options().change_weights;
}

void put_constant(Rewriter& w, ir::Value& v, const ir::Value* weight, const ir::TensorPtr& t) {
  ir::Graph& g = *v.producer()->graph();
  w.replace(&v, weight == nullptr
                    ? w.constant(g, v.name, t)
                    : g.add_initializer(weight->has_one_use() ? weight->name : v.name, t, true));
}

// Add({1}, {2}) -> y   =>   y = {3}
bool fold_constants(Rewriter& w, ir::Node& n) {
  if (!foldable(n) || !all_constant(n) || !may_fold(w, n)) return false;
  // What the model's constants may grow by is counted over all of its graphs.
  const std::int64_t most = (is_copy(w, n) ? 0 : w.room_to_grow()) + freed_with(n);
  Budget& budget = w.model().budget();
  if (constant_bytes(n) > budget.left(Resource::Steps)) return false;
  std::optional<std::vector<ir::TensorPtr>> computed;
  try {
    computed = eval::evaluate(
        n, std::min({static_cast<std::uint64_t>(std::max<std::int64_t>(most, 0)),
                     w.options().max_constant, budget.left(Resource::Folded)}));
  } catch (const Error&) {
    return false;
  }
  if (!computed) return false;
  charge(budget, n, *computed);
  std::int64_t added = 0;
  std::vector<std::pair<ir::Value*, ir::TensorPtr>> wanted;
  for (std::size_t i = 0; i < computed->size() && i < n.output_count(); ++i) {
    const ir::TensorPtr& t = (*computed)[i];
    ir::Value* v = n.output(i);
    if (v == nullptr || !v->has_uses() || !t) continue;
    if (t->byte_size() > w.options().max_constant) return false;
    added += static_cast<std::int64_t>(t->byte_size());
    wanted.emplace_back(v, t);
  }
  if (wanted.empty() || added > most) return false;
  w.grow(added - freed_with(n));
  const ir::Value* weight = weight_of(w, n);
  for (const auto& [v, t] : wanted) put_constant(w, *v, weight, t);
  return true;
}

/// Nodes of constants whose results are too large to be put down each by itself, but not where they
/// lead to: a mask of attention, by a comparison of every place with every other.
class Between {
 public:
  explicit Between(Rewriter& w) : w_(w) {}
  Between(const Between&) = delete;
  Between& operator=(const Between&) = delete;
  ~Between() {
    for (ir::Value* v : values_) v->constant = nullptr;
  }

  /// Computes all that constants say, in the order of the nodes.
  void compute(ir::Graph& g) {
    for (ir::Node* n = g.first(); n != nullptr; n = n->next()) {
      for (ir::Graph* inner : n->subgraphs()) compute(*inner);
      compute(*n);
    }
  }

  /// Puts down what others use, where that costs no more than is left; how many nodes it was.
  std::size_t put_down(std::size_t most) {
    std::size_t done = 0;
    for (const auto& [root, nodes] : groups()) {
      if (done == most) break;
      if (put_down(nodes)) ++done;
    }
    return done;
  }

 private:
  using Nodes = std::set<const ir::Node*>;

  void compute(ir::Node& n) {
    if (!foldable(n) || n.op_type == "Return" || !all_constant(n) || !may_fold(w_, n)) return;
    if (weight_of(w_, n) != nullptr) return;
    Budget& budget = w_.model().budget();
    if (constant_bytes(n) > budget.left(Resource::Steps)) return;
    std::optional<std::vector<ir::TensorPtr>> computed;
    try {
      computed = eval::evaluate(n, std::min({kMostBetween - bytes_, w_.options().max_constant,
                                             budget.left(Resource::Folded)}));
    } catch (const Error&) {
      return;
    }
    if (!computed) return;
    charge(budget, n, *computed);
    for (std::size_t i = 0; i < n.output_count(); ++i)
      if (n.output(i) != nullptr && n.output(i)->has_uses() &&
          (i >= computed->size() || !(*computed)[i]))
        return;
    for (std::size_t i = 0; i < n.output_count(); ++i) {
      ir::Value* v = n.output(i);
      if (v == nullptr || !v->has_uses()) continue;
      v->constant = (*computed)[i];
      values_.push_back(v);
      bytes_ = std::min(kMostBetween, bytes_ + v->constant->byte_size());
    }
    nodes_.push_back(&n);
  }

  /// The nodes that lead to each other, under the last of them.
  std::map<std::size_t, Nodes> groups() const {
    std::map<const ir::Node*, std::size_t> number;
    for (std::size_t i = 0; i < nodes_.size(); ++i) number.emplace(nodes_[i], i);
    std::vector<std::size_t> root(nodes_.size());
    for (std::size_t i = 0; i < root.size(); ++i) root[i] = i;
    const auto find = [&](std::size_t i) {
      while (root[i] != i) i = root[i] = root[root[i]];
      return i;
    };
    for (std::size_t i = 0; i < nodes_.size(); ++i)
      for (std::size_t k = 0; k < nodes_[i]->input_count(); ++k) {
        const ir::Value* v = nodes_[i]->input(k);
        const auto it = v != nullptr ? number.find(v->producer()) : number.end();
        if (it != number.end()) root[find(it->second)] = find(i);
      }
    std::map<std::size_t, Nodes> out;
    for (std::size_t i = 0; i < nodes_.size(); ++i) out[find(i)].insert(nodes_[i]);
    return out;
  }

  bool put_down(const Nodes& nodes) {
    const auto is_ours = [&](const ir::Node* n) { return nodes.count(n) != 0; };
    std::int64_t added = 0;
    std::set<const ir::Value*> freed;
    std::vector<ir::Value*> wanted;
    for (const ir::Node* n : nodes) {
      for (ir::Value* v : n->outputs()) {
        if (v == nullptr || !v->has_uses() || is_used_by(*v, is_ours)) continue;
        wanted.push_back(v);
        added += static_cast<std::int64_t>(v->constant->byte_size());
      }
      added -= size_of(*n);
      for (std::size_t i = 0; i < n->input_count(); ++i)
        if (const ir::Value* v = n->input(i); v != nullptr && !is_ours(v->producer()) &&
                                              v->constant && is_used_by(*v, is_ours))
          freed.insert(v);
    }
    for (const ir::Value* v : freed)
      added -= static_cast<std::int64_t>(v->constant->byte_size());
    const bool fills = std::all_of(nodes.begin(), nodes.end(),
                                   [&](const ir::Node* n) { return is_copy(w_, *n); });
    if (wanted.empty() || added > (fills ? 0 : w_.room_to_grow())) return false;
    w_.grow(added);
    std::sort(wanted.begin(), wanted.end(),
              [](const ir::Value* a, const ir::Value* b) { return a->name < b->name; });
    for (ir::Value* v : wanted) put_constant(w_, *v, nullptr, v->constant);
    return true;
  }

  Rewriter& w_;
  std::uint64_t bytes_ = 0;
  std::vector<ir::Node*> nodes_;
  std::vector<ir::Value*> values_;
};

}  // namespace

// Where({[[1, 0], ..]} == {0}, {-inf}, {0}) -> y   =>   y = {[[0, -inf], ..]}, however large the steps
std::size_t fold_ahead(Rewriter& w, ir::Graph& g, std::size_t most) {
  Between between(w);
  between.compute(g);
  return between.put_down(most);
}

std::uint64_t most_growth(const ir::Graph& g, bool in_conversion) {
  std::uint64_t sum = 0;
  const auto count = [&](const ir::Graph& graph) {
    for (const ir::Value* v : graph.initializers)
      if (v->constant && v->has_uses()) sum += v->constant->byte_size();
  };
  count(g);
  ir::for_each_node(g, [&](const ir::Node& n) {
    for (const ir::Graph* inner : n.subgraphs()) count(*inner);
  });
  return std::max(in_conversion ? kGrowthInConversion : kSmallGrowth, sum / kShare);
}

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
      {.name = kFoldConstants,
       .what = "operators of constants become constants",
       .apply = fold_constants,
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
