// The step `containers`: a plain chain of modules is nn.Sequential.
#pragma once

#include "structure/tree.h"

namespace onnx2nn::structure {

/// The module of torch that does what the call of a function does to the variable; null where there is
/// none.
torch::ModulePtr torch_module(const torch::Expr& call, int variable);

/// Whether all that the module does is to call its numbered members one after the other; it is marked
/// so. What is no member but a function with a module of its own in torch (F.relu: nn.ReLU) becomes
/// one, in a place that nothing else has.
bool make_sequential(Own& own);

/// Members without weights that only call one function with a module of its own in torch are that
/// module.
void use_torch_modules(Tree& tree);

}  // namespace onnx2nn::structure
