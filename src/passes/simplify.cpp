#include "passes/passes.h"

#include "eval/eval.h"
#include "ops/context.h"

namespace onnx2nn::passes {
namespace {

// Folding may not make the file much larger: a few bytes never become a large constant.
constexpr std::uint64_t kMaxGrowth = 64 * 1024;
// A float tensor of so few elements is a constant of a formula, not a weight.
constexpr std::int64_t kSmall = 64;
// Weights above this stay in their file.
constexpr std::uint64_t kMaxMoved = 16 * 1024 * 1024;

struct Simplifier {
  const Options& options;
  Diagnostics& diagnostics;
  std::map<std::string, std::size_t>& rules;
  bool changed = false;

  void note(const char* rule) {
    ++rules[rule];
    changed = true;
  }

  void replace(ir::Node& n, std::size_t i, ir::Value* with) { n.output(i)->replace_all_uses(with); }

  /// The model's weight among the inputs: what people train, as opposed to the constants of formulas.
  static const ir::Value* weight_of(const ir::Node& n) {
    for (std::size_t i = 0; i < n.input_count(); ++i) {
      const ir::Value* v = n.input(i);
      if (v != nullptr && v->is_initializer && v->constant && ir::is_float(v->constant->dtype()) && v->constant->size() > kSmall) return v;
    }
    return nullptr;
  }

  /// Folding leaves weights as they are, unless the operator only moves or casts them.
  bool may_fold(const ir::Node& n) const {
    if (options.change_weights) return true;
    const ir::Value* weight = weight_of(n);
    if (weight == nullptr) return true;
    static const std::set<std::string_view> kMoves = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"};
    return kMoves.count(n.op_type) != 0 && weight->constant->bytes().size() <= kMaxMoved;
  }

  void fold(ir::Node& n) {
    if (n.op == nullptr || n.op->nondeterministic) return;
    ir::Graph& g = *n.graph();
    // Shape arithmetic whose result is known.
    for (ir::Value* v : n.outputs()) {
      if (v == nullptr || !v->has_uses() || !v->contents || !v->type.is_tensor() || v->type.dtype != ir::DType::Int64) continue;
      std::vector<std::int64_t> values;
      for (const ir::Dim& d : *v->contents)
        if (d.is_const()) values.push_back(d.value());
      if (values.size() != v->contents->size() || !v->type.shape.has_rank()) continue;
      const auto tensor = v->type.shape.rank() == 0 ? ir::Tensor::scalar(values.at(0)) : ir::Tensor::ints(values);
      v->replace_all_uses(g.add_initializer(v->name, tensor, false));
      note("fold-shapes");
    }
    ops::FoldContext c(n);
    try {
      const bool found = n.op->fold != nullptr && n.op->fold(c);
      if (!found) {
        if (!c.all_constant() || n.input_count() == 0 || !may_fold(n)) return;
        std::uint64_t bytes = kMaxGrowth;
        for (std::size_t i = 0; i < n.input_count(); ++i)
          if (n.input(i) != nullptr) bytes += n.input(i)->constant->bytes().size();
        const auto computed = eval::evaluate(n, bytes);
        if (!computed) return;
        for (std::size_t i = 0; i < computed->size(); ++i) c.set(i, (*computed)[i]);
      }
    } catch (const Error&) {
      return;  // what cannot be computed is left as it is; lowering says what is wrong with it
    }
    std::uint64_t in = 0;
    for (std::size_t i = 0; i < n.input_count(); ++i)
      if (n.input(i) != nullptr && n.input(i)->constant) in += n.input(i)->constant->bytes().size();
    for (std::size_t i = 0; i < c.results.size(); ++i) {
      ir::Value* v = n.output(i);
      if (v == nullptr || !v->has_uses()) continue;
      if (ir::Value* existing = c.results[i].value) {
        v->replace_all_uses(existing);
        note("fold-identity");
      } else if (c.results[i].tensor && c.results[i].tensor->bytes().size() <= in + kMaxGrowth) {
        const ir::Value* weight = weight_of(n);
        const bool trainable = weight != nullptr;
        v->replace_all_uses(g.add_initializer(trainable && weight->has_one_use() ? weight->name : v->name, c.results[i].tensor, trainable));
        note("fold-constants");
      }
    }
  }

  void remove_dead(ir::Graph& g) {
    for (ir::Node* n = g.last(); n != nullptr;) {
      ir::Node* prev = n->prev();
      bool used = false;
      for (const ir::Value* v : n->outputs()) used = used || (v != nullptr && v->has_uses());
      if (!used) {
        g.erase(n);
        note("remove-dead");
      } else {
        for (ir::Graph* inner : n->subgraphs()) remove_dead(*inner);
      }
      n = prev;
    }
  }

  void run(ir::Graph& g) {
    for (ir::Node* n = g.first(); n != nullptr; n = n->next()) {
      fold(*n);
      for (ir::Graph* inner : n->subgraphs()) run(*inner);
    }
  }
};

}  // namespace

void simplify(ir::Model& model, const Options& options, Diagnostics& diagnostics, std::map<std::string, std::size_t>& rules) {
  constexpr int kMaxRounds = 16;
  for (int round = 0; round < kMaxRounds; ++round) {
    Diagnostics found;
    ops::infer_graph(*model.graph, found);
    Simplifier s{options, diagnostics, rules};
    s.run(*model.graph);
    s.remove_dead(*model.graph);
    if (!s.changed) {
      diagnostics.append(found);
      return;
    }
  }
  ops::infer_graph(*model.graph, diagnostics);
}

}  // namespace onnx2nn::passes
