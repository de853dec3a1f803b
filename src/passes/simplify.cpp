#include "ops/context.h"
#include "passes/passes.h"

namespace onnx2nn::passes {
namespace {

// Folding may not make the file much larger: a few bytes never become a large constant.
constexpr std::int64_t kMaxGrowth = 64 * 1024;

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
    if (n.op->fold == nullptr) return;
    ops::FoldContext c(n);
    try {
      if (!n.op->fold(c)) return;
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
        v->replace_all_uses(g.add_initializer(v->name, c.results[i].tensor, false));
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
