// The step `split`: a long function becomes several methods.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// Cuts each method of the class that is long where few values cross: its parts are methods with names
/// from what they do, whose arguments and results are what crosses.
void split_methods(torch::Class& c);

}  // namespace onnx2nn::structure
