// TensorProto and SparseTensorProto as Tensors.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "ir/tensor.h"
#include "onnx/external_data.h"
#include "onnx/wire.h"
#include "support/budget.h"
#include "support/input_file.h"

namespace onnx2nn::onnx {

/// Tensors' bytes come from the model's own file and from its external data.
class TensorReader {
 public:
  /// What it copies and expands is charged to `budget`.
  /// files: see ReadOptions::external_files.
  TensorReader(std::shared_ptr<const InputFile> file, ExternalData external_data, Budget& budget,
               ExternalFiles* files)
      : file_(std::move(file)),
        external_data_(std::move(external_data)),
        budget_(budget),
        files_(files) {}

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
  ByteSource noted(const std::string& location, std::uint64_t offset, std::uint64_t need);

  std::shared_ptr<const InputFile> file_;
  ExternalData external_data_;
  Budget& budget_;
  ExternalFiles* files_;
  std::map<std::string, std::shared_ptr<const InputFile>> missing_;  // by location
  std::set<std::string> counted_;  // paths of external data that the budget knows
};

}  // namespace onnx2nn::onnx
