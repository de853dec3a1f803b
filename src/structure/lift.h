// The step `lift`: a table that several modules read is read once, by the module around them.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// Gives each computed table (no parameter, no entry of the state_dict) whose readers have several
/// scopes a variable, made in what those have in common: inside it is an argument.
void lift_tables(torch::Program& program);

}  // namespace onnx2nn::structure
