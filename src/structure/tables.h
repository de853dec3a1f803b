// The step `tables`: a table that an exporter computed, and that one expression gives bit for bit, is
// that expression again.
#pragma once

#include "structure/readers.h"
#include "torch/program.h"

namespace onnx2nn::structure {

/// Tables of integers and booleans that are `torch.arange(n)`, differences of two such, bands of a matrix
/// (`torch.tril(torch.ones(...))`) or one number throughout, and masks of zero and minus infinity, are made
/// where they are read, and are no parameters of the program any more. Those of an author's, of layers and of
/// helpers stay. Gives what the variables that hold them are called, where that is known.
Roles spell_tables(torch::Program& program);

}  // namespace onnx2nn::structure
