#include "ir/graph.h"

#include <algorithm>
#include <bit>

#include "support/error.h"
#include "support/text.h"

namespace onnx2nn::ir {

// ---------------------------------------------------------------- Value

std::vector<Use*> Value::uses() const {
  std::vector<Use*> out;
  for (Use* u = uses_; u != nullptr; u = u->next) out.push_back(u);
  return out;
}

void Value::replace_all_uses(Value* with) {
  if (with == this) return;
  while (uses_ != nullptr) uses_->user->set_input(uses_->index, with);
}

// ---------------------------------------------------------------- Attribute

std::optional<double> Attribute::number() const {
  if (const auto* whole = std::get_if<std::int64_t>(&data)) return static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&data)) return *real;
  return std::nullopt;
}

// ---------------------------------------------------------------- Node

void Node::set_input(std::size_t i, Value* value) {
  ONNX2NN_CHECK(i < input_count_, "Node::set_input: no such input");
  Use& use = uses_[i];
  if (use.value != nullptr) {
    *use.link = use.next;
    if (use.next != nullptr) use.next->link = use.link;
  }
  use.value = value;
  use.next = nullptr;
  use.link = nullptr;
  if (value != nullptr) {
    use.next = value->uses_;
    if (use.next != nullptr) use.next->link = &use.next;
    use.link = &value->uses_;
    value->uses_ = &use;
  }
}

void Node::set_inputs(std::span<Value* const> values) {
  const std::vector<Value*> copy(values.begin(), values.end());
  for (std::size_t i = 0; i < input_count_; ++i) set_input(i, nullptr);
  // Room for a power of two, which add_input relies on: adding them one by one stays linear.
  uses_ = copy.empty() ? nullptr : std::make_unique<Use[]>(std::bit_ceil(copy.size()));
  input_count_ = copy.size();
  for (std::size_t i = 0; i < copy.size(); ++i) {
    uses_[i].user = this;
    uses_[i].index = static_cast<std::uint32_t>(i);
    set_input(i, copy[i]);
  }
}

void Node::add_input(Value* value) {
  if (input_count_ > 0 && input_count_ < std::bit_ceil(input_count_)) {
    const std::size_t i = input_count_++;
    uses_[i].user = this;
    uses_[i].index = static_cast<std::uint32_t>(i);
    set_input(i, value);
    return;
  }
  std::vector<Value*> values;
  values.reserve(input_count_ + 1);
  for (std::size_t i = 0; i < input_count_; ++i) values.push_back(uses_[i].value);
  values.push_back(value);
  set_inputs(values);
}

const Attribute* Node::attribute(std::string_view attribute_name) const {
  for (const Attribute& a : attributes)
    if (a.name == attribute_name) return &a;
  return nullptr;
}

Attribute* Node::attribute(std::string_view attribute_name) {
  for (Attribute& a : attributes)
    if (a.name == attribute_name) return &a;
  return nullptr;
}

std::vector<Graph*> Node::subgraphs() const {
  std::vector<Graph*> out;
  for (const Attribute& a : attributes) {
    if (const auto* g = std::get_if<std::unique_ptr<Graph>>(&a.data)) out.push_back(g->get());
    if (const auto* gs = std::get_if<Attribute::Graphs>(&a.data))
      for (const auto& g : *gs) out.push_back(g.get());
  }
  return out;
}

std::string Node::describe() const {
  std::string out = (domain.empty() ? "" : domain + "::") + op_type;
  if (!name.empty()) out += " (node " + name + ")";
  return out;
}

// ---------------------------------------------------------------- Graph

Graph::Graph(Model* model, Node* parent) : model_(model), parent_(parent) {
  return_node_ = &nodes_.emplace_back();
  return_node_->op_type = "Return";
  return_node_->graph_ = this;
}

Graph::~Graph() {
  drop_uses();
}

void Graph::drop_uses() {
  for (Node& n : nodes_) {
    for (Graph* g : n.subgraphs()) g->drop_uses();
    for (std::size_t i = 0; i < n.input_count_; ++i) n.set_input(i, nullptr);
  }
}

void Graph::add_output(Value* value, std::string output_name, Type declared) {
  return_node_->add_input(value);
  output_names.push_back(std::move(output_name));
  output_types.push_back(std::move(declared));
}

Value* Graph::new_value(std::string value_name) {
  Value& v = values_.emplace_back();
  v.name = std::move(value_name);
  v.graph_ = this;
  return &v;
}

Value* Graph::add_initializer(std::string value_name, TensorPtr tensor, bool trainable) {
  Value* v = new_value(std::move(value_name));
  v->type = Type::tensor(tensor->dtype(), Shape::of(tensor->dims()));
  v->constant = std::move(tensor);
  v->is_initializer = trainable;
  initializers.push_back(v);
  return v;
}

void Graph::link(Node* node, Node* before) {
  node->next_ = before;
  node->prev_ = before != nullptr ? before->prev_ : last_;
  (node->prev_ != nullptr ? node->prev_->next_ : first_) = node;
  (before != nullptr ? before->prev_ : last_) = node;
  ++node_count_;
}

void Graph::unlink(Node* node) {
  (node->prev_ != nullptr ? node->prev_->next_ : first_) = node->next_;
  (node->next_ != nullptr ? node->next_->prev_ : last_) = node->prev_;
  node->prev_ = node->next_ = nullptr;
  --node_count_;
}

