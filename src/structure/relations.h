// Numbers of a class that follow from another one of it: 4 * dim, dim // 64, kernel_size // 2.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "torch/expr.h"

namespace onnx2nn::structure {

/// What is known of a number in which modules of one class differ.
struct Quantity {
  std::vector<torch::ExprPtr> values;  // in each module; null where a module lacks it
  bool width = false;                  // of a layer: what others are multiples of
  bool both_sides = false;             // of convolutions, whose two sides differ by chance
  std::vector<std::string> names;      // of the arguments that it is
};

/// One quantity by another.
struct Relation {
  enum class Kind : std::uint8_t { Times, Over, Square };
  std::size_t base = 0;
  Kind kind = Kind::Times;
  std::int64_t factor = 1;
  /// Of the base, as it is called there.
  torch::Ex of(const torch::Ex& quantity) const;
};

/// For each quantity, how it follows from one that does not; null for those that stay.
std::vector<std::optional<Relation>> find_relations(const std::vector<Quantity>& quantities);

}  // namespace onnx2nn::structure
