// Sizes that an exporter fixed although the graph takes any: the batch, most of all.
#pragma once

#include "ir/graph.h"
#include "onnx2nn/convert.h"
#include "support/error.h"

namespace onnx2nn {

/// Opens dims of inputs, and changes what repeats their sizes as constants: targets of Reshape, Expand
/// and Resize, ends of slices, initial states and tokens that are there once a row. A node that cannot
/// do with any size is an error in `diagnostics`. Throws where an input or axis is not there.
void free_dims(ir::Model& model, const FreeDims& asked, Diagnostics& diagnostics);

}  // namespace onnx2nn
