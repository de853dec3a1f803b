#include "ops/names.h"

#include <algorithm>

#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::ops {

std::string to_identifier(std::string_view s) {
  std::string out;
  for (const char c : s.substr(0, 80)) {
    if (is_alphanumeric(c)) {
      out += c;
    } else if (!out.empty() && out.back() != '_') {
      out += '_';
    }
  }
  while (!out.empty() && out.back() == '_') out.pop_back();
  if (out.empty()) return "value";
  if (is_digit(out[0])) out = "v" + out;
  return out;
}

std::string snake(std::string_view op_type) {
  std::string out;
  for (std::size_t i = 0; i < op_type.size(); ++i) {
    const auto lower = [&](std::size_t k) { return k < op_type.size() && is_lower(op_type[k]); };
    // A word begins: MatMul has two, ReLU has one.
    if (is_upper(op_type[i]) && i > 0 && lower(i - 1) && lower(i + 1)) out += '_';
    out += to_lower(op_type[i]);
  }
  return to_identifier(out);
}

namespace {

// Modules nest no deeper, and their names are no longer; what says otherwise gets a flat name.
constexpr std::size_t kMaxParts = 64;
constexpr std::size_t kMaxPart = 200;

}  // namespace

std::optional<std::vector<std::string>> key_components(std::string_view name, bool number_first) {
  if (name.size() > kMaxParts * kMaxPart) return std::nullopt;
  std::vector<std::string> out;
  for (const std::string_view part : split(name, '.')) {
    if (!torch::is_ascii_identifier(part) && !is_number(part)) return std::nullopt;
    out.emplace_back(part);
  }
  if (out.empty() || (is_number(out[0]) && !number_first) || out.size() > kMaxParts) return std::nullopt;
  if (std::any_of(out.begin(), out.end(), [](const auto& part) { return part.size() > kMaxPart; }))
    return std::nullopt;
  return out;
}

std::string member_name(std::string s, bool in_dict) {
  if (s.rfind("__", 0) == 0) s = "p" + s;  // inside a class Python changes such names
  while (torch::is_python_keyword(s) || s == "_" || torch::is_module_member(s) ||
         (in_dict && torch::is_container_member(s)))
    s += "_";
  return s;
}

std::string variable_hint(std::string_view onnx_name, std::string_view op_type) {
  std::string_view name = onnx_name;
  if (const auto slash = name.rfind('/'); slash != std::string_view::npos) {
    // "/layer1/conv1/Conv_output_0": the scope says more than the operator.
    std::string_view scope = name.substr(0, slash);
    if (const auto s = scope.rfind('/'); s != std::string_view::npos) scope = scope.substr(s + 1);
    if (const auto dot = scope.rfind('.');
        dot != std::string_view::npos && !is_number(scope.substr(dot + 1)))
      scope = scope.substr(dot + 1);
    if (!scope.empty() && !is_number(scope) && scope.size() <= 24)
      return to_lower(to_identifier(scope));
    return snake(op_type);
  }
  const std::string id = to_identifier(name);
  // Counters such as "123" or "onnx::Conv_12" say nothing.
  const bool counter =
      name.empty() || is_digit(name[0]) || name.find("::") != std::string_view::npos;
  if (counter || id.size() > 28) return snake(op_type);
  return to_lower(id);
}

}  // namespace onnx2nn::ops
