// What is in a model: read, inferred, counted.
#include "onnx2nn/inspect.h"

#include <new>

#include "diagnostics.h"
#include "free_dims.h"
#include "input_shapes.h"
#include "inspect/difference.h"
#include "inspect/facts.h"
#include "inspect/multiply_adds.h"
#include "onnx/reader.h"
#include "ops/context.h"
#include "ops/op.h"
#include "support/interrupt.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

std::string text_of(const ir::Dim& dim) { return inspect::is_said(dim) ? dim.str() : "?"; }

Amount amount(const ir::Dim& dim) {
  Amount out{text_of(dim), {}};
  if (!inspect::is_said(dim)) return out;
  for (const ir::Dim::Term& term : dim.terms()) {
    Amount::Term& t = out.terms.emplace_back(Amount::Term{term.coefficient, {}});
    for (const ir::Dim::AtomPtr& factor : term.factors) t.factors.push_back(factor->key);
  }
  if (dim.constant_term() != 0) out.terms.push_back({dim.constant_term(), {}});
  return out;
}

Quantity quantity(const inspect::Count& count) {
  return {amount(count.all()), amount(count.known), count.unknown};
}

FigureInfo info_of(const inspect::Figures& f) {
  return {f.nodes, f.parameters, quantity(f.multiply_adds), quantity(f.activation_bytes)};
}

PortInfo port(const std::string& name, const ir::Type& type) {
  PortInfo out;
  out.name = name;
  const ir::Type* inner = &type;
  out.kind = "tensor";
  if (type.kind == ir::Type::Kind::Sequence) out.kind = "sequence";
  if (type.kind == ir::Type::Kind::Optional) out.kind = "optional";
  if (type.kind == ir::Type::Kind::Map) out.kind = "map";
  while (inner->element && inner->kind != ir::Type::Kind::Map) inner = inner->element.get();
  out.dtype = std::string(ir::info(inner->dtype).name);
  if (!inner->is_tensor() || !inner->shape.has_rank()) return out;
  out.shape.emplace();
  for (const ir::Dim& d : inner->shape.dims()) out.shape->push_back(text_of(d));
  return out;
}

std::string type_of(const ir::Node& n) {
  return n.domain.empty() ? n.op_type : n.domain + "::" + n.op_type;
}

/// The node and attribute whose graph a node is in.
std::string place_of(const ir::Node& n) {
  const ir::Node* outer = n.graph()->parent();
  if (outer == nullptr) return "";
  for (const ir::Attribute& a : outer->attributes) {
    const auto* graph = std::get_if<std::unique_ptr<ir::Graph>>(&a.data);
    if (graph != nullptr && graph->get() == n.graph()) return outer->name + "." + a.name;
  }
  return outer->name;
}

void describe(Inspection& out, const ir::Model& model, const inspect::Facts& facts) {
  const ir::ModelInfo& info = model.info;
  out.ir_version = info.ir_version;
  out.producer = info.producer_name;
  out.producer_version = info.producer_version;
  out.domain = info.domain;
  out.model_version = info.model_version;
  out.doc_string = info.doc_string;
  out.metadata = info.metadata;
  out.opsets = info.opsets;
  const ir::Graph& graph = *model.graph;
  for (const ir::Value* v : graph.inputs)
    if (!v->is_constant() || !info.weights_are_inputs) out.inputs.push_back(port(v->name, v->type));
  for (std::size_t i = 0; i < graph.output_count(); ++i)
    out.outputs.push_back(port(graph.output_names[i], graph.output(i)->type));
  out.total = info_of(facts.total);
  out.peak_bytes = amount(facts.peak_bytes);
  for (const auto& [type, figures] : facts.by_operator) out.operators[type] = info_of(figures);
  for (const inspect::BlockFigures& b : facts.blocks)
    out.blocks.push_back({b.path, b.depth, b.type, info_of(b.figures)});
  for (const auto& [dtype, w] : facts.weights) out.weights[dtype] = {w.tensors, w.elements, w.bytes};
  for (const ir::Value* v : facts.unused_inputs) out.unused_inputs.push_back(v->name);
  for (const ir::Value* v : facts.unused_initializers) out.unused_initializers.push_back(v->name);
  for (const inspect::NodeFigures& n : facts.nodes) {
    NodeInfo node{n.node->name, type_of(*n.node), place_of(*n.node), {}, amount(n.multiply_adds)};
    for (const ir::Value* v : n.node->outputs())
      if (v != nullptr) node.outputs.push_back(port(v->name, v->type));
    out.nodes.push_back(std::move(node));
  }
}

