// What may be written where: no file that onnx2nn did not write is replaced, and none that is read.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "support/atomic_file.h"

namespace onnx2nn {

/// The key under which weights, archives and models say that onnx2nn wrote them.
inline constexpr std::string_view kMark = "onnx2nn";

/// Whether the file says that onnx2nn wrote it: source by its first line, weights and models by
/// kMark, external data by its first bytes.
bool is_ours(const std::string& path);

/// The files that the tensors of a model lie in, besides the model's own.
std::vector<std::string> data_files(const ir::Model& model, const std::string& model_path);

/// Throws unless `path` ends in one of `suffixes`; `what` is what it is to hold: "weights".
void check_suffix(const std::string& path, std::string_view what,
                  const std::vector<std::string_view>& suffixes);
/// Throws where the suffix of `path` says that it holds something else than a model.
void check_model_suffix(const std::string& path);

/// The rules for the outputs of one run.
class Outputs {
 public:
  /// `model_path` is empty where the model was given as bytes.
  Outputs(const std::string& model_path, const std::vector<std::string>& data_files, bool force);

  /// Lets the model itself be replaced where `path` is its path, and no link to it or other name
  /// for it: says whether it is.
  bool allow_in_place(const std::string& path);
  bool is_input(const std::string& path) const;
  /// Throws where `path` may not be written.
  void check(const std::string& path) const;
  AtomicFileSet files() const;

 private:
  using Id = std::pair<std::uint64_t, std::uint64_t>;  // device and inode

  std::string model_path_;
  std::set<Id> inputs_;
  std::string in_place_;
  bool force_;
};

}  // namespace onnx2nn
