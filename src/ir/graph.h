// The graph: values are pointers, never names; a value's uses span nested graphs; a graph's outputs
// are uses of its return node. So replacing all uses and removing dead code need no special case
// for If, Loop and Scan, whose bodies simply use outer values.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ir/tensor.h"
#include "ir/type.h"
#include "support/budget.h"

namespace onnx2nn::ops {
struct OpDef;
}

namespace onnx2nn::ir {

class Graph;
class Model;
class Node;
class Value;

/// One input of a node; a link of the used value's list.
struct Use {
  Value* value = nullptr;
  Node* user = nullptr;
  std::uint32_t index = 0;
  Use* next = nullptr;
  Use** link = nullptr;
};

class Value {
 public:
  std::string name;  // ONNX's; may be empty for values that passes made
  Type type;
  /// The tensor's value where it is constant (initialisers, and what folding found).
  TensorPtr constant;
  /// The elements of an integer tensor of rank 0 or 1, where known as expressions.
  std::optional<Dims> contents;
  /// The shape that the file gives it, where that has symbols: written again, and never relied on.
  std::shared_ptr<const Shape> declared;

  Node* producer() const { return producer_; }  // null for graph inputs and initialisers
  std::uint32_t output_index() const { return output_index_; }
  Graph* graph() const { return graph_; }
  bool has_uses() const { return uses_ != nullptr; }
  bool has_one_use() const { return uses_ != nullptr && uses_->next == nullptr; }
  Use* first_use() const { return uses_; }
  std::vector<Use*> uses() const;  // a copy, so that the list may change meanwhile
  void replace_all_uses(Value* with);

  bool is_constant() const { return constant != nullptr; }
  /// A trainable weight of the model: an initialiser, not a Constant node.
  bool is_initializer = false;
  bool is_graph_input = false;

 private:
  friend class Graph;
  friend class Node;
  Node* producer_ = nullptr;
  std::uint32_t output_index_ = 0;
  Graph* graph_ = nullptr;
  Use* uses_ = nullptr;
};

struct Attribute {
  using Graphs = std::vector<std::unique_ptr<Graph>>;
  using Data = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>,
                            std::vector<double>, std::vector<std::string>, TensorPtr,
                            std::vector<TensorPtr>, std::unique_ptr<Graph>, Graphs, Type>;
  std::string name;
  Data data;

  /// A float; or an integer, which writers that have no checker give where a float is meant.
  std::optional<double> number() const;
};

class Node {
 public:
  std::string op_type;
  std::string domain;  // "" for ai.onnx
  std::string name;
  std::string overload;
  std::int64_t opset = 0;          // version of the node's domain that its meaning comes from
  const ops::OpDef* op = nullptr;  // null where unknown
  std::vector<Attribute> attributes;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::string doc_string;
  /// Inference refused it: what it says of itself cannot be relied on, so that nothing rewrites or
  /// lowers it.
  bool unsound = false;

  std::size_t input_count() const { return input_count_; }
  /// Input `i`, or null where it is absent.
  Value* input(std::size_t i) const { return i < input_count_ ? uses_[i].value : nullptr; }
  void set_input(std::size_t i, Value* value);
  void set_inputs(std::span<Value* const> values);
  void add_input(Value* value);
  std::size_t output_count() const { return outputs_.size(); }
  /// Output `i`, or null where it is absent.
  Value* output(std::size_t i) const { return i < outputs_.size() ? outputs_[i] : nullptr; }
  const std::vector<Value*>& outputs() const { return outputs_; }

  const Attribute* attribute(std::string_view attribute_name) const;
  Attribute* attribute(std::string_view attribute_name);
  std::vector<Graph*> subgraphs() const;

  Graph* graph() const { return graph_; }
  Node* next() const { return next_; }
  Node* prev() const { return prev_; }
  bool erased() const { return erased_; }
  bool is(std::string_view type, std::string_view in_domain = "") const {
    return op_type == type && domain == in_domain;
  }
  /// "Conv (node /layer1/conv1/Conv, ai.onnx opset 17)"
  std::string describe() const;

