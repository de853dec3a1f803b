// TensorProto and SparseTensorProto as Tensors.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "ir/tensor.h"
#include "onnx/external_data.h"
#include "onnx/wire.h"
#include "support/input_file.h"

namespace onnx2nn::onnx {

/// Tensors' bytes come from the model's own file and from its external data.
class TensorReader {
 public:
  TensorReader(std::shared_ptr<const InputFile> file, ExternalData external_data)
      : file_(std::move(file)), external_data_(std::move(external_data)) {}

  struct Named {
    std::string name;
    ir::TensorPtr tensor;
  };
  /// Throws Error "bad-model", "external-data" or "unsupported-dtype".
  Named read(wire::Reader message);
  Named read_sparse(wire::Reader message);  // as a dense tensor

 private:
  ByteSource slice(std::span<const std::byte> bytes) const;
  ByteSource external(const std::map<std::string, std::string>& entries, std::uint64_t need);

  std::shared_ptr<const InputFile> file_;
  ExternalData external_data_;
};

}  // namespace onnx2nn::onnx
