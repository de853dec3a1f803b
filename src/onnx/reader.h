// An ONNX file as a Model. Tensor bytes stay where they are: in the file or its external data.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "onnx/external_data.h"
#include "support/error.h"
#include "support/input_file.h"

namespace onnx2nn::onnx {

struct ReadOptions {
  /// What locations of external data are relative to; empty: none is allowed, but below the roots.
  std::string folder;
  /// Further folders for external data; see ExternalData.
  std::vector<std::string> data_roots;
  /// Leaves out outputs of the graph that nothing defines, with a warning.
  bool drop_undefined_outputs = false;
  /// Where it is given: gets the files of external data, and one that cannot be had is no error
  /// until its bytes are asked for.
  ExternalFiles* external_files = nullptr;
};

/// Reads a ModelProto (https://onnx.ai/onnx/repo-docs/IR.html), any IR version and opset.
/// `file` is kept alive by the tensors that point into it. The model's own functions are inlined,
/// Constant nodes become constants, sparse tensors dense ones. Throws Error "bad-model" or
/// "external-data", with the message, field and byte offset, and "unreadable-file" for what is no
/// ONNX model, where its first bytes say what it is.
std::unique_ptr<ir::Model> read_model(std::shared_ptr<const InputFile> file,
                                      const ReadOptions& options, Diagnostics& diagnostics);

}  // namespace onnx2nn::onnx
