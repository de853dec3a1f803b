// TensorProto and SparseTensorProto as Tensors.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "ir/tensor.h"
#include "onnx/wire.h"
#include "support/input_file.h"

namespace onnx2nn::onnx {

/// What a tensor's bytes may come from: the model's own file and files beside it, each opened once.
class TensorReader {
 public:
  TensorReader(std::shared_ptr<const InputFile> file, std::string folder)
      : file_(std::move(file)), folder_(std::move(folder)) {}

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
  std::shared_ptr<const InputFile> open(const std::string& location);

  std::shared_ptr<const InputFile> file_;
  std::string folder_;
  std::map<std::string, std::shared_ptr<const InputFile>> external_files_;
};

}  // namespace onnx2nn::onnx
