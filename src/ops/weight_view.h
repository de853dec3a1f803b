// What a value is made of, where nodes only cut, join and turn the model's weights: torch's exporters
// bring the gates of nn.LSTM into ONNX's order so. Nothing is read, whatever the weights' size.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_set>
#include <vector>

#include "ir/graph.h"
#include "torch/program.h"

namespace onnx2nn::ops {

/// An array put together from boxes of constants.
class WeightView {
 public:
  using Ints = std::vector<std::int64_t>;

  /// The boxes that make up `value`; nothing where something other than constants has a part in it,
  /// or where it is put together in a way that pieces of a weight cannot say. Nodes between the
  /// constants and the value are added to `nodes`.
  static std::optional<WeightView> of(const ir::Value* value,
                                      std::unordered_set<const ir::Node*>& nodes);

  const Ints& dims() const { return dims_; }
  /// The constants that it is made of.
  std::vector<ir::Value*> leaves() const;
  /// Places `from` to `to` of an axis.
  WeightView slice(std::size_t axis, std::int64_t from, std::int64_t to) const;
  /// Without an axis, at its place `at`.
  WeightView select(std::size_t axis, std::int64_t at) const;
  /// One after the other along an axis; all other dimensions are the same.
  static WeightView concat(const std::vector<WeightView>& parts, std::size_t axis);

  /// The constant that it is as a whole, unchanged but for dimensions of one; or null.
  ir::Value* whole() const;
  /// As pieces of a weight, in order; nothing where it has more than two dimensions, or where boxes lie
  /// beside each other.
  std::optional<std::vector<torch::Piece>> pieces() const;

 private:
  struct Box {
    ir::Value* leaf;
    std::int64_t offset;  // of its first element in the leaf
    Ints start, size;     // its place in the array
    Ints stride;          // elements of the leaf from one place to the next
  };
  static WeightView constant(ir::Value* value);
  static std::optional<WeightView> of(const ir::Value* value,
                                      std::unordered_set<const ir::Node*>& nodes, int& budget);
  static std::optional<WeightView> made_by(const ir::Node& n, std::size_t output, WeightView data);
  WeightView permute(const Ints& perm) const;
  std::optional<WeightView> with_ones(const Ints& dims) const;
  void drop(std::size_t axis);
  void insert(std::size_t axis);

  Ints dims_;
  std::vector<Box> boxes_;
};

}  // namespace onnx2nn::ops
