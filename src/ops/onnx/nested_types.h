// Types around a nested graph: what holds on every round, or on either branch.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "ops/context.h"

namespace onnx2nn::ops {

/// What holds of both types.
Type common_type(const Type& a, const Type& b);

/// The type with no shape, nor any of its elements.
Type without_shape(Type type);

/// Forgets what was said of the shapes inside `graph`: it held for other inputs.
void forget_shapes(const ir::Graph& graph);

/// Types of carried values that hold on every round: begins with the initial ones and drops what a
/// round does not keep. `set_inputs` gives the body's inputs their types; afterwards the body is
/// inferred.
std::vector<Type> infer_carried(InferContext& c, ir::Graph& body, std::vector<Type> carried,
                                std::size_t first_output,
                                const std::function<void(const std::vector<Type>&)>& set_inputs);

/// Fails where the body does not take and give that many values.
void check_outputs(const NodeContext& c, const ir::Graph& body, std::size_t inputs,
                   std::size_t outputs);

}  // namespace onnx2nn::ops
