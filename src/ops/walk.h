// Inference with somebody who looks at each node before it is inferred.
#pragma once

#include <functional>

#include "ir/graph.h"
#include "support/error.h"

namespace onnx2nn::ops {

/// Called with a node whose inputs have been inferred; gives the node to go on with: the same, or the
/// first of those that it put before it.
using Visit = std::function<ir::Node*(ir::Node&)>;

/// As `infer_graph`; what `visit` throws passes through.
void infer_graph(ir::Graph& graph, Diagnostics& diagnostics, const Visit& visit);

}  // namespace onnx2nn::ops
