// What a file is that is no ONNX model, by its first bytes.
#pragma once

#include <optional>
#include <string>

#include "support/input_file.h"

namespace onnx2nn::onnx {

struct FileKind {
  std::string what;    // "a Git LFS pointer"
  std::string advice;  // what to do about it
  bool is_text = false;
};

/// What `file` is, where its beginning says so. To be asked about a file that could not be read as
/// a model: one that could is one, whatever it begins with.
std::optional<FileKind> recognise(const InputFile& file);

bool is_lfs_pointer(const InputFile& file);

}  // namespace onnx2nn::onnx
