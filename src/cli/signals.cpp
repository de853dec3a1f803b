#include "cli/signals.h"

#include <csignal>

#include "onnx2nn/interrupt.h"

namespace onnx2nn::cli {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
volatile std::sig_atomic_t last_signal = 0;

}  // namespace

StopSignals::StopSignals() {
  last_signal = 0;
  for (const int signal : kSignals) {
    struct sigaction action {};
    // What whoever started us ignores, as nohup does, stays ignored.
    if (::sigaction(signal, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = [](int number) { last_signal = number; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(signal, &action, nullptr);
  }
  set_interrupt_check([] { return last_signal != 0; });
}

StopSignals::~StopSignals() {
  set_interrupt_check(nullptr);
}

int StopSignals::received() {
  return last_signal;
}

}  // namespace onnx2nn::cli
