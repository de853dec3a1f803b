#include "ops/context.h"

#include <algorithm>

#include "ops/walk.h"
#include "support/interrupt.h"

namespace onnx2nn::ops {
namespace {

// Fresh symbols begin with a character that no identifier has, so that they meet none of the
// model's.
constexpr char kFreshMark = '%';

/// One more than the number of the newest fresh symbol in `dim`; 0 where there is none.
std::uint64_t newest_symbol(const Dim& dim) {
  std::uint64_t newest = 0;
  const auto visit = [&](const auto& self, const Dim& d) -> void {
    if (!d.known() || d.is_const()) return;
    for (const auto& term : d.terms()) {
      for (const auto& factor : term.factors) {
        for (const Dim& arg : factor->args) self(self, arg);
        if (factor->kind != ir::Atom::Kind::Symbol || factor->key.empty() ||
            factor->key[0] != kFreshMark)
          continue;
        std::uint64_t number = 0;
        for (const char digit : std::string_view(factor->key).substr(1))
          number = number * 10 + static_cast<std::uint64_t>(digit - '0');
        newest = std::max(newest, number + 1);
      }
    }
  };
  visit(visit, dim);
  return newest;
}

}  // namespace

struct Inference {
  Diagnostics& diagnostics;
  std::uint64_t next_symbol = 0;
  bool in_a_hurry = false;  // too much has been inferred several times
  Visit visit = {};

  Dim fresh() { return Dim::symbol(kFreshMark + std::to_string(next_symbol++)); }

  void name_unknown_dims(ir::Value* v) {
    if (!v->type.is_tensor() || !v->type.shape.has_rank()) return;
    for (Dim& d : v->type.shape.dims())
      if (!d.known()) d = fresh();
  }

  void run(ir::Graph& graph) {
    Budget& budget = graph.model()->budget();
    for (ir::Value* v : graph.inputs) name_unknown_dims(v);
    for (ir::Node* n = graph.first(); n != nullptr; n = n->next()) {
      check_interrupt();
      if (visit) n = visit(*n);
      for (ir::Value* v : n->outputs()) {
        if (v == nullptr) continue;
        v->contents.reset();
        // What an earlier run said in fresh symbols is said anew.
        for (Dim& d : v->type.shape.dims())
          if (!d.is_const()) d = Dim::unknown();
      }
      n->unsound = false;
      if (!budget.take(Resource::Inferences, 1)) in_a_hurry = true;
      if (n->op != nullptr && n->op->infer != nullptr) {
        InferContext c(*n, *this);
        try {
          n->op->infer(c);
        } catch (const Error& e) {
          n->unsound = true;
          diagnostics.add(diagnose(*n, e));
        }
      } else {
        for (ir::Graph* g : n->subgraphs()) run(*g);
      }
      for (ir::Value* v : n->outputs()) {
        if (v == nullptr) continue;
        keep(*v, budget);
        name_unknown_dims(v);
      }
    }
  }

  /// Sizes that there is no room for become unknown.
  static void keep(ir::Value& v, Budget& budget) {
    const auto weight = [](const Dims& dims) {
      std::size_t sum = 0;
      for (const Dim& d : dims) sum += d.weight();
      return sum;
    };
    if (v.contents && !budget.take(Resource::Expressions, weight(*v.contents))) v.contents.reset();
    Dims& dims = v.type.shape.dims();
    if (budget.take(Resource::Expressions, weight(dims))) return;
    for (Dim& d : dims)
      if (!d.is_const()) d = Dim::unknown();
  }
};

void InferContext::infer_graph(ir::Graph& graph, Diagnostics* found) {
  if (found == nullptr) return inference_.run(graph);
  Inference trial{*found, inference_.next_symbol, inference_.in_a_hurry, inference_.visit};
  trial.run(graph);
  inference_.next_symbol = trial.next_symbol;
  inference_.in_a_hurry = trial.in_a_hurry;
}

bool InferContext::in_a_hurry() const {
  return inference_.in_a_hurry;
}

Dim InferContext::fresh_symbol() {
  return inference_.fresh();
}

std::uint64_t InferContext::mark() const {
  return inference_.next_symbol;
}

Type InferContext::without_symbols_since(std::uint64_t mark, Type type) const {
  if (type.element)
    type.element = std::make_shared<const Type>(without_symbols_since(mark, *type.element));
  for (Dim& d : type.shape.dims())
    if (d.known() && newest_symbol(d) > mark) d = Dim::unknown();
  return type;
}

void infer_graph(ir::Graph& graph, Diagnostics& diagnostics) {
  infer_graph(graph, diagnostics, {});
}

void infer_graph(ir::Graph& graph, Diagnostics& diagnostics, const Visit& visit) {
  graph.model()->budget().restart(Resource::Expressions);
  Inference inference{.diagnostics = diagnostics, .visit = visit};
  // Inputs keep the symbols that an earlier run gave them: new ones must differ.
  for (const ir::Value* v : graph.inputs)
    for (const Dim& d : v->type.shape.dims())
      inference.next_symbol = std::max(inference.next_symbol, newest_symbol(d));
  inference.run(graph);
}

}  // namespace onnx2nn::ops
