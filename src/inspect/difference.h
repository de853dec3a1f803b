// What differs between two graphs that are laid side by side.
#pragma once

#include "inspect/align.h"
#include "ir/graph.h"
#include "onnx2nn/inspect.h"

namespace onnx2nn::inspect {

/// Fills all of `out` that is about nodes, weights and the interface. Types of both must have been inferred.
void compare(const ir::Model& before, const ir::Model& after, ModelDifference& out);

}  // namespace onnx2nn::inspect
