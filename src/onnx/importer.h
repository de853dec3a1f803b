// From messages to graphs: functions and gradients inlined, nodes put in order.
// Private to reader.cpp (model, graphs) and to import_nodes.cpp, import_order.cpp, import_types.cpp and
// import_attributes.cpp.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "onnx/node_message.h"
#include "onnx/reader.h"
#include "onnx/tensor_reader.h"
#include "onnx/wire.h"

namespace onnx2nn::onnx {

using ir::Attribute;
using ir::DType;
using ir::Graph;
using ir::Node;
using ir::Type;
using ir::Value;
using wire::Reader;

// Graphs in graphs, functions in functions, types in types: a real model needs three or four.
inline constexpr int kMaxDepth = 48;

using AttributesByName = std::unordered_map<std::string_view, Reader>;

struct Function {
  std::string_view name, domain, overload;
  std::vector<std::string_view> inputs, outputs;
  std::vector<RawNode> nodes;
  AttributesByName attribute_defaults;
  std::map<std::string, std::int64_t> opsets;
};

/// Attributes of the node that calls a function, for `ref_attr_name`.
struct CallAttributes {
  AttributesByName given;
  const AttributesByName* defaults = nullptr;
  const CallAttributes* outer = nullptr;
};

/// Names that a graph can see: its own, then its outer graphs'.
struct Scope {
  std::unordered_map<std::string_view, Value*> values;
  const Scope* outer = nullptr;
  const std::vector<RawNode>* nodes = nullptr;
  std::unordered_map<std::string_view, std::size_t> producers;  // indices of nodes
  Value* find(std::string_view name) const {
    for (const Scope* s = this; s != nullptr; s = s->outer)
      if (const auto it = s->values.find(name); it != s->values.end()) return it->second;
    return nullptr;
  }
};

class Importer {
 public:
  Importer(std::shared_ptr<const InputFile> file, const ReadOptions& options,
           Diagnostics& diagnostics);
  std::unique_ptr<ir::Model> run();

 private:
  bool weights_are_inputs() const;
  void read_function(Reader m);
  static std::string function_key(std::string_view domain, std::string_view name,
                                  std::string_view overload);

  // -------------------------------------------------------------- types
  ir::Dim dim_symbol(std::string_view name);
  ir::Shape read_shape(Reader m);
  DType read_dtype(Reader& m);
  Type read_type(Reader m, int depth);
  struct NamedType {
    std::string_view name;
    Type type;
    ir::ValueInfo info;
  };
  NamedType read_value_info(Reader m);
  static Type without_symbols(Type type);

  // -------------------------------------------------------------- graphs
  enum class WeightKind : std::uint8_t { Unsaid, Weight, Constant };
  /// What torch's exporter notes of what its module had: a buffer that was no entry of the state_dict,
  /// or a tensor in the code, is a constant.
  static WeightKind weight_kind(const ir::ValueInfo& info);
  /// Of what the exporter tells nothing, where it tells of others, it computed itself. The weights of
  /// layers are among it, transposed.
  static void find_constants(const Graph& graph,
                             const std::unordered_map<std::string_view, WeightKind>& kinds);
  void read_graph(Reader m, Graph& graph, Scope& scope, const CallAttributes& call, int depth);
  /// Some exporters list outputs of the model that no node makes.
  void drop_undefined(std::vector<NamedType>& outputs, const Scope& scope);

  // -------------------------------------------------------------- nodes
  /// The name where it stays, for keys that are views.
  std::string_view keep(const std::string& name);
  /// Adds `nodes` in an order in which everything is defined before it is used.
  void add_nodes(Graph& graph, const std::vector<RawNode>& nodes, Scope& scope,
                 const CallAttributes& call, const std::map<std::string, std::int64_t>& opsets,
                 const std::string& prefix, int depth);
  /// The names that a node reads: its inputs, what its nested graphs capture, Gradient's target.
  std::vector<std::string_view> used_names(const RawNode& n, int depth);
  // Names that a nested graph uses and that are defined outside of it.
  void captured_names(Reader graph, std::vector<std::string_view>& out, int depth);
  void captured_in_attribute(Reader a, std::vector<std::string_view>& out, int depth);
  std::vector<std::size_t> topological_order(const std::vector<RawNode>& nodes,
                                             Scope& scope);
  void add_node(Graph& graph, const RawNode& raw, Scope& scope, const CallAttributes& call,
                const std::map<std::string, std::int64_t>& opsets, const std::string& prefix,
                int depth);
  /// The branches of an If have no inputs; some writers list what they use of the graph around, or
  /// their own initialisers.
  static void bind_branch_inputs(Graph& branch, const Scope& scope);
  /// Gradient differentiates the part of the graph between the values that its attributes name: that
  /// part once more, as a graph whose inputs they are.
  std::unique_ptr<Graph> differentiated(Node& owner, std::string_view target, const Scope& scope,
                                        const CallAttributes& call,
                                        const std::map<std::string, std::int64_t>& opsets,
                                        int depth);
  /// Adds what computes `target` from the values that `scope` holds already.
  void add_nodes_between(Graph& graph, std::string_view target, Scope& scope,
                         const CallAttributes& call,
                         const std::map<std::string, std::int64_t>& opsets, int depth);
  void inline_function(Graph& graph, const Function& f, const RawNode& raw,
                       const std::vector<Value*>& inputs, Scope& scope, const CallAttributes& call,
                       const std::string& prefix, int depth);
  /// Nodes that the file lists may be many; those that functions and gradients make of them are
  /// limited, and so is what they copy.
  RawNode read_listed_node(Reader m);
  void charge(const RawNode& raw, const std::string& prefix);

  // -------------------------------------------------------------- attributes
  /// What a Constant's attribute holds, which its name promises and its type may not keep.
  template <typename T>
  static const T& held(const Attribute& a) {
    const T* value = std::get_if<T>(&a.data);
    if (value == nullptr)
      fail("bad-model", "Constant: the attribute {} has the wrong type", a.name);
    return *value;
  }
  ir::TensorPtr constant_tensor(const RawNode& raw, const CallAttributes& call, int depth);
  /// The attribute, or nothing where it refers to one that the function's caller did not give, or
  /// holds graphs and has no `owner`.
  std::optional<Attribute> read_attribute(Reader m, Node* owner, Graph* graph, const Scope& scope,
                                          const CallAttributes& call, int depth);
  std::unique_ptr<Graph> nested(Reader m, Node* owner, const Scope& scope,
                                const CallAttributes& call, int depth);

  std::shared_ptr<const InputFile> file_;
  std::unique_ptr<ir::Model> model_;
  TensorReader tensors_;
  const std::map<std::string, std::int64_t>* opsets_ = nullptr;
  bool open_as_number_ = false;  // in the type that is being read
  std::map<std::string, Function> functions_;
  std::map<std::string, std::string> symbols_;
  std::set<std::string> kept_;
  std::unordered_set<Value*> renamed_;
  std::size_t inlined_ = 0;
  bool drop_undefined_outputs_;
  Diagnostics& diagnostics_;
};

}  // namespace onnx2nn::onnx
