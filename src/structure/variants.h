// One method for several that differ only in what they are given: attention to oneself and to another
// sequence, with a mask and without.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "structure/tree.h"

namespace onnx2nn::structure {

/// What several methods have in common.
struct Generalised {
  Method method;  // its last `optional` parameters may be None
  /// For each of the methods, the parameter of its own that stands for each parameter of `method`; -1: None.
  std::vector<std::vector<int>> given;
};

/// The least general method of which all are cases, their numbers aside; nothing where there is none, or it
/// has more parameters than its cases explain (Plotkin, A Note on Inductive Generalization, 1970).
std::optional<Generalised> generalised(Tree& tree, const std::vector<const Method*>& methods);

}  // namespace onnx2nn::structure
