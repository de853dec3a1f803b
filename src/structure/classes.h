// The step `classes`: modules with equal bodies share one class, and the numbers in which they differ
// are its constructor's parameters.
#pragma once

#include <string>
#include <vector>

#include "structure/tree.h"

namespace onnx2nn::structure {

/// The classes of the tree's modules, each after those that it uses; the root's, called `root_name`,
/// comes last. `made` gets the buffers that they have beyond the program's.
std::vector<torch::Class> make_classes(Tree& tree, const std::string& root_name,
                                       std::vector<torch::ParamPtr>& made);

}  // namespace onnx2nn::structure
