// The step `scopes`: which of the author's modules each statement belongs to.
#pragma once

#include <vector>

#include "torch/program.h"

namespace onnx2nn::structure {

/// The scope of each statement of `forward`: as the file says, else that of the weights it reads,
/// else what its neighbours have in common. A statement reads only weights of its own module and
/// those inside: where the file says otherwise it belongs further out. Scopes without weights that
/// hold a statement or two, such as an activation's, are left out.
std::vector<torch::Scope> place_statements(const torch::Program& program);

}  // namespace onnx2nn::structure
