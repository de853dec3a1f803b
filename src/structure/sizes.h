// Sizes that are used more than once get a name: `batch = x.shape[0]`.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// The program with each `x.shape[k]` that occurs twice or more as a variable, set where `x` is
/// set.
torch::Program hoist_sizes(torch::Program program);
/// A function as a program of its own.
torch::Program as_program(const torch::Function& function);
/// The same for one function: its body.
torch::Block hoist_sizes(const torch::Function& function);

}  // namespace onnx2nn::structure
