// Lowering: from the graph to the torch program. LowerContext is what an operator's `lower` sees.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ops/context.h"
#include "ops/keys.h"
#include "support/checked.h"
#include "torch/program.h"

namespace onnx2nn::ops {

using torch::Args;
using torch::aten;
using torch::call;
using torch::Ex;
using torch::helper;
using torch::kNone;
using torch::Kwargs;
using torch::list;
using torch::op;

struct LowerOptions {
  std::string class_name;
  bool allow_unknown = false;
  /// Functions that users supply for operators: (domain, type) -> name.
  std::map<std::pair<std::string, std::string>, std::string> custom;
};

/// What an ONNX value has become: a Python expression, or Python integers.
struct Lowered {
  Ex ex;  // a tensor, sequence, ...; unset where host
  bool host =
      false;  // `elements` are Python integers; the value itself is made only where it is needed
  std::vector<Ex> elements;
};

/// A weight of a module under construction.
struct ModuleParam {
  std::string name;            // in the module: "weight"
  const ir::Value* value = nullptr;  // a weight; null: `tensor` is its value
  bool transpose = false;
  std::vector<std::int64_t> shape;  // as the module has it; empty: the tensor's (transposed)
  ir::TensorPtr tensor;
  bool buffer = false;
  /// What it is put together from, where it is no tensor as it is.
  std::vector<torch::Piece> pieces;
};

/// A weight that the file holds in integers: (integers - zero_point) * scale, computed in float32.
struct QuantizedWeight {
  const ir::Value* integers = nullptr;  // a constant, which names the weight
  ir::TensorPtr scale;       // of the weight's rank, or one element; its dtype is the weight's
  ir::TensorPtr zero_point;  // of the same shape; null for zero
  const ir::Value* same_as = nullptr;  // the first value that was made so
};

/// What modules ask of a weight before they take it.
struct WeightType {
  DType dtype = DType::Undefined;
  Ints dims;
  std::size_t rank() const { return dims.size(); }
  std::int64_t size() const { return element_count(dims); }
};

/// State of one lowering: the program that grows, and what values have become.
class Lowering {
 public:
  Lowering(const ir::Model& model, LowerOptions options, Diagnostics& diagnostics);
  torch::Program run();

  torch::Block lower_block(const ir::Graph& graph, const std::vector<Lowered>& inputs,
                           std::vector<Lowered>& outputs);
  /// Lowers a nested graph without inputs into the current block.
  void lower_inline(const ir::Graph& graph, std::vector<Lowered>& outputs);

 private:
  friend class LowerContext;
  void lower_nodes(const ir::Graph& graph);
  void lower_node(const ir::Node& node);
  bool is_unknown(const ir::Node& node) const;
  void report_unknown(const ir::Node& node);
  void check_attributes(const NodeContext& c);
  bool lower_as_integers(const ir::Node& node);
  void define(const ir::Value* value, Lowered lowered);
  void bind_symbol(const std::string& symbol, const ir::Value* value, std::int64_t dim);
  void bind_symbols(const ir::Value* value);
  Lowered lowered(const ir::Value* value);
  Ex tensor_of(const ir::Value* value);
  Ex materialise(const Lowered& lowered, DType dtype, bool scalar);
  std::optional<Ex> integer(const Dim& dim);
  bool is_counted(const Dim& dim) const;
  Ex device();
  torch::VarPtr new_var(std::string hint, const ir::Value* value);
  torch::ParamPtr param_of(const ir::Value* value);
  /// Constant, or made of constants by a node that `load` does the work of.
  bool is_weight(const ir::Value* value) const;
  /// The first of the values that are one weight in integers; else the value itself.
  const ir::Value* first_of(const ir::Value* value) const;
  std::optional<WeightType> weight_type(const ir::Value* value) const;
  bool is_as_authored(const ir::Value* value) const;
  /// The weight's name as its author had it; the constant that has it.
  std::string weight_name(const ir::Value* value) const;
  const ir::Value* named(const ir::Value* value) const;
  /// Sets what a parameter, whose path and layout are known, is stored as.
  void store(const torch::ParamPtr& param, const ir::Value* value);
  Ex param_expr(const torch::ParamPtr& param);
  /// A new buffer of the module, as an expression.
  Ex buffer(std::string_view hint, const ir::TensorPtr& tensor);
  Ex constant_expr(std::string_view hint, const Ex& value);
  void name_rest();
  void tie_rest();
  void tie_to_inner(const std::vector<Path>& left);
  void tie_to_embedding(const std::vector<Path>& left);
  torch::Port port(const ir::Value* value, const std::string& onnx_name, const Type& type);

