// One function in the language of TorchScript archives: single assignments, calls of ATen, types that are
// found here. Facts: torch/csrc/jit/serialization/python_print.cpp and import_source.cpp.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "torch/instance.h"

namespace onnx2nn::emit {

/// A method as it is written, without the name of its class.
struct ScriptMethod {
  std::string name;
  std::string params;   // "x: Tensor,\n    mask: Tensor", after `self`
  std::string returns;  // its type
  std::string body;     // lines, indented
  std::set<std::string> helpers;  // that it calls
  std::vector<ScriptMethod> others;  // of the same module, which it calls: functions inside of this one
};

/// Types as TorchScript writes them: "Tensor", "int", "List[int]", "Optional[Tensor]".
using ScriptTypes = std::vector<std::string>;

/// The method of a module that is called with arguments of these types, for what it gives.
using ScriptCallee = std::function<const ScriptMethod&(const torch::Instance& module,
                                                       const std::string& method,
                                                       const ScriptTypes& arguments)>;

/// Throws Error "unsupported-output" where TorchScript has no such thing.
ScriptMethod script_method(const torch::Instance& module, const torch::Function& function,
                           const ScriptTypes& arguments, const ScriptCallee& callee);

/// A member of a module in an expression: `self.name`, or `getattr(self, "0")`.
std::string script_member(const std::string& object, const std::string& name);
/// A str literal; octal escapes for what is no printable ASCII.
std::string script_quote(std::string_view text);

}  // namespace onnx2nn::emit
