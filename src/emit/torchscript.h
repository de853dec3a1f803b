// A TorchScript archive, as torch.jit.load reads it: classes as code, the tree of modules as a pickle, weights
// as records of a zip file.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "emit/weights.h"
#include "support/atomic_file.h"
#include "torch/instance.h"

namespace onnx2nn {
class Budget;
}

namespace onnx2nn::emit {

struct ScriptModel {
  const torch::Instance* root = nullptr;
  std::string class_name;
  std::vector<std::string> inputs;  // types: "Tensor", "List[Tensor]", "Optional[Tensor]"
  /// Which entry holds a parameter, by its number.
  std::map<const torch::Param*, std::size_t> entry_of;
  std::string_view origin;  // kept in a first record "onnx2nn"; empty: none
  Budget* budget = nullptr;
};

/// Adds to `files` the archive. Throws Error "unsupported-output" where TorchScript cannot hold what the
/// model does, and names the node.
void add_torchscript(AtomicFileSet& files, const std::string& path, const ScriptModel& model,
                     std::span<const WeightEntry> entries);

}  // namespace onnx2nn::emit
