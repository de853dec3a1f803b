// What TensorFlow's names say of layers: "model/dense/MatMul".
#pragma once

#include <string>
#include <unordered_map>

#include "ir/graph.h"
#include "torch/program.h"

namespace onnx2nn::ops {

/// Layers of Keras and scopes of TensorFlow, from the names of all nodes together: the model's own name stands
/// before each, operations have scopes inside of their layers, and a traced model counts all its layers.
class TensorflowScopes {
 public:
  explicit TensorflowScopes(const ir::Graph& graph);
  /// The layers around the node, from the root inwards; null where its name says nothing.
  torch::ScopePtr of(const ir::Node& node) const;

 private:
  std::unordered_map<const ir::Node*, torch::ScopePtr> scopes_;
};

}  // namespace onnx2nn::ops