void run(Inspection& out, std::shared_ptr<const InputFile> file, const std::string& folder,
         const InspectOptions& options, Diagnostics& diagnostics) {
  onnx::ExternalFiles files;
  const auto model = onnx::read_model(
      std::move(file), {folder, options.data_roots, options.drop_undefined_outputs, &files},
      diagnostics);
  out.readable = true;
  for (const auto& [location, f] : files)
    out.external_files.push_back({location, f.tensors, f.bytes, f.least, f.size, f.why});
  ir::for_each_node(*model->graph,
                    [](ir::Node& n) { n.op = ops::find_op(n.domain, n.op_type); });
  apply_input_shapes(*model, options.input_shapes);
  free_dims(*model, options.free_dims, diagnostics);
  ops::infer_graph(*model->graph, diagnostics);
  describe(out, *model, inspect::facts_of(*model->graph));
}

/// Does the work, whose errors become diagnostics about `name`, as that is then.
template <typename Result, typename Work>
Result guarded(const std::string& name, Work&& work) {
  Result out;
  Diagnostics diagnostics;
  collect_errors(diagnostics, [&] { work(out, diagnostics); });
  out.diagnostics = infos_of(diagnostics);
  out.diagnostics_text = diagnostics.text(name);
  return out;
}

/// A model whose types have been inferred.
std::unique_ptr<ir::Model> inferred(std::shared_ptr<const InputFile> file, const std::string& folder,
                                    const DiffOptions& options) {
  onnx::ExternalFiles files;
  Diagnostics ignored;  // what cannot be inferred is unknown, and no difference by itself
  auto model = onnx::read_model(
      std::move(file), {folder, options.data_roots, options.drop_undefined_outputs, &files}, ignored);
  ir::for_each_node(*model->graph,
                    [](ir::Node& n) { n.op = ops::find_op(n.domain, n.op_type); });
  ops::infer_graph(*model->graph, ignored);
  return model;
}

/// The difference of what two functions read.
template <typename ReadBefore, typename ReadAfter>
ModelDifference differing(const std::string& before, const std::string& after, ReadBefore&& read_before,
                          ReadAfter&& read_after) {
  std::string reading = before;  // which of the two a fault is about
  return guarded<ModelDifference>(reading, [&](ModelDifference& out, Diagnostics&) {
    const auto one = read_before();
    reading = after;
    const auto other = read_after();
    out.readable = true;
    inspect::compare(*one, *other, out);
  });
}

}  // namespace

Inspection inspect_file(const std::string& path, const InspectOptions& options) {
  return guarded<Inspection>(path, [&](Inspection& out, Diagnostics& diagnostics) {
    run(out, InputFile::open(path), folder_of(path), options, diagnostics);
  });
}

Inspection inspect_bytes(std::string bytes, const InspectOptions& options, const std::string& name) {
  return guarded<Inspection>(name, [&](Inspection& out, Diagnostics& diagnostics) {
    run(out, InputFile::from_memory(std::move(bytes), name), "", options, diagnostics);
  });
}

ModelDifference diff_files(const std::string& before, const std::string& after, const DiffOptions& options) {
  return differing(
      before, after, [&] { return inferred(InputFile::open(before), folder_of(before), options); },
      [&] { return inferred(InputFile::open(after), folder_of(after), options); });
}

ModelDifference diff_bytes(std::string before, std::string after, const DiffOptions& options,
                           const std::string& name_before, const std::string& name_after) {
  return differing(
      name_before, name_after,
      [&] { return inferred(InputFile::from_memory(std::move(before), name_before), "", options); },
      [&] { return inferred(InputFile::from_memory(std::move(after), name_after), "", options); });
}

}  // namespace onnx2nn
