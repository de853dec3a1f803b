// Texts compiled into the library: the Python helpers that emitted source may copy in, and what
// ATen offers. Both are generated at build time, by cmake/EmbedText.cmake.

#pragma once

#include <span>
#include <string_view>

namespace onnx2nn::torch {

struct RuntimeFile {
  std::string_view name;  // "resize.py"
  std::string_view text;
};

// The files of python/onnx2nn/runtime except __init__.py, sorted by name.
std::span<const RuntimeFile> runtime_files();

// One schema a line, without the `aten::` in front, sorted; written by tools/gen_aten_schemas.py:
// `softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor`.
std::string_view aten_schemas();

// Helpers in the language of TorchScript archives, one function after the other by name; written by
// tools/gen_script_helpers.py.
std::string_view script_helpers();

}  // namespace onnx2nn::torch
