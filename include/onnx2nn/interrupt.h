// Stopping long work from outside, as Ctrl-C does.
#pragma once

namespace onnx2nn {

/// Asked some twenty times a second, on the thread that set it, while a conversion, a
/// simplification or a write runs on that thread; true stops it: nothing is left behind, and its
/// diagnostics hold the code "cancelled". Null asks nothing.
using InterruptCheck = bool (*)();
void set_interrupt_check(InterruptCheck check);

}  // namespace onnx2nn
