// The torch program as Python source that a person would have written.
#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "emit/tp_plan.h"
#include "support/budget.h"
#include "torch/decoder.h"
#include "torch/program.h"

namespace onnx2nn::emit {

struct PythonOptions {
  std::string weights_name = "model.safetensors";  // beside the source; ".pth" for a state_dict, ".json" for the index of shards
  std::string header;                              // lines of the file's docstring
  std::vector<std::pair<std::string, std::string>>
      functions;                 // names and sources that the program calls beside the runtime's
  std::set<std::string> helpers;  // what the program calls of the runtime, and of `functions`
  /// Methods that the model has besides: see decoder_methods.h.
  std::optional<torch::Decoder> decoder;
  bool comments_origin = false;  // "# <ONNX node>" behind each line
  /// What is said behind a statement that sets the variable, where the line is wide enough.
  std::unordered_map<const torch::Var*, std::string> comments;
  std::optional<TpPlan> tp_plan;   // written as a function
  const Budget* budget = nullptr;  // for the source; null: as much as there is
};

/// The file's text, formatted as `ruff format` does (88 columns). The source imports torch only,
/// and safetensors inside `load`. Text from the model is there as claimed identifiers and escaped
/// literals.
std::string print_python(const torch::Program& program, const PythonOptions& options);

}  // namespace onnx2nn::emit
