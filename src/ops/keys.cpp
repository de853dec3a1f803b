#include "ops/keys.h"

#include <algorithm>

#include "ops/names.h"
#include "ops/scope.h"
#include "ops/tensorflow_scope.h"
#include "support/text.h"

namespace onnx2nn::ops {

Keys::Keys(const ir::Model& model) : said_(read_signature(*model.graph)) {
  for (const ir::Value* v : model.graph->initializers) {
    names_.push_back(v->name);
    const auto components = key_components(v->name, said_.count(v->name) != 0);
    if (!components) continue;
    std::string path;
    for (std::size_t i = 0; i + 2 < components->size(); ++i) {
      path += (i > 0 ? "." : "") + (*components)[i];
      containers_.insert(path);
    }
  }
  std::sort(names_.begin(), names_.end());
  const TensorflowScopes of_tensorflow(*model.graph);
  ir::for_each_node(*model.graph, [&](const ir::Node& n) {
    torch::ScopePtr scope = ops::scope_of(n);
    if (!scope) scope = of_tensorflow.of(n);
    if (!scope) return;
    scopes_[&n] = scope;
    std::string path;
    for (const torch::ScopeStep& step : *scope) {
      if (!path.empty()) containers_.insert(path);
      called_.insert(path += (path.empty() ? "" : ".") + step.path);
    }
  });
  std::vector<std::pair<std::size_t, std::string_view>> left;
  for (const auto& [key, role] : said_)
    if (role.trainable && !std::binary_search(names_.begin(), names_.end(), key) &&
        key_components(key, /*of_key=*/true))
      left.emplace_back(role.order, key);
  std::sort(left.begin(), left.end());
  for (const auto& [_, key] : left) {
    std::string_view module = key;
    do {
      const std::size_t dot = module.rfind('.');
      module = module.substr(0, dot == std::string_view::npos ? 0 : dot);
    } while (!module.empty() && called_.count(std::string(module)) == 0);
    left_[std::string(module)].emplace_back(key);
  }
}

torch::ScopePtr Keys::scope_of(const ir::Node& node) const {
  const auto it = scopes_.find(&node);
  return it == scopes_.end() ? nullptr : it->second;
}

bool Keys::has_modules(const Path& path) const {
  return containers_.count(join(path, ".")) != 0;
}

bool Keys::has_weights(const Path& path) const {
  const std::string inside = join(path, ".") + ".";
  const auto next = std::lower_bound(names_.begin(), names_.end(), inside);
  return next != names_.end() && next->starts_with(inside);
}

bool Keys::is_called(const Path& path) const {
  return called_.count(join(path, ".")) != 0;
}

std::vector<std::string> Keys::left(const Path& module) const {
  constexpr std::size_t kMost = 64;  // who has more says nothing of any
  const auto it = left_.find(join(module, "."));
  if (it == left_.end() || it->second.size() > kMost) return {};
  std::vector<std::string> out = it->second;
  std::erase_if(out, [&](const std::string& key) { return taken_.count(key) != 0; });
  return out;
}

std::vector<std::string> Keys::left() const {
  std::vector<std::string> out;
  for (const auto& [_, keys] : left_)
    for (const std::string& key : keys)
      if (taken_.count(key) == 0) out.push_back(key);
  return out;
}

Path Keys::claim(Path path) {
  for (std::string& part : path) part = member_name(std::move(part));
  const std::string stem = path.back();
  // Numbers go on where they stopped, so that many weights of one name stay linear.
  int& attempt = attempts_[join(path, ".")];
  for (;; ++attempt) {
    if (attempt > 0) {
      path.back() = is_number(stem) ? "n" + stem + "_" + std::to_string(attempt)
                                    : stem + "_" + std::to_string(attempt);
    }
    const std::string full = join(path, ".");
    bool ok = leaves_.count(full) == 0 && inner_.count(full) == 0;
    std::string prefix;
    for (std::size_t i = 0; ok && i + 1 < path.size(); ++i) {
      prefix += (i > 0 ? "." : "") + path[i];
      // The container's name is taken by a weight or module: give the whole a flat name.
      if (leaves_.count(prefix) != 0) return claim({to_identifier(full)});
    }
    if (!ok) continue;
    prefix.clear();
    for (std::size_t i = 0; i + 1 < path.size(); ++i) {
      prefix += (i > 0 ? "." : "") + path[i];
      inner_.insert(prefix);
    }
    leaves_.insert(full);
    return path;
  }
}

bool Keys::is_claimed(const Path& path) const {
  return leaves_.count(join(path, ".")) != 0;
}

std::string Keys::numbered(const std::string& stem) {
  return stem + "_" + std::to_string(++counts_[stem]);
}

}  // namespace onnx2nn::ops
