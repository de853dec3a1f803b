#include "ops/context.h"

namespace onnx2nn::ops {
namespace {

// Fresh symbols begin with a character that no identifier has, so that they meet none of the model's.
constexpr char kFreshMark = '%';

}  // namespace

struct Inference {
  Diagnostics& diagnostics;
  std::uint64_t next_symbol = 0;

  void name_unknown_dims(ir::Value* v) {
    if (!v->type.is_tensor() || !v->type.shape.has_rank()) return;
    for (Dim& d : v->type.shape.dims())
      if (!d.known()) d = Dim::symbol(kFreshMark + std::to_string(next_symbol++));
  }

  void run(ir::Graph& graph) {
    for (ir::Value* v : graph.inputs) name_unknown_dims(v);
    for (ir::Node* n = graph.first(); n != nullptr; n = n->next()) {
      for (ir::Value* v : n->outputs()) {
        if (v == nullptr) continue;
        v->contents.reset();
        // What an earlier run said in fresh symbols is said anew.
        for (Dim& d : v->type.shape.dims())
          if (!d.is_const()) d = Dim::unknown();
      }
      if (n->op != nullptr && n->op->infer != nullptr) {
        InferContext c(*n, *this);
        try {
          n->op->infer(c);
        } catch (const Error& e) {
          diagnostics.add(diagnose(*n, e));
        }
      } else {
        for (ir::Graph* g : n->subgraphs()) run(*g);
      }
      for (ir::Value* v : n->outputs())
        if (v != nullptr) name_unknown_dims(v);
    }
  }
};

void InferContext::infer_graph(ir::Graph& graph) { inference_.run(graph); }

void infer_graph(ir::Graph& graph, Diagnostics& diagnostics) { Inference{diagnostics}.run(graph); }

}  // namespace onnx2nn::ops
