// Models that a runtime optimised for its own kernels, said in the layout of everyone else.
#pragma once

#include <set>
#include <string>
#include <utility>

#include "ir/graph.h"
#include "support/error.h"

namespace onnx2nn::passes {

/// Rewrites operators of com.microsoft.nchwc (channels in blocks, padded) and com.ms.internal.nhwc
/// (channels last) as those of ai.onnx that they stand for, weights included. Operators in `kept`
/// are left alone.
void plain_layouts(ir::Model& model,
                   const std::set<std::pair<std::string, std::string>>& kept,
                   Diagnostics& diagnostics);

}  // namespace onnx2nn::passes