 private:
  friend class Graph;
  friend class Value;
  std::unique_ptr<Use[]> uses_;
  std::size_t input_count_ = 0;
  std::vector<Value*> outputs_;
  Graph* graph_ = nullptr;
  Node* next_ = nullptr;
  Node* prev_ = nullptr;
  bool erased_ = false;
};

/// What a file says of a graph's input or output beside its name, to be written as it was.
struct ValueInfo {
  std::string doc_string;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::string type_proto;  // the bytes of its type: denotations, dims of -1 and 0
  std::string type;        // the type's text as read: the bytes hold while it is the same
  bool open_as_number = false;  // a dim of -1 or 0, which is read as unknown
};

/// Nodes in order, defined before use. Owns its nodes and values.
class Graph {
 public:
  explicit Graph(Model* model, Node* parent = nullptr);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  std::string name;
  std::string doc_string;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<Value*> inputs;        // in IR < 4 some of them are initialisers too
  std::vector<Value*> initializers;  // in the order of the file
  std::vector<std::string> output_names;
  std::vector<Type> output_types;  // as declared
  // Beside `inputs` and `output_names`; empty where no file was read.
  std::vector<ValueInfo> input_infos;
  std::vector<ValueInfo> output_infos;

  Model* model() const { return model_; }
  Node* parent() const { return parent_; }  // the node whose attribute this graph is
  void set_parent(Node* parent) { parent_ = parent; }
  Graph* outer() const { return parent_ ? parent_->graph() : nullptr; }

  Node* first() const { return first_; }
  Node* last() const { return last_; }
  std::size_t node_count() const { return node_count_; }
  /// Its inputs are the graph's outputs.
  Node* return_node() const { return return_node_; }
  std::size_t output_count() const { return return_node_->input_count(); }
  Value* output(std::size_t i) const { return return_node_->input(i); }
  void add_output(Value* value, std::string output_name, Type declared);

  /// A value that no node makes yet: a graph input or an initialiser.
  Value* new_value(std::string value_name);
  Value* add_initializer(std::string value_name, TensorPtr tensor, bool trainable);
  /// A node before `before` (null: at the end) with as many outputs as names; an empty name is an
  /// absent output.
  Node* add_node(std::string op_type, std::string domain, std::span<Value* const> inputs,
                 std::span<const std::string> output_names, Node* before = nullptr);
  /// Removes a node none of whose outputs is used; drops the uses that it and its nested graphs
  /// hold.
  void erase(Node* node);
  void move_before(Node* node, Node* before);

 private:
  void link(Node* node, Node* before);
  void unlink(Node* node);
  void drop_uses();

  Model* model_;
  Node* parent_;
  std::deque<Node> nodes_;
  std::deque<Value> values_;
  Node* first_ = nullptr;
  Node* last_ = nullptr;
  Node* return_node_ = nullptr;
  std::size_t node_count_ = 0;
};

struct ModelInfo {
  std::int64_t ir_version = 0;
  std::string producer_name;
  std::string producer_version;
  std::string domain;
  std::int64_t model_version = 0;
  std::string doc_string;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::map<std::string, std::int64_t> opsets;  // domain ("" for ai.onnx) -> version
  /// Old exporters list all weights among the inputs, as they had to before IR version 4: these are
  /// constants, and not defaults that a caller may change.
  bool weights_are_inputs = false;
  std::map<std::string, std::string> symbols;  // a dimension's symbol -> its name in the file
  std::map<std::string, std::size_t> symbol_attempts;  // a symbol's beginning -> how many have it
  /// A symbol that is none yet for the dimension that the file calls `name`, which is not empty.
  std::string add_symbol(std::string_view name);
};

class Model {
 public:
  explicit Model(std::uint64_t file_bytes = 0)
      : graph(std::make_unique<Graph>(this)), budget_(std::make_unique<Budget>(file_bytes)) {}
  ModelInfo info;
  std::unique_ptr<Graph> graph;
  /// What all stages together may add to the file; charging it changes nothing of the model.
  Budget& budget() const { return *budget_; }
  std::int64_t opset(const std::string& domain) const;
  std::string new_name(
      std::string_view stem);  // a value name that nobody has been given yet by this function

 private:
  std::uint64_t next_id_ = 0;
  std::unique_ptr<Budget> budget_;
};

/// Calls `visit(Node&)` for each node of `graph` and of all graphs nested in it, outer nodes first.
template <typename Visit>
void for_each_node(const Graph& graph, Visit&& visit) {
  for (Node* n = graph.first(); n != nullptr;) {
    Node* next = n->next();
    visit(*n);
    if (!n->erased())
      for (Graph* g : n->subgraphs()) for_each_node(*g, visit);
    n = next;
  }
}

/// The graph as text, one node a line, for tests and `--dump-ir`.
std::string print(const Graph& graph);

}  // namespace onnx2nn::ir
