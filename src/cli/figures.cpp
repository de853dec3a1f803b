#include "cli/figures.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

namespace onnx2nn::cli {
namespace {

/// A number, an expression, or null.
Json json_of(const Amount& a) {
  if (a.terms.empty()) return a.text == "0" ? Json(0) : Json(nullptr);
  if (a.terms.size() == 1 && a.terms[0].factors.empty()) return a.terms[0].coefficient;
  return model_text(a.text);
}

void add(Json& out, const FigureInfo& f) {
  out["parameters"] = f.parameters;
  out["multiply_adds"] = json_of(f.multiply_adds.all);
  out["multiply_adds_at_least"] = json_of(f.multiply_adds.known);
  out["activation_bytes"] = json_of(f.activation_bytes.all);
  out["activation_bytes_at_least"] = json_of(f.activation_bytes.known);
}

Json json_of(const ExternalFileInfo& f) {
  return {{"location", model_text(f.location)},
          {"tensors", f.tensors},
          {"bytes", f.bytes},
          {"expected_size", f.expected},
          {"size", f.size ? Json(*f.size) : Json(nullptr)},
          {"error", f.why.empty() ? Json(nullptr) : Json(model_text(f.why))}};
}

InspectOptions inspect_options(const ConvertOptions& o) {
  return {o.input_shapes, o.free_dims, o.data_roots, o.drop_undefined_outputs};
}

Inspected inspected(Inspection found, std::optional<Conversion> conversion) {
  Inspected out{std::move(found), std::move(conversion), kDone, {}, {}};
  // What inspection finds, conversion finds too, unless somebody stopped the one and not the other.
  const bool says_all = out.conversion && (out.found.readable || !out.conversion->ok());
  out.diagnostics = says_all ? out.conversion->diagnostics() : out.found.diagnostics;
  out.diagnostics_text = says_all ? out.conversion->diagnostics_text() : out.found.diagnostics_text;
  const bool readable = says_all ? out.conversion->readable() : out.found.readable;
  const bool fails = std::any_of(out.diagnostics.begin(), out.diagnostics.end(),
                                 [](const DiagnosticInfo& d) { return d.severity == "error"; });
  if (fails || !readable) out.code = exit_code_of(out.diagnostics, readable);
  return out;
}

void add_figures(Json& out, const Inspection& i) {
  out["producer"] = model_text(i.producer);
  out["producer_version"] = model_text(i.producer_version);
  out["ir_version"] = i.ir_version;
  out["opsets"] = cli::json_of(i.opsets);
  out["domain"] = model_text(i.domain);
  out["model_version"] = i.model_version;
  out["doc_string"] = model_text(i.doc_string);
  out["metadata"] = Json::object();
  for (const auto& [key, value] : i.metadata) out["metadata"][model_text(key)] = model_text(value);
  add(out, i.total);
  out["peak_activation_bytes"] = json_of(i.peak_bytes);
  std::uint64_t bytes = 0;
  out["weights"] = Json::object();
  for (const auto& [dtype, w] : i.weights) {
    out["weights"][dtype] = {{"tensors", w.tensors}, {"elements", w.elements}, {"bytes", w.bytes}};
    bytes += w.bytes;
  }
  out["weight_bytes"] = bytes;
  out["op_types"] = Json::object();
  out["operators"] = Json::object();
  for (const auto& [type, f] : i.operators) {
    out["op_types"][type] = f.nodes;
    Json& figures = out["operators"][type] = {{"nodes", f.nodes}};
    add(figures, f);
  }
  out["blocks"] = Json::array();
  for (const BlockInfo& b : i.blocks) {
    Json block = {{"path", model_text(b.path)}, {"class", model_text(b.type)}, {"nodes", b.figures.nodes}};
    add(block, b.figures);
    out["blocks"].push_back(block);
  }
  out["unused_inputs"] = model_texts(i.unused_inputs);
  out["unused_initializers"] = model_texts(i.unused_initializers);
  out["external_files"] = Json::array();
  for (const ExternalFileInfo& f : i.external_files) out["external_files"].push_back(json_of(f));
}

void add_nodes(Json& out, const Inspection& i) {
  out["node_list"] = Json::array();
  for (const NodeInfo& n : i.nodes)
    out["node_list"].push_back({{"name", model_text(n.name)},
                                {"op_type", model_text(n.op_type)},
                                {"graph", model_text(n.graph)},
                                {"outputs", cli::json_of(n.outputs)},
                                {"multiply_adds", json_of(n.multiply_adds)}});
}

}  // namespace

Inspected inspected_file(const std::string& path, const ConvertOptions& options, bool convert) {
  Inspection found = inspect_file(path, inspect_options(options));
  if (!convert) return inspected(std::move(found), std::nullopt);
  return inspected(std::move(found), convert_file(path, options));
}

Inspected inspected_bytes(const std::string& bytes, const ConvertOptions& options, const std::string& name,
                          bool convert) {
  Inspection found = inspect_bytes(bytes, inspect_options(options), name);
  if (!convert) return inspected(std::move(found), std::nullopt);
  return inspected(std::move(found), convert_bytes(bytes, options, name));
}

void add_inspected(Json& out, const Inspected& i, bool nodes) {
  out["diagnostics"] = cli::json_of(i.diagnostics);
  if (!i.found.readable || i.code == kUsage) return;
  if (i.conversion) out["convertible"] = i.conversion->ok();
  out["nodes"] = i.found.total.nodes;
  if (i.conversion) out["nodes_after"] = i.conversion->stats().nodes_after;
  // Of a model that was not converted, without the names of Python's.
  const bool named = i.conversion && !i.conversion->outputs().empty();
  out["inputs"] = cli::json_of(named ? i.conversion->inputs() : i.found.inputs);
  out["outputs"] = cli::json_of(named ? i.conversion->outputs() : i.found.outputs);
  add_figures(out, i.found);
  if (nodes) add_nodes(out, i.found);
}

}  // namespace onnx2nn::cli
