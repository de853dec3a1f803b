// Any bytes through the whole conversion, with and without simplification, and through inspection: source or
// diagnostics. A fault of ours (code "internal") counts as a crash, and so does a failure that says nothing.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "onnx2nn/convert.h"
#include "onnx2nn/inspect.h"

namespace {

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::abort();
}

void convert(const std::string& bytes, bool simplify) {
  onnx2nn::ConvertOptions options;
  options.simplify = simplify;
  options.allow_unknown = true;
  const onnx2nn::Conversion conversion = onnx2nn::convert_bytes(bytes, options);
  for (const auto& d : conversion.diagnostics()) {
    if (d.code == "internal") stop("internal error: " + d.message);
  }
  if (!conversion.ok() && conversion.diagnostics().empty()) stop("failed without a diagnostic");
  if (!conversion.ok()) return;
  for (const char c : conversion.source()) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 && c != '\n') stop("a control character in the source");
  }
}

void inspect(const std::string& bytes) {
  const onnx2nn::Inspection found = onnx2nn::inspect_bytes(bytes, {});
  for (const auto& d : found.diagnostics)
    if (d.code == "internal") stop("internal error: " + d.message);
  if (!found.readable && found.diagnostics.empty()) stop("unread without a diagnostic");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(data, data + size);
  convert(bytes, true);
  convert(bytes, false);
  inspect(bytes);
  return 0;
}
