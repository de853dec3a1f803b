// Where long work asks whether to go on.
#pragma once

#include "onnx2nn/interrupt.h"

namespace onnx2nn {

/// Thrown by `check_interrupt`; no std::exception, so that no code that reports and goes on takes it
/// for an error of a node.
struct Cancelled {};

/// Throws Cancelled where the thread's InterruptCheck says so. Cheap enough for every node and
/// every few pages; to be called at least twenty times a second.
void check_interrupt();

}  // namespace onnx2nn
