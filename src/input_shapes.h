// Shapes that the user gives, in place of the model's.
#pragma once

#include "ir/graph.h"
#include "onnx2nn/convert.h"

namespace onnx2nn {

/// Gives the model's inputs these shapes. Throws Error "bad-option" for an unknown input or another
/// rank, and "input-shape" for a size that the model fixes at another, or that its nodes refuse.
void apply_input_shapes(ir::Model& model, const InputShapes& shapes);

}  // namespace onnx2nn
