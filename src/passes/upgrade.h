// A newer opset for a whole model.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ir/graph.h"
#include "support/error.h"

namespace onnx2nn::passes {

/// The newest opset of ai.onnx that models can be brought to.
inline constexpr std::int64_t kNewestOpset = 28;

/// Brings each node of ai.onnx to opset `target`, each from the one that it is of, and rewrites
/// those whose form or meaning changed on the way. Types must have been inferred. A node that
/// cannot be said in the newer opset, or is of a newer one already, is an error in `diagnostics`;
/// the model is of no use then. Returns how many nodes were rewritten.
std::size_t upgrade(ir::Model& model, std::int64_t target, Diagnostics& diagnostics);

}  // namespace onnx2nn::passes