  const ir::Model& model_;
  Keys keys_;
  std::string_view producer_;  // empty also where it wrote none of the names
  LowerOptions options_;
  Diagnostics& diagnostics_;
  torch::Program program_;
  torch::Block* block_ = nullptr;
  const ir::Node* node_ = nullptr;
  std::unordered_map<const ir::Value*, Lowered> values_;
  std::unordered_map<const ir::Node*, bool> done_;  // nodes that another node's lowering took along
  std::map<std::string, std::pair<const ir::Value*, std::int64_t>> symbols_;
  std::vector<std::string> bound_;  // of symbols_, in the order in which they became known
  std::unordered_map<const ir::Value*, torch::ParamPtr> params_;
  std::unordered_map<const ir::Value*, bool> in_module_;
  std::unordered_map<const ir::Value*, QuantizedWeight> quantized_;
  std::map<std::string, torch::ModulePtr> modules_by_key_;
  std::unordered_map<std::string, std::size_t> shared_;  // of the forward, by what is computed
  std::set<Path> lent_;  // modules that lend their weights to those which are called
  /// A weight or constant that gets its path when all others have theirs.
  struct Unnamed {
    std::shared_ptr<const void> what;
    std::vector<std::string>* path;
    std::string hint;  // empty: as what reads it first takes it
  };
  std::vector<Unnamed> unnamed_;
  int next_var_ = 0;
  std::unordered_set<const ir::Node*> reported_;  // as unknown operators
};

class LowerContext : public NodeContext {
 public:
  LowerContext(const ir::Node& node, Lowering& lowering) : NodeContext(node), l_(lowering) {}

  // ---- inputs
  /// Input `i` as a tensor (or sequence, ...); None where it is absent.
  Ex in(std::size_t i);
  /// A value that is known already, though no input of this node.
  Ex value(const ir::Value* value) { return l_.tensor_of(value); }
  /// The same, but a constant of one element and rank 0 is a Python number: for the operand of an
  /// elementwise operator whose other operand is a tensor of the same dtype.
  Ex operand(std::size_t i);
  bool is_scalar_constant(std::size_t i) const;
  /// An integer input of rank 0 or 1 as a Python list of integers.
  Ex int_list(std::size_t i);
  /// Its elements, where their number is known.
  std::optional<std::vector<Ex>> int_elements(std::size_t i);
  /// An integer input of one element as a Python integer.
  Ex int_scalar(std::size_t i);
  /// A constant float or integer input of one element as a Python number, else a tensor's
  /// `.item()`-free expression: nothing where it is not constant.
  std::optional<double> const_number(std::size_t i) const;
  /// The size of input `i` along `axis`: a number where it is fixed.
  Ex dim(std::size_t i, std::int64_t axis);
  /// `dim` as a Python expression, where its symbols have been seen.
  std::optional<Ex> integer(const Dim& dim) { return l_.integer(dim); }
  /// Whether a node and not an input decides about `dim`: how many elements were not zero, say.
  bool is_counted(const Dim& dim) const { return l_.is_counted(dim); }
  /// Sizes of a shape as Python integers, where all can be said.
  std::optional<std::vector<Ex>> sizes(const Shape& shape);
  /// The device on which new tensors are made: that of the first tensor input. None where there is
  /// none.
  Ex device() { return l_.device(); }
  bool is_constant(std::size_t i) const { return constant(i) != nullptr; }

  /// Where the first of these inputs holds strings, which torch cannot move: `in` gives the numbers
  /// of their places instead, and `out` takes the strings from where those have gone. 0 is "".
  void carry_strings(std::initializer_list<std::size_t> inputs);

