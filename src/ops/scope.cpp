#include "ops/scope.h"

#include <algorithm>
#include <optional>

#include "ops/names.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::ops {
namespace {

using torch::Scope;

// Modules nest no deeper; what says otherwise was not written by an exporter.
constexpr std::size_t kMaxSteps = 64;
constexpr std::size_t kMaxText = 1 << 14;

const std::string* metadata(const ir::Node& node, std::string_view key) {
  for (const auto& [k, v] : node.metadata)
    if (k == key && v.size() <= kMaxText) return &v;
  return nullptr;
}

/// The strings of a list as Python prints it: "['', 'layer1', 'layer1.0']".
std::optional<std::vector<std::string>> python_strings(std::string_view text) {
  if (text.size() < 2 || text.front() != '[' || text.back() != ']') return std::nullopt;
  text = text.substr(1, text.size() - 2);
  std::vector<std::string> out;
  while (!text.empty()) {
    const char quote = text[0];
    if (quote != '\'' && quote != '"') return std::nullopt;
    const std::size_t end = text.find(quote, 1);
    if (end == std::string_view::npos || out.size() == kMaxSteps) return std::nullopt;
    out.emplace_back(text.substr(1, end - 1));
    text.remove_prefix(end + 1);
    while (!text.empty() && (text[0] == ',' || text[0] == ' ')) text.remove_prefix(1);
  }
  return out;
}

/// "torch.nn.modules.container.Sequential" -> "Sequential".
std::string class_of(std::string_view type) {
  type = type.substr(0, type.find('['));
  if (const auto dot = type.rfind('.'); dot != std::string_view::npos) type.remove_prefix(dot + 1);
  return torch::is_ascii_identifier(type) ? std::string(type) : std::string();
}

/// Steps from the full paths of modules, the root's "" first.
std::optional<Scope> steps_of(const std::vector<std::string>& paths,
                              const std::vector<std::string>& types) {
  Scope out;
  std::string outer;
  for (std::size_t i = 1; i < paths.size(); ++i) {
    std::string_view path = paths[i];
    torch::ScopeStep step;
    if (const auto at = path.find('@'); at != std::string_view::npos) {
      const std::string_view count = path.substr(at + 1);
      if (!is_number(count)) return std::nullopt;
      step.call = static_cast<int>(std::stoi(std::string(count)));
      path = path.substr(0, at);
    }
    if (path.empty() || path == outer) continue;
    const std::string prefix = outer.empty() ? "" : outer + ".";
    if (path.size() <= prefix.size() || !path.starts_with(prefix)) return std::nullopt;
    if (!key_components(path, /*of_key=*/true)) return std::nullopt;
    step.path = std::string(path.substr(prefix.size()));
    if (i < types.size()) step.type = class_of(types[i]);
    out.push_back(std::move(step));
    outer = std::string(path);
  }
  return out;
}

std::optional<Scope> from_metadata(const ir::Node& node) {
  const std::string* names = metadata(node, "pkg.torch.onnx.name_scopes");
  if (names != nullptr) {
    auto paths = python_strings(*names);
    if (!paths || paths->empty()) return std::nullopt;
    paths->pop_back();  // the node's own name
    std::vector<std::string> types;
    if (const std::string* classes = metadata(node, "pkg.torch.onnx.class_hierarchy"))
      if (auto found = python_strings(*classes)) types = std::move(*found);
    if (types.size() != paths->size() + 1) types.clear();
    return steps_of(*paths, types);
  }
  const std::string* space = metadata(node, "namespace");
  if (space == nullptr) return std::nullopt;
  std::vector<std::string> paths;
  std::vector<std::string> types;
  for (const std::string_view part : split(*space, '/')) {
    const auto colon = part.find(": ");
    if (colon == std::string_view::npos || paths.size() == kMaxSteps) return std::nullopt;
    paths.emplace_back(part.substr(0, colon));
    types.emplace_back(part.substr(colon + 2));
  }
  if (paths.empty() || !paths[0].empty()) return std::nullopt;
  paths.pop_back();
  return steps_of(paths, types);
}

/// "/layer1/layer1.0/conv1/Conv": a part that begins with its parent's name repeats it.
std::optional<Scope> from_name(std::string_view name) {
  if (name.empty() || name[0] != '/' || name.size() > kMaxText) return std::nullopt;
  const auto parts = split(name.substr(1), '/');
  if (parts.size() > kMaxSteps) return std::nullopt;
  Scope out;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    std::string_view part = parts[i];
    if (!key_components(part, /*of_key=*/true)) return std::nullopt;
    if (i > 0) {
      const std::string prefix = std::string(parts[i - 1]) + ".";
      if (part.starts_with(prefix)) part.remove_prefix(prefix.size());
    }
    out.push_back({std::string(part), "", 0});
  }
  return out;
}

}  // namespace

torch::ScopePtr scope_of(const ir::Node& node) {
  auto scope = from_metadata(node);
  if (!scope) scope = from_name(node.name);
  return scope ? std::make_shared<const Scope>(std::move(*scope)) : nullptr;
}

}  // namespace onnx2nn::ops
