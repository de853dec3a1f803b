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

/// What torch takes for a module's name, but for characters that set apart the names of other tools.
bool is_key_part(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
    return c >= ' ' && c <= '~' && std::string_view("/:\\\"'`%").find(c) == std::string_view::npos;
  });
}

std::optional<std::vector<std::string>> key_components(std::string_view name, bool of_key) {
  if (name.size() > kMaxParts * kMaxPart) return std::nullopt;
  std::vector<std::string> out;
  bool plain = true;
  for (const std::string_view part : split(name, '.')) {
    if (!is_key_part(part) || part.size() > kMaxPart) return std::nullopt;
    plain = plain && (torch::is_ascii_identifier(part) || is_number(part));
    out.emplace_back(part);
  }
  if (out.empty() || out.size() > kMaxParts) return std::nullopt;
  // "123" and "conv-1" alone are any tool's, "block1.block1-0.weight" is a key.
  if (!of_key && (is_number(out[0]) || (!plain && out.size() == 1))) return std::nullopt;
  return out;
}

std::string member_name(std::string s) {
  // Python's own names have two underscores at both ends.
  if (s.size() > 4 && s.starts_with("__") && s.ends_with("__")) s = "p" + s;
  while (torch::is_module_member(s)) s += "_";
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
