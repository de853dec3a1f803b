// What is in a graph: parameters, multiply-adds and memory, by node, by operator and by block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace onnx2nn::inspect {

/// A sum of which some parts may be unknown.
struct Count {
  ir::Dim known = 0;        // the sum of the others
  std::size_t unknown = 0;  // how many are
  void add(const ir::Dim& part);
  /// The sum, where all of it is known.
  ir::Dim all() const { return unknown == 0 ? known : ir::Dim::unknown(); }
};

struct Figures {
  std::size_t nodes = 0;
  std::uint64_t parameters = 0;
  Count multiply_adds;
  Count activation_bytes;  // of all outputs
};

struct NodeFigures {
  const ir::Node* node = nullptr;
  ir::Dim multiply_adds;  // of one run
};

struct BlockFigures {
  std::string path;       // of its module: "encoder.layer.0"
  std::size_t outer = 0;  // as much of it is the path of the block around
  std::size_t depth = 0;  // blocks around it and itself
  std::string type;       // its class, where the file says it
  Figures figures;
};

struct Weights {
  std::size_t tensors = 0;
  std::uint64_t elements = 0;
  std::uint64_t bytes = 0;
};

struct Facts {
  Figures total;
  /// Most bytes of values that are needed at one time, with nodes in the file's order and each value in memory of
  /// its own, from when it is made (an input: from the start) until its last reader is done. Unknown where it depends
  /// on sizes which time that is.
  ir::Dim peak_bytes;
  std::map<std::string, Figures> by_operator;  // "Conv", "com.microsoft::Attention", in UTF-8
  std::vector<BlockFigures> blocks;            // in the order of their first nodes, outer ones first
  std::map<std::string, Weights> weights;      // constants by element type
  std::vector<const ir::Value*> unused_inputs;
  std::vector<const ir::Value*> unused_initializers;
  std::vector<NodeFigures> nodes;  // those of nested graphs behind the one that holds them
};

/// Facts about a graph whose types have been inferred.
Facts facts_of(const ir::Graph& graph);

/// Whether the elements of a constant are parameters: real or complex numbers, or quantised ones of up to eight
/// bits, and no sizes, indices or switches.
bool is_parameter(ir::DType dtype);

}  // namespace onnx2nn::inspect
