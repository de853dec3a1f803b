// The text of runtime helpers, with all that they call, as it is copied into emitted source.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace onnx2nn::emit {

struct RuntimeSource {
  std::string text;                    // functions and constants, two blank lines between
  std::vector<std::string> imports;    // "import math", without those of torch itself
  std::vector<std::string> functions;  // the names that the text defines
};

/// The named helpers and what they need; an InternalError where one does not exist.
RuntimeSource runtime_source(const std::set<std::string>& functions);

/// Whether the runtime's text defines this name at the top.
bool is_runtime_name(std::string_view name);

}  // namespace onnx2nn::emit