  // ---- outputs
  /// Output `i` is `value`: a new variable.
  void out(std::size_t i, const Ex& value);
  /// Several outputs from one call that returns a tuple; absent outputs are discarded. size: of the
  /// tuple, where a node may leave out the last outputs.
  void outs(const Ex& tuple, std::size_t size = 0);
  /// Output `i` is what the expression already says, with no variable of its own (an alias).
  void alias(std::size_t i, const Ex& value);
  /// What output `i` has been set to.
  Ex result(std::size_t i) { return l_.lowered(node_.output(i)).ex; }
  /// A helper variable.
  Ex let(const Ex& value, std::string hint = "t");
  /// A helper variable that all nodes which compute the same have in common; `type` is its annotation where it
  /// is an argument.
  Ex shared(const Ex& value, std::string hint, const char* type = "Tensor");
  /// The variable that was set last, a sum of inputs 0 and 1 which the node goes on with. It is of the module
  /// that both come from, where the node's own is none further out: of the block before a norm.
  Ex residual(const Ex& sum);
  /// Several helper variables from one tuple.
  std::vector<Ex> lets(const Ex& tuple, const std::vector<std::string>& hints);
  /// Takes another node along: its output 0 is `value`, and it is not lowered by itself.
  void absorb(const ir::Node& other, const Ex& value);
  /// Where output 0 is used once, by `type` in the default domain, and is no graph output: that
  /// node.
  const ir::Node* only_user(std::string_view type) const;
  void emit(torch::Stmt statement);

  // ---- weights
  /// Input `i` as a weight: a constant, or one that is stored in integers.
  std::optional<WeightType> weight(std::size_t i) const { return l_.weight_type(input(i)); }
  std::optional<WeightType> weight_type(const ir::Value* value) const {
    return l_.weight_type(value);
  }
  /// Whether the file says that the node is of a module of this class: by its name, or as one with weights
  /// and without modules inside.
  bool is_layer(std::string_view type) const;
  /// Whether the weight lies as its author had it, whose name for it the file keeps.
  bool is_as_authored(const ir::Value* value) const { return l_.is_as_authored(value); }
  /// Whether the author's module that the node is of has a weight of this name.
  bool scope_has(std::string_view name) const;
  /// Output 0 is a weight that is stored so.
  void keep_quantized(QuantizedWeight weight);
  /// A call of a torch.nn module with these weights; nothing where a weight is not constant or is
  /// shared in a way that a module cannot say (then use the function instead). stem: what it is called
  /// where the file says only which module it is in.
  std::optional<Ex> module(const std::string& type, const Args& args, const Kwargs& keywords,
                           const std::vector<ModuleParam>& params, const Args& call_args,
                           const std::string& stem = "");
  /// Input `i`, a constant, as the weight `name` of the module around the node, which has it with these
  /// dimensions.
  Ex own_weight(std::size_t i, const std::string& name, const Ints& dims);
  /// `size` elements of a constant vector from `offset` on, as the weight `name` of the module around the
  /// node; nothing where the author's had none, or where the file does not say whose the node is.
  std::optional<Ex> own_part(const ir::Value* value, const std::string& name, std::int64_t offset,
                             std::int64_t size);
  /// A tensor that the lowering computed itself, kept as a buffer.
  Ex buffer(std::string_view hint, ir::TensorPtr tensor);
  /// A Python value (a list of strings, say) kept in __init__.
  Ex constant_value(std::string_view hint, const Ex& value) {
    return l_.constant_expr(hint, value);
  }

  // ---- nested graphs
  torch::Block block(const ir::Graph& graph, const std::vector<Lowered>& inputs,
                     std::vector<Lowered>& outputs) {
    return l_.lower_block(graph, inputs, outputs);
  }
  void inline_graph(const ir::Graph& graph, std::vector<Lowered>& outputs) {
    l_.lower_inline(graph, outputs);
  }
  Lowered lowered(std::size_t i) { return l_.lowered(input(i)); }
  Ex materialise(const Lowered& lowered, DType dtype, bool scalar) {
    return l_.materialise(lowered, dtype, scalar);
  }
  torch::VarPtr new_var(std::string hint, const ir::Value* value = nullptr) {
    return l_.new_var(std::move(hint), value);
  }
  void define(const ir::Value* value, Lowered lowered) { l_.define(value, std::move(lowered)); }

 private:
  class Layer;
  /// An output's value, strings again where places were moved.
  Ex carried(const Ex& value);

  Lowering& l_;
  std::map<std::size_t, Ex> places_;  // what `in` gives instead, by input
  Args strings_;                      // the strings that they are places of
};

/// The bytes as torch holds them: sub-byte types widened.
ir::TensorPtr widen(const ir::TensorPtr& tensor);
/// ATen's spelling of a constant's element as a Python number.
Ex number(const ir::Tensor& tensor, std::int64_t i = 0);
/// Nested Python lists of a small constant.
Ex nested_list(const ir::Tensor& tensor);

}  // namespace onnx2nn::ops
