// How much a model may add to what its file holds. Functions are inlined, constants folded, sizes
// multiplied out: a few bytes can ask for gigabytes. One budget for the whole model answers, whose
// limits are in proportion to the file; who makes something charges it here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace onnx2nn {

enum class Resource : std::uint8_t {
  Nodes,        // of the graph and of all nested graphs, as functions and gradients multiply them
  Bytes,        // of names, attributes and tensors that reading copies or expands
  Folded,       // bytes of constants that folding makes
  Steps,        // bytes that folding reads and makes, and terms of the sums that it computes
  Inferences,   // of a node's types, which bodies of loops need several of
  Expressions,  // terms and factors of the dimensions that one inference keeps
  Rewrites,     // by rules
  Source,       // bytes of emitted source
};
inline constexpr std::size_t kResourceCount = 8;

class Budget {
 public:
  /// Limits for a file of so many bytes.
  explicit Budget(std::uint64_t file_bytes = 0) : bytes_(file_bytes) {}

  /// A file beside the model's own, or nodes that a file lists: the limits grow with both.
  void add_file(std::uint64_t bytes);
  void add_listed_nodes(std::uint64_t count);

  /// Takes `amount`; an Error "too-large" that names `who` where so much is not left.
  void charge(Resource resource, std::uint64_t amount, std::string_view who);
  /// As charge, and takes nothing.
  void check(Resource resource, std::uint64_t amount, std::string_view who) const;
  /// Takes `amount` and says true; where so much is not left, takes nothing: for what a model can
  /// do without.
  bool take(Resource resource, std::uint64_t amount);
  /// Takes `amount`, or what is left of it: for what has been done already.
  void spend(Resource resource, std::uint64_t amount);
  std::uint64_t left(Resource resource) const;
  /// What was taken is given back: the next run begins anew.
  void restart(Resource resource) { used_[index(resource)] = 0; }

 private:
  static std::size_t index(Resource resource) { return static_cast<std::size_t>(resource); }
  std::uint64_t limit(Resource resource) const;

  std::uint64_t bytes_;
  std::uint64_t listed_nodes_ = 0;
  std::array<std::uint64_t, kResourceCount> used_{};
};

}  // namespace onnx2nn
