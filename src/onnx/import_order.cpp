// What each node reads, and an order in which everything is defined before it is used.

#include "onnx/importer.h"
#include "support/text.h"

namespace onnx2nn::onnx {

std::string_view Importer::keep(const std::string& name) { return *kept_.insert(name).first; }

void Importer::add_nodes(Graph& graph, const std::vector<RawNode>& nodes, Scope& scope,
                         const CallAttributes& call, const std::map<std::string, std::int64_t>& opsets,
                         const std::string& prefix, int depth) {
  const std::vector<std::size_t> order = topological_order(nodes, scope);
  scope.nodes = &nodes;
  for (const std::size_t i : order) add_node(graph, nodes[i], scope, call, opsets, prefix, depth);
  scope.nodes = nullptr;
}

std::vector<std::string_view> Importer::used_names(const RawNode& n, int depth) {
  std::vector<std::string_view> used = n.inputs;
  for (const Reader& a : n.attributes) captured_in_attribute(a, used, depth);
  if (is_gradient(n)) used.push_back(gradient_target(n));
  return used;
}

void Importer::captured_names(Reader graph, std::vector<std::string_view>& out, int depth) {
  if (depth > kMaxDepth) graph.fail("graphs are nested too deeply");
  std::vector<std::string_view> used;
  std::unordered_set<std::string_view> defined;
  while (graph.next()) {
    if (graph.field() == 1) {
      const RawNode n = read_node(graph.message("NodeProto"));
      const std::vector<std::string_view> names = used_names(n, depth + 1);
      used.insert(used.end(), names.begin(), names.end());
      defined.insert(n.outputs.begin(), n.outputs.end());
    } else if (graph.field() == 11) {
      defined.insert(text_field(graph.message("ValueInfoProto"), 1));
    } else if (graph.field() == 12) {
      used.push_back(text_field(graph.message("ValueInfoProto"), 1));
    } else if (graph.field() == 5) {
      defined.insert(text_field(graph.message("TensorProto"), 8));
    } else {
      graph.skip();
    }
  }
  for (const std::string_view name : used)
    if (defined.count(name) == 0) out.push_back(name);
}

void Importer::captured_in_attribute(Reader a, std::vector<std::string_view>& out, int depth) {
  while (a.next()) {
    if (a.field() == 6 || a.field() == 11) {
      captured_names(a.message("GraphProto"), out, depth);
    } else {
      a.skip();
    }
  }
}

std::vector<std::size_t> Importer::topological_order(const std::vector<RawNode>& nodes,
                                                     Scope& scope) {
  auto& producer = scope.producers;
  std::unordered_set<std::size_t> replaced;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string_view o : nodes[i].outputs) {
      if (o.empty()) continue;
      const auto [first, fresh] = producer.emplace(o, i);
      // Some tools write a Constant's name twice. As in ONNX Runtime, the last one is meant
      // everywhere.
      if (!fresh && nodes[i].op_type == "Constant" &&
          nodes[first->second].op_type == "Constant") {
        replaced.insert(first->second);
        first->second = i;
        continue;
      }
      if (!fresh || scope.values.count(o) != 0)
        throw Error("bad-model", "the value \"" + std::string(o) +
                                     "\" is defined twice, by the node \"" +
                                     std::string(nodes[i].name) + "\" (" +
                                     std::string(nodes[i].op_type) + ") too");
    }
  }
  std::vector<std::vector<std::size_t>> needed_by(nodes.size());
  std::vector<std::size_t> missing(nodes.size(), 0);
  bool sorted = true;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string_view u : used_names(nodes[i], 0)) {
      const auto it = producer.find(u);
      if (it == producer.end()) continue;
      if (it->second >= i) sorted = false;
      needed_by[it->second].push_back(i);
      ++missing[i];
    }
  }
  std::vector<std::size_t> order;
  order.reserve(nodes.size());
  if (sorted) {
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (replaced.count(i) == 0) order.push_back(i);
    return order;
  }
  std::set<std::size_t> ready;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (missing[i] == 0) ready.insert(i);
  while (!ready.empty()) {
    const std::size_t i = *ready.begin();
    ready.erase(ready.begin());
    if (replaced.count(i) == 0) order.push_back(i);
    for (const std::size_t user : needed_by[i])
      if (--missing[user] == 0) ready.insert(user);
  }
  if (order.size() + replaced.size() != nodes.size()) {
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (missing[i] != 0)
        throw Error("bad-model", "the graph has a cycle through the node \"" +
                                     std::string(nodes[i].name) + "\" (" +
                                     std::string(nodes[i].op_type) + ")");
  }
  return order;
}

}  // namespace onnx2nn::onnx
