// Two models from any bytes, laid side by side: a difference or diagnostics. The first four bytes are the size of the
// first model, lowest byte first; the second is the rest. A fault of ours (code "internal") counts as a crash, and so does
// a model that differs from itself.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "onnx2nn/inspect.h"

namespace {

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::abort();
}

onnx2nn::ModelDifference diff(const std::string& before, const std::string& after) {
  onnx2nn::ModelDifference d = onnx2nn::diff_bytes(before, after, {});
  for (const auto& e : d.diagnostics)
    if (e.code == "internal") stop("internal error: " + e.message);
  if (!d.readable && d.diagnostics.empty()) stop("unread without a diagnostic");
  return d;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kHead = 4;
  if (size < kHead) return 0;
  std::size_t first = 0;
  for (std::size_t i = kHead; i-- > 0;) first = first << 8U | data[i];
  first = std::min(first, size - kHead);
  const std::string before(data + kHead, data + kHead + first);
  const std::string after(data + kHead + first, data + size);
  diff(before, after);
  for (const std::string* model : {&before, &after}) {
    const onnx2nn::ModelDifference d = diff(*model, *model);
    // Where it ran out of what it may take, it says so.
    if (d.readable && d.diagnostics.empty() && !d.equal) stop("a model differs from itself");
  }
  return 0;
}
