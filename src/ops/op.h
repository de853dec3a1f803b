// A row of the operator table: everything that the project knows about one ONNX operator.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace onnx2nn::ops {

class InferContext;
class FoldContext;
class LowerContext;

struct OpDef {
  std::string_view type;
  std::string_view domain = "";  // "" is ai.onnx
  /// The opsets in which the meaning changed, the first being where the operator appeared; zeros
  /// pad.
  std::array<std::int16_t, 12> changed_at{};
  bool nondeterministic = false;  // never folded, never merged
  /// Of a layout that a runtime keeps to itself: passes/layouts.cpp says it in ai.onnx before it
  /// would be lowered.
  bool other_layout = false;
  /// Says types, shapes and integer contents of the outputs: all that it knows, nothing that it
  /// guesses.
  void (*infer)(InferContext&) = nullptr;
  /// Computes the outputs from constant inputs, or names an existing value that an output equals;
  /// creates no nodes. Returns whether it did.
  bool (*fold)(FoldContext&) = nullptr;
  /// Emits the torch program's calls.
  void (*lower)(LowerContext&) = nullptr;
};

/// The table's row for an operator, or null. `domain` "" is ai.onnx.
const OpDef* find_op(std::string_view domain, std::string_view type);
/// All families, in a fixed order.
std::span<const std::span<const OpDef>> all_families();

}  // namespace onnx2nn::ops
