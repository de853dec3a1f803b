// Runtime helpers as TorchScript archives have them.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace onnx2nn::emit {

/// Where the helpers of an archive live.
inline constexpr std::string_view kScriptHelpers = "__torch__.helpers";

struct ScriptParameter {
  std::string name;
  std::string type;       // "Optional[Tensor]"
  std::string otherwise;  // its default as written; empty where there is none
};

struct ScriptHelper {
  std::vector<ScriptParameter> params;
  std::string returns;
  /// It calls functions that are given to it, which TorchScript has as methods only: it is a method too.
  /// In a function's place are the tensors that the function reads besides its arguments.
  bool is_method = false;
};

/// Null where TorchScript does not take the helper.
const ScriptHelper* script_helper(std::string_view name);

/// The text of one of them: "def name(...) -> type:\n" and lines that are indented.
std::string_view script_helper_source(std::string_view name);

/// The text of these helpers with all that they call, but for those that are methods.
std::string script_helper_text(const std::set<std::string>& names);

}  // namespace onnx2nn::emit
