// How many products a node adds up.
#pragma once

#include <unordered_map>

#include "ir/graph.h"

namespace onnx2nn::inspect {

/// Multiply-adds of convolutions, products of matrices, attention and recurrent layers, which is where the work
/// is; what goes element by element counts as none. An expression where sizes are; unknown where a size is
/// not known, the operator is not, or the count depends on data. Types must have been inferred.
class MultiplyAdds {
 public:
  /// Of one run of the node, its nested graphs included.
  ir::Dim of(const ir::Node& node);
  /// How often a run of `node` runs its nested graph `body`; unknown where data decides.
  ir::Dim runs(const ir::Node& node, const ir::Graph& body);

 private:
  ir::Dim of(const ir::Graph& graph);

  std::unordered_map<const ir::Graph*, ir::Dim> graphs_;
};

/// `count`, `often` times; nothing is nothing, however often.
ir::Dim times(const ir::Dim& count, const ir::Dim& often);

/// Whether the dim is a number or an expression over symbols of the file.
bool is_said(const ir::Dim& dim);

}  // namespace onnx2nn::inspect
