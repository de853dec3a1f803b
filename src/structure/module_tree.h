// The first steps together: from the lowered function to the tree of modules.
#pragma once

#include <unordered_set>

#include "structure/tree.h"

namespace onnx2nn::structure {

/// The modules with their methods and members; `shared` is what find_repeats says. Throws Clash where
/// names make it impossible.
Tree module_tree(const torch::Program& program,
                 const std::unordered_set<const torch::Param*>& shared);

}  // namespace onnx2nn::structure
