// Where a model's external data may lie, and the files there.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "support/input_file.h"

namespace onnx2nn::onnx {

/// What a model's tensors want of one file.
struct ExternalFile {
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;  // of all tensors
  std::uint64_t least = 0;  // size that the file must have at least
  std::optional<std::uint64_t> size;  // that it has; nothing where it cannot be had
  std::string why;                    // it cannot be had
};
using ExternalFiles = std::map<std::string, ExternalFile>;  // by location

/// The folders that a model's external data may come from: the one that the model is named in; the
/// one that it really lies in, where its name is a link (Hugging Face's cache keeps a model and its
/// data side by side under their hashes, and links to both); and the roots that the caller names.
/// Whether a file lies below one of them is decided after all links are resolved, and it is opened
/// by way of that folder without following any.
class ExternalData {
 public:
  /// model: its path; empty where it was given as bytes. folder: what locations are relative to;
  /// empty for none. roots: further folders; locations are looked up there, too.
  ExternalData(const std::string& model, const std::string& folder,
               const std::vector<std::string>& roots);

  /// The file that `location` names, each opened once. Throws Error "external-data" where it is
  /// missing, lies elsewhere or is a Git LFS pointer, and Error "io" where it is no regular file or
  /// cannot be read.
  std::shared_ptr<const InputFile> open(const std::string& location);

 private:
  std::optional<std::string> folder_around(const std::string& path) const;

  std::vector<std::string> folders_;  // absolute, without links
  std::vector<std::string> roots_;    // those of the caller, without links and as they were given
  std::map<std::string, std::shared_ptr<const InputFile>> files_;  // by location
};

}  // namespace onnx2nn::onnx
