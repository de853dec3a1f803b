// Shapes that the user gives, in place of the model's.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace onnx2nn {

/// Throws Error "bad-option" for an unknown input or another rank. Negative numbers leave a
/// dimension as it is.
void apply_input_shapes(ir::Graph& graph,
                        const std::map<std::string, std::vector<std::int64_t>>& shapes);

}  // namespace onnx2nn
