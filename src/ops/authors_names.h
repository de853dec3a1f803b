// Names of weights and nodes as the author of a model had them.
#pragma once

#include "ir/graph.h"

namespace onnx2nn::ops {

/// Takes away what a tool is known to have put into the author's names, where that leaves each name to
/// one value. The builder of onnxruntime-genai calls a layer's weight `q_proj.MatMul.weight`, and has the
/// last norm in a layer of its own.
void restore_authors_names(ir::Model& model);

}  // namespace onnx2nn::ops
