#include "cli/figures.h"

#include <charconv>
#include <cstdint>
#include <string>

namespace onnx2nn::cli {
namespace {

/// A number, an expression, or null.
Json json_of(const std::string& quantity) {
  if (quantity == "?") return nullptr;
  std::int64_t number = 0;
  const auto r = std::from_chars(quantity.data(), quantity.data() + quantity.size(), number);
  if (r.ec == std::errc() && r.ptr == quantity.data() + quantity.size()) return number;
  return quantity;
}

void add(Json& out, const FigureInfo& f) {
  out["parameters"] = f.parameters;
  out["multiply_adds"] = json_of(f.multiply_adds.all);
  out["multiply_adds_at_least"] = json_of(f.multiply_adds.known);
  out["activation_bytes"] = json_of(f.activation_bytes.all);
  out["activation_bytes_at_least"] = json_of(f.activation_bytes.known);
}

Json json_of(const ExternalFileInfo& f) {
  return {{"location", f.location}, {"tensors", f.tensors},
          {"bytes", f.bytes},       {"expected_size", f.expected},
          {"size", f.size ? Json(*f.size) : Json(nullptr)},
          {"error", f.why.empty() ? Json(nullptr) : Json(f.why)}};
}

}  // namespace

void add_figures(Json& out, const Inspection& i, bool nodes) {
  // A model that was not converted has them all the same.
  out["nodes"] = i.total.nodes;
  if (out["inputs"].empty()) out["inputs"] = json_of(i.inputs);
  if (out["outputs"].empty()) out["outputs"] = json_of(i.outputs);
  out["producer"] = i.producer;
  out["producer_version"] = i.producer_version;
  out["ir_version"] = i.ir_version;
  out["opsets"] = i.opsets;
  out["domain"] = i.domain;
  out["model_version"] = i.model_version;
  out["doc_string"] = i.doc_string;
  out["metadata"] = Json::object();
  for (const auto& [key, value] : i.metadata) out["metadata"][key] = value;
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
    Json figures = {{"nodes", f.nodes}};
    add(figures, f);
    out["operators"][type] = figures;
  }
  out["blocks"] = Json::array();
  for (const BlockInfo& b : i.blocks) {
    Json block = {{"path", b.path}, {"class", b.type}, {"nodes", b.figures.nodes}};
    add(block, b.figures);
    out["blocks"].push_back(block);
  }
  out["unused_inputs"] = i.unused_inputs;
  out["unused_initializers"] = i.unused_initializers;
  out["external_files"] = Json::array();
  for (const ExternalFileInfo& f : i.external_files) out["external_files"].push_back(json_of(f));
  if (!nodes) return;
  out["node_list"] = Json::array();
  for (const NodeInfo& n : i.nodes)
    out["node_list"].push_back({{"name", n.name},
                                {"op_type", n.op_type},
                                {"graph", n.graph},
                                {"outputs", cli::json_of(n.outputs)},
                                {"multiply_adds", json_of(n.multiply_adds)}});
}

}  // namespace onnx2nn::cli
