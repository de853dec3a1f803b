// The step `lift`: what stands further in, or further out, than those who read it.
#pragma once

#include <unordered_set>

#include "torch/program.h"

namespace onnx2nn::structure {

/// Gives each computed table (no parameter, no entry of the state_dict) whose readers have several
/// scopes a variable, made in what those have in common: inside it is an argument. So do the `shared`
/// weights.
void lift_tables(torch::Program& program, const std::unordered_set<const torch::Param*>& shared);

/// Puts what is made of nothing and read by one statement, such as a constant that exporters make
/// before all else, in front of that.
void sink_sources(torch::Program& program);

}  // namespace onnx2nn::structure
