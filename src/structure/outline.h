// The step `outline`: statements of one module become its method, and what crosses its border
// becomes arguments and results.
#pragma once

#include <vector>

#include "structure/tree.h"

namespace onnx2nn::structure {

/// The tree of modules of `program.forward`, whose statements have these scopes. Statements move,
/// where dependences allow, until each call of a module is one run; a module that is entered twice
/// with other work has two methods, and one that is entered more often than that stays inline.
Tree outline(const torch::Program& program, std::vector<torch::Scope> scopes);

}  // namespace onnx2nn::structure
