// The program as one class, for --flat and for tracing.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// One class whose `forward` has all statements; weights lie in plain containers, by their keys.
torch::Class flat_class(const torch::Program& program);

/// Adds `x = _trace(name, x)` after each statement of `forward` that makes a value of the model for
/// good: not inside branches and loops, whose values are others each time, and not what a loop starts
/// from under the name of its result.
void add_traces(torch::Function& forward);

}  // namespace onnx2nn::structure
