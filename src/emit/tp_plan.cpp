#include "emit/tp_plan.h"

#include <algorithm>

#include <fmt/core.h>

#include "emit/layout.h"
#include "emit/python_style.h"
#include "support/text.h"

namespace onnx2nn::emit {
namespace {

/// Model text inside a docstring.
std::string quoted_text(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) out += c == '"' || c == '\\' ? '\'' : c;
  return out;
}

}  // namespace

std::string tp_plan_source(const TpPlan& plan) {
  std::string out = "def tp_plan() -> dict[str, Any]:\n";
  const std::string first = plan.styles.empty()
                                ? "which splits nothing of this model"
                                : fmt::format("for a number of processes that divides {}", plan.parts);
  out += fmt::format("    \"\"\"The plan of parallelize_module, {}.", first);
  if (!plan.whole.empty()) {
    out += "\n\n    Layers that stay whole, as their block cannot be split so:\n";
    for (const auto& [name, why] : plan.whole) {
      const std::string line = fmt::format("    {}: {}", quoted_text(name), why);
      out += line.size() <= kWidth ? line + "\n"
                                   : fmt::format("    {}:\n        {}\n", quoted_text(name), why);
    }
    out += "    ";
  }
  out += "\"\"\"\n";
  std::vector<std::string> imports;
  for (const char* style : {"ColwiseParallel", "RowwiseParallel"})
    if (std::any_of(plan.styles.begin(), plan.styles.end(),
                    [&](const auto& s) { return s.second == style; }))
      imports.emplace_back(style);
  if (imports.empty()) return out + "    return {}\n";
  out += fmt::format("    from torch.distributed.tensor.parallel import {}\n\n    return {{\n",
                     join(imports, ", "));
  for (const auto& [name, style] : plan.styles)
    out += fmt::format("        {}: {}(),\n", python_quote(name), style);
  return out + "    }\n";
}

}  // namespace onnx2nn::emit
