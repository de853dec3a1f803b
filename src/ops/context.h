// What the hooks of an operator see: its node, with defaults, checks and types at hand.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "ops/op.h"
#include "support/error.h"
#include "torch/program.h"

namespace onnx2nn::ops {

using ir::Dim;
using ir::Dims;
using ir::DType;
using ir::Shape;
using ir::Type;
using Ints = std::vector<std::int64_t>;

/// Reading a node. Attribute accessors record what was read: an attribute that no lowering reads is
/// an error.
class NodeContext {
 public:
  explicit NodeContext(const ir::Node& node);

  const ir::Node& node() const { return node_; }
  /// The version of the node's domain that its meaning comes from.
  std::int64_t opset() const { return opset_; }
  /// A node of another domain means what `opset` of ai.onnx does: before its hooks are called for
  /// it.
  void read_as(std::int64_t opset) { opset_ = opset; }
  [[noreturn]] void fail(const std::string& message, const std::string& hint = "") const;
  /// An attribute or form of the operator that is not supported.
  [[noreturn]] void unsupported(const std::string& message, const std::string& hint = "") const;

  // Inputs: absent ones have no value, type Unknown, unknown shape.
  std::size_t input_count() const { return node_.input_count(); }
  std::size_t output_count() const { return node_.output_count(); }
  ir::Value* input(std::size_t i) const { return node_.input(i); }
  bool has_input(std::size_t i) const { return input(i) != nullptr; }
  bool has_output(std::size_t i) const { return node_.output(i) != nullptr; }
  const Type& type(std::size_t i) const;
  DType dtype(std::size_t i) const { return type(i).dtype; }
  const Shape& shape(std::size_t i) const { return type(i).shape; }
  std::optional<std::size_t> rank(std::size_t i) const;
  /// Input `i`'s rank; an Error where it is unknown.
  std::size_t known_rank(std::size_t i) const;
  /// The constant value of input `i`, or null.
  const ir::Tensor* constant(std::size_t i) const;
  /// The integers of a constant input; nothing where it is absent or not constant.
  std::optional<Ints> const_ints(std::size_t i) const;
  /// The elements of an integer input of rank 0 or 1 as far as they are known.
  std::optional<Dims> contents(std::size_t i) const;

  // Attributes.
  bool has_attr(std::string_view name) const;
  std::int64_t attr_int(std::string_view name, std::int64_t otherwise) const;
  std::int64_t attr_int(std::string_view name) const;  // required
  double attr_float(std::string_view name, double otherwise) const;
  std::string attr_string(std::string_view name, std::string_view otherwise) const;
  std::optional<Ints> attr_ints(std::string_view name) const;
  std::optional<std::vector<double>> attr_floats(std::string_view name) const;
  std::optional<std::vector<std::string>> attr_strings(std::string_view name) const;
  ir::TensorPtr attr_tensor(std::string_view name) const;  // or null
  ir::Graph* attr_graph(std::string_view name) const;      // required
  DType attr_dtype(std::string_view name, DType otherwise) const;
  /// Marks an attribute as read whose value does not matter here.
  void ignore_attr(std::string_view name) const { find(name); }
  /// Integers that were an attribute in older opsets and are input `i` in newer ones.
  /// Nothing where neither is given, or where the input is not constant (see has_ints).
  std::optional<Ints> ints(std::string_view attribute, std::size_t i) const;
  /// Whether the attribute or the input is given at all.
  bool has_ints(std::string_view attribute, std::size_t i) const;
  /// A normalised axis in [0, rank); an Error where it is out of range.
  std::int64_t axis(std::int64_t axis, std::size_t rank) const;
  Ints axes(Ints axes, std::size_t rank) const;
  /// Says of each axis whether it is in `list`.
  std::vector<bool> axis_mask(const Ints& list, std::size_t rank) const;

  /// Names of attributes that nothing has read.
  std::vector<std::string> unread_attributes() const;

 protected:
  const ir::Attribute* find(std::string_view name) const;
  template <typename T>
  const T* get(std::string_view name) const;

  const ir::Node& node_;
  std::int64_t opset_;
  mutable std::vector<bool> read_;
};

/// Both shapes under multidirectional broadcasting; unknown rank where one has none.
Shape broadcast(const Shape& a, const Shape& b);
Dim broadcast(const Dim& a, const Dim& b);

/// Whether `d` cannot be below zero: symbols are sizes of tensors, and so is what is added,
/// multiplied and divided from them.
bool is_not_negative(const Dim& d);

struct Inference;

class InferContext : public NodeContext {
 public:
  InferContext(const ir::Node& node, Inference& inference)
      : NodeContext(node), inference_(inference) {}
  /// Says what output `i` is; absent outputs are passed over.
  void set(std::size_t i, Type type);
  void set(std::size_t i, DType dtype, Shape shape = {}) {
    set(i, Type::tensor(dtype, std::move(shape)));
  }
  /// The elements of an integer output of rank 0 or 1. Unknown elements are allowed.
  void set_contents(std::size_t i, Dims contents);
  /// Infers a nested graph, whose inputs' types have been set. Errors go to `found` where it is
  /// given.
  void infer_graph(ir::Graph& graph, Diagnostics* found = nullptr);
  /// So much has been inferred that nothing more is to be inferred twice.
  bool in_a_hurry() const;
  /// A symbol that nothing else has.
  Dim fresh_symbol();
  /// `type` without the dimensions that only say something in terms of symbols made since `mark`.
  std::uint64_t mark() const;
  Type without_symbols_since(std::uint64_t mark, Type type) const;

 private:
  Inference& inference_;
};

/// Infers all of `graph`, nested graphs too. Dimensions that stay unknown get a fresh symbol each,
/// so that what is computed from them stays an expression. Errors go to `diagnostics` with their
/// node.
void infer_graph(ir::Graph& graph, Diagnostics& diagnostics);

class FoldContext : public NodeContext {
 public:
  using NodeContext::NodeContext;
  bool all_constant() const;  // every present input
  const ir::TensorPtr& tensor(std::size_t i) const { return input(i)->constant; }
  void set(std::size_t i, ir::TensorPtr tensor);
  /// Output `i` is the existing `value`.
  void set(std::size_t i, ir::Value* value);
  struct Result {
    ir::TensorPtr tensor;
    ir::Value* value = nullptr;
  };
  std::vector<Result> results;
};

/// "Conv (node x, ai.onnx opset 17)" with the inputs' types, as a diagnostic.
Diagnostic diagnose(const ir::Node& node, const Error& error);

}  // namespace onnx2nn::ops
