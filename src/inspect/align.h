// Which node of one graph is which of another.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ir/graph.h"

namespace onnx2nn::inspect {

/// Hashes of what constants hold, each read once and kept nowhere; one that cannot be read has the hash of where it
/// lies.
class Contents {
 public:
  std::uint64_t of(const ir::Tensor& tensor);

 private:
  std::unordered_map<const ir::Tensor*, std::uint64_t> known_;
};

/// An operator with its attributes that are not at their defaults, nested graphs included; not its name and operands.
std::uint64_t signature_of(const ir::Node& node, Contents& contents);

struct Alignment {
  /// Nodes of both graphs, of nested ones as well, in the order of the first.
  std::vector<std::pair<const ir::Node*, const ir::Node*>> pairs;
  std::unordered_map<const ir::Node*, const ir::Node*> to_second;
  std::unordered_map<const ir::Node*, const ir::Node*> to_first;
  std::vector<const ir::Node*> removed;  // of the first alone
  std::vector<const ir::Node*> added;    // of the second alone
};

/// Nodes of one operator that stand for each other. First those with the same operands all the way up to inputs and
/// constants, then those that read the same weights; from these on along the edges, past a few nodes that only one
/// graph has; in the end those of the same names, and from these on again. Takes time in proportion to nodes and edges.
Alignment align(const ir::Graph& first, const ir::Graph& second, Contents& contents);

}  // namespace onnx2nn::inspect
