// A Model as an ONNX file.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"

namespace onnx2nn::onnx {

struct WriteOptions {
  /// Weights go to one file beside the model, "<name>.data"; always so where protobuf's 2 GiB would
  /// be exceeded.
  bool external_data = false;
};

/// Writes `model` to `path`, all or nothing; returns the files written. Weights that lie unchanged
/// in a file are copied from there inside the kernel. The path may be the one that the model was
/// read from. The same model gives the same bytes. Throws Error "io" or "too-large".
std::vector<std::string> write_model(const ir::Model& model, const std::string& path,
                                     const WriteOptions& options = {});

/// The file's bytes. Throws Error "too-large" above protobuf's 2 GiB.
std::string serialize_model(const ir::Model& model);

}  // namespace onnx2nn::onnx
