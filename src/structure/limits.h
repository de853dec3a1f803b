// What Python's compiler takes: 20 loops inside each other, 200 brackets, an expression as deep as
// its stack.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// Loops inside each other, at most; deeper ones become functions of their own.
inline constexpr int kMaxLoops = 12;
/// Levels of an expression, at most; what is deeper gets a variable.
inline constexpr int kMaxDepth = 24;

/// The same program within these limits.
torch::Program within_limits(torch::Program program);

}  // namespace onnx2nn::structure
