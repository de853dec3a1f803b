// Any bytes as an ONNX file: a model or an Error, never a crash, a hang or memory without end. What
// was read is printed, so that every value, shape and tensor of it is visited.

#include "onnx/reader.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "support/error.h"
#include "support/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(data, data + size);
  onnx2nn::Diagnostics diagnostics;
  try {
    const auto model =
        onnx2nn::onnx::read_model(onnx2nn::InputFile::from_memory(std::move(bytes)), {}, diagnostics);
    onnx2nn::ir::print(*model->graph);
  } catch (const onnx2nn::Error&) {
  }
  return 0;
}
