// The modules of the page as objects, for outputs whose classes have no constructors.
#pragma once

#include <unordered_set>

#include "torch/instance.h"

namespace onnx2nn::structure {

/// The program with its tables (Page::with_tables) as a tree of modules; each has the functions of its own numbers, loops over modules
/// are not rolled. Keys of weights are those of the page. Variables have their names.
torch::InstancePtr instances(const torch::Program& program,
                             const std::unordered_set<const torch::Param*>& shared);

}  // namespace onnx2nn::structure
