// Nodes, the functions that they call and the parts that Gradient differentiates.
#include <algorithm>

#include "onnx/importer.h"
#include "support/interrupt.h"

namespace onnx2nn::onnx {

// A longer name of a caller is not repeated in the names of what it calls.
constexpr std::size_t kMaxPrefix = 512;

void Importer::add_node(Graph& graph, const RawNode& raw, Scope& scope, const CallAttributes& call,
                        const std::map<std::string, std::int64_t>& opsets, const std::string& prefix,
                        int depth) {
  check_interrupt();
  std::vector<Value*> inputs;
  for (const std::string_view name : raw.inputs) {
    if (name.empty()) {
      inputs.push_back(nullptr);
      continue;
    }
    Value* v = scope.find(name);
    if (v == nullptr)
      throw Error("bad-model", "node \"" + std::string(raw.name) + "\" (" +
                                   std::string(raw.op_type) + ") at byte " +
                                   std::to_string(raw.offset) + " uses the value \"" +
                                   std::string(name) + "\", which nothing defines");
    inputs.push_back(v);
  }
  if (const auto it = functions_.find(function_key(raw.domain, raw.op_type, raw.overload));
      it != functions_.end())
    return inline_function(graph, it->second, raw, inputs, scope, call, prefix, depth);
  charge(raw, prefix);
  const std::string domain = canonical_domain(raw.domain);
  if (raw.op_type == "Constant" && domain.empty() && raw.outputs.size() == 1) {
    if (ir::TensorPtr t = constant_tensor(raw, call, depth)) {
      Value* v = graph.add_initializer(prefix + std::string(raw.outputs[0]), t, false);
      scope.values[raw.outputs[0]] = v;
      return;
    }
  }
  std::vector<std::string> outputs;
  outputs.reserve(raw.outputs.size());
  for (const std::string_view o : raw.outputs)
    outputs.push_back(o.empty() ? "" : prefix + std::string(o));
  Node* n = graph.add_node(std::string(raw.op_type), domain, inputs, outputs);
  if (!raw.name.empty()) n->name = prefix + std::string(raw.name);
  n->overload = raw.overload;
  n->doc_string = raw.doc_string;
  n->metadata = raw.metadata;
  const auto version = opsets.find(domain);
  n->opset = version == opsets.end() ? 1 : version->second;
  for (const Reader& a : raw.attributes)
    if (auto attribute = read_attribute(a, n, &graph, scope, call, depth))
      n->attributes.push_back(std::move(*attribute));
  if (raw.op_type == "If" && domain.empty())
    for (Graph* branch : n->subgraphs()) bind_branch_inputs(*branch, scope);
  if (is_gradient(raw))
    n->attributes.insert(
        n->attributes.begin(),
        {"function", differentiated(*n, gradient_target(raw), scope, call, opsets, depth + 1)});
  for (std::size_t i = 0; i < raw.outputs.size(); ++i)
    if (Value* v = n->output(i)) scope.values[raw.outputs[i]] = v;
}

void Importer::bind_branch_inputs(Graph& branch, const Scope& scope) {
  std::vector<Value*> left;
  std::vector<ir::ValueInfo> infos;
  for (std::size_t i = 0; i < branch.inputs.size(); ++i) {
    Value* v = branch.inputs[i];
    if (v->constant) {
      v->is_graph_input = false;
    } else if (Value* outer = scope.find(v->name)) {
      v->replace_all_uses(outer);
    } else {
      left.push_back(v);
      infos.push_back(std::move(branch.input_infos[i]));
    }
  }
  branch.inputs = std::move(left);
  branch.input_infos = std::move(infos);
}

std::unique_ptr<Graph> Importer::differentiated(Node& owner, std::string_view target, const Scope& scope,
                                                const CallAttributes& call,
                                                const std::map<std::string, std::int64_t>& opsets,
                                                int depth) {
  if (depth > kMaxDepth) throw Error("bad-model", "gradients are nested too deeply");
  auto graph = std::make_unique<Graph>(model_.get(), &owner);
  Scope inner;
  inner.outer = &scope;
  for (const char* attribute : {"xs", "zs"}) {
    const Attribute* a = owner.attribute(attribute);
    if (a == nullptr) continue;
    const auto* names = std::get_if<std::vector<std::string>>(&a->data);
    if (names == nullptr)
      fail("bad-model", "{}: the attribute {} is no list of names", owner.describe(), attribute);
    for (const std::string& name : *names) {
      Value* v = graph->new_value(name);
      v->is_graph_input = true;
      graph->inputs.push_back(v);
      if (!inner.values.emplace(keep(name), v).second)
        fail("bad-model", "{}: its attributes name \"{}\" twice", owner.describe(), name);
    }
  }
  add_nodes_between(*graph, target, inner, call, opsets, depth);
  Value* y = inner.find(target);
  if (y == nullptr)
    fail("bad-model", "{}: its attribute y names \"{}\", which nothing defines",
         owner.describe(), target);
  graph->add_output(y, std::string(target), {});
  return graph;
}

void Importer::add_nodes_between(Graph& graph, std::string_view target, Scope& scope,
                                 const CallAttributes& call,
                                 const std::map<std::string, std::int64_t>& opsets, int depth) {
  const Scope* home = scope.outer;
  while (home != nullptr && (home->nodes == nullptr || home->producers.count(target) == 0))
    home = home->outer;
  if (home == nullptr) return;
  std::set<std::size_t> above;
  std::vector<std::string_view> wanted{target};
  while (!wanted.empty()) {
    const std::string_view name = wanted.back();
    wanted.pop_back();
    const auto it = home->producers.find(name);
    if (scope.values.count(name) != 0 || it == home->producers.end() ||
        !above.insert(it->second).second)
      continue;
    const auto used = used_names((*home->nodes)[it->second], depth);
    wanted.insert(wanted.end(), used.begin(), used.end());
  }
  std::vector<RawNode> nodes;
  for (const std::size_t i : above) {
    nodes.push_back((*home->nodes)[i]);
    for (std::string_view& output : nodes.back().outputs)
      if (scope.values.count(output) != 0) output = {};
  }
  // Each is looked at below, whether it is added or not.
  model_->budget().charge(Resource::Nodes, nodes.size(), "a Gradient");
  // What does not depend on the inputs is computed outside already.
  Scope order_scope;
  for (const std::size_t i : topological_order(nodes, order_scope)) {
    const auto used = used_names(nodes[i], depth);
    if (std::any_of(used.begin(), used.end(),
                    [&](std::string_view name) { return scope.values.count(name) != 0; }))
      add_node(graph, nodes[i], scope, call, opsets, "", depth);
  }
}

void Importer::inline_function(Graph& graph, const Function& f, const RawNode& raw,
                               const std::vector<Value*>& inputs, Scope& scope, const CallAttributes& call,
                               const std::string& prefix, int depth) {
  if (depth > kMaxDepth)
    throw Error("bad-model", "the function " + std::string(f.name) + " calls itself");
  charge(raw, prefix);
  // A body sees its inputs only, not the caller's names; an absent one stays absent.
  Scope body;
  std::vector<RawNode> nodes = f.nodes;
  std::set<std::string_view> absent;
  for (std::size_t i = 0; i < f.inputs.size(); ++i) {
    Value* v = i < inputs.size() ? inputs[i] : nullptr;
    if (v == nullptr) {
      absent.insert(f.inputs[i]);
    } else {
      body.values[f.inputs[i]] = v;
    }
  }
  for (RawNode& n : nodes)
    for (std::string_view& name : n.inputs)
      if (absent.count(name) != 0) name = {};
  CallAttributes inner{{}, &f.attribute_defaults, &call};
  for (const Reader& a : raw.attributes) inner.given.emplace(text_field(a, 1), a);
  const bool named = !raw.name.empty() && prefix.size() + raw.name.size() < kMaxPrefix;
  const std::string inner_prefix =
      (named ? prefix + std::string(raw.name)
             : prefix.substr(0, kMaxPrefix / 2) + std::string(f.name.substr(0, kMaxPrefix / 4)) +
                   "_" + std::to_string(inlined_++)) +
      "/";
  const auto* caller_opsets = std::exchange(opsets_, &f.opsets);
  add_nodes(graph, nodes, body, inner, f.opsets, inner_prefix, depth + 1);
  opsets_ = caller_opsets;
  const std::unordered_set<Value*> given(inputs.begin(), inputs.end());
  for (std::size_t i = 0; i < f.outputs.size() && i < raw.outputs.size(); ++i) {
    if (raw.outputs[i].empty()) continue;
    Value* v = body.find(f.outputs[i]);
    if (v == nullptr)
      throw Error("bad-model", "the function " + std::string(f.name) +
                                   " does not define its output \"" + std::string(f.outputs[i]) +
                                   "\"");
    if (v->producer() != nullptr && v->producer()->graph() == &graph && !renamed_.count(v) &&
        given.count(v) == 0) {
      v->name = prefix + std::string(raw.outputs[i]);  // the caller's name is the one people know
      renamed_.insert(v);
    }
    scope.values[raw.outputs[i]] = v;
  }
}

RawNode Importer::read_listed_node(Reader m) {
  model_->budget().add_listed_nodes(1);
  return read_node(m);
}

void Importer::charge(const RawNode& raw, const std::string& prefix) {
  Budget& budget = model_->budget();
  const std::string_view who = raw.name.empty() ? raw.op_type : raw.name;
  budget.charge(Resource::Nodes, 1, who);
  std::uint64_t bytes = raw.inputs.size() * sizeof(ir::Use) + raw.op_type.size() +
                        raw.domain.size() + raw.name.size() + raw.doc_string.size();
  for (const std::string_view o : raw.outputs) bytes += sizeof(Value) + o.size();
  for (const auto& [key, value] : raw.metadata) bytes += key.size() + value.size();
  bytes += prefix.size() * (raw.outputs.size() + 1);
  budget.charge(Resource::Bytes, bytes, who);
}

}  // namespace onnx2nn::onnx
