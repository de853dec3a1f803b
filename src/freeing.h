// What the nodes of a graph need, and which of them cannot, where dims of its inputs become symbols.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/graph.h"

namespace onnx2nn {

std::string quoted_name(std::string_view name);
/// The numbers of a small integer tensor, where all are known.
std::optional<std::vector<std::int64_t>> known_ints(const ir::Value* v);

/// One walk over a graph whose inputs have been opened.
class Freeing {
 public:
  struct Freed {
    ir::Value* input = nullptr;
    std::size_t axis = 0;
    std::int64_t size = 0;
    bool is_batch = false;
  };
  Freeing(ir::Model& model, std::map<std::string, Freed> freed);
  ir::Node* visit(ir::Node& n);
  bool depends(const ir::Dim& d) const;

 private:
  using Dim = ir::Dim;
  using Dims = ir::Dims;
  using Ints = std::vector<std::int64_t>;

  /// The size that a dim had before; nothing where that is not known.
  std::optional<std::int64_t> original(const Dim& d) const;
  bool is_batch(const Dim& d) const;
  /// The dims of an input where some of them have been opened; else null.
  const Dims* opened(const ir::Value* v) const;
  ir::Value* constant(const Ints& values);
  ir::Value* add(const char* type, const std::vector<ir::Value*>& inputs, ir::Node& before,
                 std::optional<std::int64_t> axis = {});
  /// The size of a freed dim as a tensor of one element.
  ir::Value* count_of(const Dim& d, ir::Node& before);
  /// `dims` as a tensor; those that are open are sizes of inputs.
  ir::Value* vector_of(const Dims& dims, ir::Node& before);

  // ---- What repeats a size ----
  void reshape(ir::Node& n);
  /// What a target of Reshape means for any size: dims in groups of equal products, each open dim in
  /// the place of its group that had its size.
  Dims target(const Dims& from, const Ints& asked, bool keeps_zero) const;
  /// Whether the next dims of a target are parts of the next dims of a tensor.
  bool splits(const Dims& x, std::size_t i, const Ints& sizes, std::size_t j) const;
  /// Says the sizes of a group of a target, of which one follows from what is open in the tensor.
  void place(const Dims& x, std::size_t i0, std::size_t i1, Dims& out, std::size_t j0,
             std::size_t j1) const;
  void expand(ir::Node& n);
  void slice(ir::Node& n);
  void resize(ir::Node& n);

  // ---- What is there once a row ----
  void concat(ir::Node& n);
  void recurrent(ir::Node& n);
  /// Gives input `k`, which has a row for each of a fixed number, one for each of an open number.
  void spread(ir::Node& n, std::size_t k, std::size_t axis, const Dim& to);
  /// Whether all rows of a value along an axis are known to be equal.
  static bool has_one_row(const ir::Value* v, std::size_t axis);
  /// The row that all rows of a value are equal to.
  ir::Value* first_row(ir::Node& n, ir::Value* v, std::size_t axis);
  void broadcasts(ir::Node& n);

  // ---- What cannot do with any size ----
  void takes_apart(ir::Node& n);
  void sums(ir::Node& n);

  ir::Model& model_;
  std::map<std::string, Freed> freed_;
  ir::Node* first_ = nullptr;
};

}  // namespace onnx2nn
