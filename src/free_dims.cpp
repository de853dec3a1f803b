#include "free_dims.h"

#include <map>
#include <optional>
#include <set>
#include <utility>

#include <fmt/core.h>

#include "freeing.h"
#include "ops/context.h"
#include "ops/walk.h"
#include "support/text.h"

namespace onnx2nn {

namespace {

using ir::Dim;

constexpr const char* kHint = "the file holds for this size only: export it again with a dynamic axis";

/// The dims to open, by symbol.
std::map<std::string, Freeing::Freed> chosen(ir::Model& model, const FreeDims& asked) {
  std::map<std::string, Freeing::Freed> out;
  std::string batch;
  const auto open = [&](ir::Value& input, std::size_t axis, bool is_batch) {
    Dim& d = input.type.shape.dims()[axis];
    if (!d.is_const() || d.value() == 0) return;
    const std::string name =
        is_batch ? "batch" : printable(input.name) + "_" + std::to_string(axis);
    std::string symbol = is_batch ? batch : "";
    if (symbol.empty()) symbol = model.info.add_symbol(name);
    if (is_batch) batch = symbol;
    out.emplace(symbol, Freeing::Freed{&input, axis, d.value(), is_batch});
    d = Dim::symbol(symbol);
  };
  for (const auto& [name, axis] : asked.axes) {
    ir::Value* input = nullptr;
    for (ir::Value* v : model.graph->inputs)
      if (v->name == name) input = v;
    if (input == nullptr)
      throw Error("bad-option", "the model has no input " + quoted_name(name));
    const ir::Shape& s = input->type.shape;
    const auto rank = static_cast<std::int64_t>(s.rank());
    if (!s.has_rank() || axis < -rank || axis >= rank)
      throw Error("bad-option", fmt::format("the input {} has no dim {}: it is {}", quoted_name(name),
                                            axis, input->type.str()));
    open(*input, static_cast<std::size_t>(axis < 0 ? axis + rank : axis), false);
  }
  if (!asked.batch) return out;
  std::optional<std::int64_t> size;
  for (ir::Value* v : model.graph->inputs) {
    if (v->is_initializer || !v->type.is_tensor() || v->type.shape.rank() == 0) continue;
    const Dim& d = v->type.shape[0];
    if (!d.is_const() || d.value() == 0) continue;
    if (!size) size = d.value();
    if (d.value() == *size) open(*v, 0, true);
  }
  return out;
}

/// What inference minds, as text.
std::set<std::string> complaints(const Diagnostics& found) {
  std::set<std::string> out;
  for (const Diagnostic& d : found.list())
    if (d.severity == Severity::Error) out.insert(d.node + d.op_type + d.message);
  return out;
}

/// What the file says of values, in sizes that no longer hold.
void forget_shapes(ir::Graph& graph) {
  ir::for_each_node(graph, [](ir::Node& n) {
    for (ir::Value* v : n.outputs()) {
      if (v == nullptr || !v->type.is_tensor() || v->constant) continue;
      v->type.shape = ir::Shape();
      v->contents.reset();
      v->declared = nullptr;
    }
  });
}

}  // namespace

void free_dims(ir::Model& model, const FreeDims& asked, Diagnostics& diagnostics) {
  if (asked.empty()) return;
  ir::Graph& graph = *model.graph;
  Diagnostics before;
  ops::infer_graph(graph, before);
  auto freed = chosen(model, asked);
  if (freed.empty()) return;
  forget_shapes(graph);
  Freeing freeing(model, std::move(freed));
  Diagnostics after;
  const ir::Node* at = nullptr;
  try {
    ops::infer_graph(graph, after, [&](ir::Node& n) {
      at = &n;
      return freeing.visit(n);
    });
  } catch (const Error& e) {
    if (at == nullptr) throw;
    Diagnostic d = ops::diagnose(*at, e);
    d.code = "fixed-dim";
    if (d.hint.empty()) d.hint = kHint;
    diagnostics.add(std::move(d));
    return;
  }
  const std::set<std::string> known = complaints(before);
  for (Diagnostic d : after.list()) {
    if (d.severity != Severity::Error || known.count(d.node + d.op_type + d.message) != 0) continue;
    d.code = "fixed-dim";
    d.hint = kHint;
    diagnostics.add(std::move(d));
  }
  for (std::size_t i = 0; i < graph.output_count(); ++i) {
    ir::Type& declared = graph.output_types[i];
    const ir::Type& found = graph.output(i)->type;
    if (!declared.is_tensor() || !found.is_tensor()) continue;
    if (!found.shape.has_rank() || declared.shape.rank() != found.shape.rank()) {
      declared.shape = ir::Shape();
      continue;
    }
    for (std::size_t d = 0; d < found.shape.rank(); ++d)
      if (freeing.depends(found.shape[d]))
        declared.shape.dims()[d] = found.shape[d].symbol_name() ? found.shape[d] : Dim();
  }
}

}  // namespace onnx2nn
