#include "support/interrupt.h"

#include <chrono>

namespace onnx2nn {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kBetween{50};

thread_local InterruptCheck current = nullptr;
thread_local Clock::time_point next_time;

}  // namespace

void set_interrupt_check(InterruptCheck check) {
  current = check;
  next_time = {};
}

void check_interrupt() {
  if (current == nullptr) return;
  const Clock::time_point now = Clock::now();
  if (now < next_time) return;
  next_time = now + kBetween;
  if (current()) throw Cancelled();
}

}  // namespace onnx2nn
