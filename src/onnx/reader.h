// An ONNX file as a Model. Tensor bytes stay where they are: in the file or its external data.
#pragma once

#include <memory>
#include <string>

#include "ir/graph.h"
#include "support/input_file.h"

namespace onnx2nn::onnx {

/// Reads a ModelProto (https://onnx.ai/onnx/repo-docs/IR.html), any IR version and opset.
/// `file` is kept alive by the tensors that point into it. External data is looked up in `folder`
/// (empty: none is allowed) and must stay inside it. The model's own functions are inlined,
/// Constant nodes become constants, sparse tensors dense ones. Throws Error "bad-model" or
/// "external-data", with the message, field and byte offset.
std::unique_ptr<ir::Model> read_model(std::shared_ptr<const InputFile> file,
                                      const std::string& folder);

}  // namespace onnx2nn::onnx
