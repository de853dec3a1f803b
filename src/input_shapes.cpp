#include "input_shapes.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/core.h>

#include "ops/context.h"
#include "support/error.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

constexpr const char* kFixed =
    "the model fixes it: --dynamic-batch or --dynamic NAME:AXIS may open it, else export it again with "
    "a dynamic axis";

std::string quoted_name(std::string_view name) {
  return "\"" + printable(name) + "\"";
}

ir::Value& input_of(const ir::Graph& graph, const std::string& name) {
  std::string names;
  for (ir::Value* v : graph.inputs) {
    if (v->name == name) return *v;
    if (!v->is_initializer) names += (names.empty() ? "" : ", ") + quoted_name(v->name);
  }
  throw Error("bad-option", "the model has no input " + quoted_name(name), "its inputs are " + names);
}

/// The symbol of the file's dimension `name`; a new one where it has none of that name.
ir::Dim symbol(ir::ModelInfo& info, const std::string& name) {
  for (const auto& [id, in_file] : info.symbols)
    if (in_file == name) return ir::Dim::symbol(id);
  return ir::Dim::symbol(info.add_symbol(name));
}

void apply(ir::Model& model, const std::string& name, const std::vector<InputDim>& given) {
  ir::Value& input = input_of(*model.graph, name);
  if (!input.type.is_tensor())
    throw Error("bad-option", "the input " + quoted_name(name) + " is no tensor: it has no shape");
  const ir::Shape& known = input.type.shape;
  if (known.has_rank() && known.rank() != given.size())
    throw Error("bad-option", fmt::format("the input {} has {} dims, not {}", quoted_name(name),
                                          known.rank(), given.size()),
                "the model says " + known.str());
  ir::Dims dims;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const ir::Dim in_model = known.has_rank() ? known[i] : ir::Dim();
    const auto* size = std::get_if<std::int64_t>(&given[i]);
    const auto* word = std::get_if<std::string>(&given[i]);
    const bool stays = size != nullptr && *size < 0;
    // Some exporters write 0 for a dim that is open.
    const bool fixed = in_model.is_const() && in_model.value() != 0;
    if (!stays && fixed && (size == nullptr || *size != in_model.value()))
      throw Error("input-shape",
                  fmt::format("dim {} of the input {} is {} in the model, not {}", i, quoted_name(name),
                              in_model.value(),
                              size != nullptr ? std::to_string(*size) : printable(*word)),
                  kFixed);
    dims.push_back(stays              ? in_model
                   : size != nullptr ? ir::Dim(*size)
                                     : symbol(model.info, *word));
  }
  input.type.shape = ir::Shape(std::move(dims));
}

/// What inference minds: (node, message).
std::set<std::pair<std::string, std::string>> complaints(ir::Graph& graph) {
  Diagnostics found;
  ops::infer_graph(graph, found);
  std::set<std::pair<std::string, std::string>> out;
  for (const Diagnostic& d : found.list())
    if (d.severity == Severity::Error)
      out.emplace(d.node.empty() ? d.op_type : d.op_type + " (node " + d.node + ")", d.message);
  return out;
}

std::string text_of(const ir::Graph& graph, const InputShapes& shapes) {
  std::string out;
  for (const auto& [name, given] : shapes)
    out += (out.empty() ? "" : ", ") + quoted_name(name) + " " + input_of(graph, name).type.shape.str();
  return out;
}

}  // namespace

void apply_input_shapes(ir::Model& model, const InputShapes& shapes) {
  if (shapes.empty()) return;
  ir::Graph& graph = *model.graph;
  const auto before = complaints(graph);
  for (const auto& [name, given] : shapes) apply(model, name, given);
  for (const auto& [node, message] : complaints(graph))
    if (before.count({node, message}) == 0)
      throw Error("input-shape",
                  "the model does not take the input shape " + text_of(graph, shapes) + ": " + node +
                      ": " + message,
                  kFixed);
}

}  // namespace onnx2nn
