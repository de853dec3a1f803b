// The step `repeats`: modules for stretches of statements that no scope explains.
#pragma once

#include <unordered_set>

#include "torch/program.h"

namespace onnx2nn::structure {

/// Gives scopes to what repeats in the graph itself, largest first and nested, and to parts of what is
/// long, and their layers and weights the keys that follow. Weights whose keys are the author's keep
/// them, and with them the statements that read them. Returns the weights that several of the new
/// modules read, which are for the module around these to read.
std::unordered_set<const torch::Param*> find_repeats(torch::Program& program);

}  // namespace onnx2nn::structure
