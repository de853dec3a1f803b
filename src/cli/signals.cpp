#include "cli/signals.h"

#include <csignal>

#include "onnx2nn/interrupt.h"
#include "support/system.h"

namespace onnx2nn::cli {
namespace {

volatile std::sig_atomic_t last_signal = 0;

}  // namespace

StopSignals::StopSignals() {
  last_signal = 0;
  on_stop_signals([](int number) { last_signal = number; });
  set_interrupt_check([] { return last_signal != 0; });
}

StopSignals::~StopSignals() {
  set_interrupt_check(nullptr);
}

int StopSignals::received() {
  return last_signal;
}

}  // namespace onnx2nn::cli