Node* Graph::add_node(std::string op_type, std::string domain, std::span<Value* const> node_inputs,
                      std::span<const std::string> names, Node* before) {
  Node& n = nodes_.emplace_back();
  n.op_type = std::move(op_type);
  n.domain = std::move(domain);
  n.graph_ = this;
  n.set_inputs(node_inputs);
  n.outputs_.reserve(names.size());
  for (const std::string& output_name : names) {
    Value* v = nullptr;
    if (!output_name.empty()) {
      v = new_value(output_name);
      v->producer_ = &n;
      v->output_index_ = static_cast<std::uint32_t>(n.outputs_.size());
    }
    n.outputs_.push_back(v);
  }
  link(&n, before);
  return &n;
}

void Graph::erase(Node* node) {
  for (Value* v : node->outputs_)
    ONNX2NN_CHECK(v == nullptr || !v->has_uses(), "Graph::erase: an output is still used");
  for (Graph* g : node->subgraphs()) g->drop_uses();
  for (std::size_t i = 0; i < node->input_count_; ++i) node->set_input(i, nullptr);
  unlink(node);
  node->erased_ = true;
}

void Graph::move_before(Node* node, Node* before) {
  unlink(node);
  link(node, before);
}

// ---------------------------------------------------------------- Model

std::string ModelInfo::add_symbol(std::string_view name) {
  // Symbols are printed; a name that is no identifier gets one.
  std::string stem;
  for (const char c : name.substr(0, 40)) stem += is_alphanumeric(c) ? c : '_';
  if (is_digit(stem[0])) stem = "d" + stem;
  // Numbers go on where they stopped, so that many symbols of one beginning stay linear.
  std::size_t& attempt = symbol_attempts[stem];
  std::string id = stem;
  while (symbols.count(id) != 0) {
    ++attempt;
    id = stem + "_" + (attempt > 1 ? std::to_string(attempt) : "");
  }
  symbols[id] = std::string(name);
  return id;
}

std::int64_t Model::opset(const std::string& domain) const {
  const auto it = info.opsets.find(domain);
  return it == info.opsets.end() ? 0 : it->second;
}

std::string Model::new_name(std::string_view stem) {
  return std::string(stem) + "/" + std::to_string(next_id_++);
}

// ---------------------------------------------------------------- print

namespace {

std::string value_name(const Value* v) {
  if (v == nullptr) return "_";
  return "%" + v->name;
}

std::string attribute_text(const Attribute& a) {
  struct Visitor {
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return std::to_string(v); }
    std::string operator()(const std::string& v) const { return "\"" + v + "\""; }
    std::string operator()(const std::vector<std::int64_t>& v) const {
      std::string out = "[";
      for (std::size_t i = 0; i < v.size(); ++i) out += (i > 0 ? ", " : "") + std::to_string(v[i]);
      return out + "]";
    }
    std::string operator()(const std::vector<double>& v) const {
      std::string out = "[";
      for (std::size_t i = 0; i < v.size(); ++i) out += (i > 0 ? ", " : "") + std::to_string(v[i]);
      return out + "]";
    }
    std::string operator()(const std::vector<std::string>& v) const {
      return "[" + std::to_string(v.size()) + " strings]";
    }
    std::string operator()(const TensorPtr& v) const { return v ? v->str() : "?"; }
    std::string operator()(const std::vector<TensorPtr>& v) const {
      return "[" + std::to_string(v.size()) + " tensors]";
    }
    std::string operator()(const std::unique_ptr<Graph>& v) const {
      return "{\n" + print(*v) + "}";
    }
    std::string operator()(const Attribute::Graphs& v) const {
      return "[" + std::to_string(v.size()) + " graphs]";
    }
    std::string operator()(const Type& v) const { return v.str(); }
  };
  return a.name + "=" + std::visit(Visitor{}, a.data);
}

}  // namespace

std::string print(const Graph& graph) {
  std::string out = "graph " + graph.name + "(";
  for (std::size_t i = 0; i < graph.inputs.size(); ++i)
    out += (i > 0 ? ", " : "") + value_name(graph.inputs[i]) + ": " + graph.inputs[i]->type.str();
  out += ")\n";
  for (const Value* v : graph.initializers)
    if (v->constant) out += "  " + value_name(v) + " = " + v->constant->str() + "\n";
  for (const Node* n = graph.first(); n != nullptr; n = n->next()) {
    out += "  ";
    for (std::size_t i = 0; i < n->output_count(); ++i) {
      out += (i > 0 ? ", " : "") + value_name(n->output(i));
      if (n->output(i) != nullptr) out += ": " + n->output(i)->type.str();
    }
    out += " = " + (n->domain.empty() ? "" : n->domain + "::") + n->op_type + "(";
    for (std::size_t i = 0; i < n->input_count(); ++i)
      out += (i > 0 ? ", " : "") + value_name(n->input(i));
    out += ")";
    for (const Attribute& a : n->attributes) out += " " + attribute_text(a);
    out += "\n";
  }
  out += "  return ";
  for (std::size_t i = 0; i < graph.output_count(); ++i)
    out += (i > 0 ? ", " : "") + value_name(graph.output(i));
  return out + "\n";
}

}  // namespace onnx2nn::ir
