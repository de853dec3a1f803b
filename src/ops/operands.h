// Whether nodes have the inputs and outputs that their operators need.
#pragma once

#include "ir/graph.h"
#include "support/error.h"

namespace onnx2nn::ops {

/// Erases nodes that give nothing out, as runtimes do before they look at them, and adds an error
/// for each node of the table's operators, nested ones too, that lacks an input or an output which
/// its schema asks for, or has more of them than it allows. Nobody after that has to expect either.
void check_operands(ir::Graph& graph, Diagnostics& diagnostics);

}  // namespace onnx2nn::ops
