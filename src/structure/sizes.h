// Sizes that are used more than once get a name: `batch = x.shape[0]`.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// The program with each `x.shape[k]` that occurs twice or more as a variable, set where `x` is
/// set.
torch::Program hoist_sizes(torch::Program program);

}  // namespace onnx2nn::structure
