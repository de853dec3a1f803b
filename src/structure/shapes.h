// The step `shapes`: what a statement makes of its operand's shape, as a comment.
#pragma once

#include <string>
#include <unordered_map>

#include "torch/program.h"

namespace onnx2nn::structure {

/// Of variables of two methods that are one on the page, the sizes that both have; others are "?". `ours` may
/// have one statement more, whose target is `extra`; null where it has none.
void keep_common_sizes(torch::Block& ours, const torch::Block& theirs, const torch::Var* extra = nullptr);

/// "(batch, 196, 768)", by the variable that a statement sets: where it moves, joins or takes apart axes, its
/// result's sizes are all known, and the last two comments before it say something else. Only names and numbers
/// are taken from the model.
std::unordered_map<const torch::Var*, std::string> shape_comments(const torch::Function& function);

}  // namespace onnx2nn::structure
