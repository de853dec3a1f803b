// Ctrl-C and its like: they end the work, which then removes what it wrote.
#pragma once

namespace onnx2nn::cli {

/// While it lives, SIGINT, SIGTERM and SIGHUP stop native work on this thread; a second one ends the
/// process at once.
class StopSignals {
 public:
  StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();

  /// The signal that came, 0 if none did.
  static int received();
};

}  // namespace onnx2nn::cli
