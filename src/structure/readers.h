// What variables are, from what reads them: queries and keys of an attention, a mask, cosines and sines.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "torch/program.h"

namespace onnx2nn::structure {

/// By a variable's number, the name that its readers give it: "q", "k", "v", "mask", "cos", "sin".
using Roles = std::unordered_map<int, std::string>;

/// Roles in all methods of the program's classes, inner ones first; what a method's parameter is, its
/// caller's variable is too. A parameter that is an input of the model is called as that is, and one that
/// is one of `known` as that.
Roles roles_of(const torch::Program& program, Roles known = {});

/// Renames tables that an exporter computed, which have no name of the author's, to what they are for
/// their readers in the flat function: cos, causal_mask, position_ids, scale. One whose readers say
/// nothing loses the exporter's number, by which equal modules would differ.
void name_tables(torch::Program& program);

}  // namespace onnx2nn::structure
