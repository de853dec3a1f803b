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
};

/// Null where TorchScript does not take the helper.
const ScriptHelper* script_helper(std::string_view name);

/// The text of these helpers with all that they call.
std::string script_helper_text(const std::set<std::string>& names);

}  // namespace onnx2nn::emit
