// A Model as an ONNX file.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ir/graph.h"
#include "support/atomic_file.h"

namespace onnx2nn::onnx {

/// The first bytes of the files that hold a model's weights.
inline constexpr std::string_view kDataMark = "onnx2nn: weights of ";

struct WriteOptions {
  /// Weights go to a file of their own; always so where protobuf's 2 GiB would be exceeded.
  bool external_data = false;
  /// That file, in the folder of the model; "<path>.data" where empty.
  std::string data_path;
};

/// A model to be written: `add_to` adds it to files, as their head where its weights lie in another
/// one. Weights that lie unchanged in a file are copied from there inside the kernel. The path may
/// be the one that the model was read from. The same model gives the same bytes. Throws Error "io"
/// or "too-large".
class ModelFile {
 public:
  ModelFile(const ir::Model& model, std::string path, const WriteOptions& options);

  /// The path of the weights, nothing where they are in the model.
  const std::optional<std::string>& data_path() const { return data_path_; }
  void add_to(AtomicFileSet& files) const;
  /// The model's text where it names `data_path` with a tag: see AtomicFileSet::Head.
  std::string text(std::string_view tag) const;

 private:
  const ir::Model& model_;
  std::string path_;
  std::optional<std::string> data_path_;
};

/// The file's bytes. Throws Error "too-large" above protobuf's 2 GiB.
std::string serialize_model(const ir::Model& model);

}  // namespace onnx2nn::onnx
