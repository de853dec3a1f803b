// Small reference kernels that constant folding uses. They follow ONNX's meaning to the bit where
// the result is exact, and compute in the element's own precision otherwise.
#pragma once

#include <optional>
#include <vector>

#include "ir/graph.h"

namespace onnx2nn::eval {

/// The outputs of `node`, whose present inputs are all constant; nothing where there is no kernel
/// for this operator, type or form. `max_bytes` bounds each output. Throws Error where the model is
/// wrong.
std::optional<std::vector<ir::TensorPtr>> evaluate(const ir::Node& node, std::uint64_t max_bytes);

}  // namespace onnx2nn::eval
