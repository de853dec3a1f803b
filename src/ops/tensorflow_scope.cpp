#include "ops/tensorflow_scope.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/names.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

using Parts = std::vector<std::string>;

// Layers nest no deeper; what says otherwise was not written by TensorFlow.
constexpr std::size_t kMaxParts = 64;
constexpr std::size_t kMaxText = 1 << 12;

template <std::size_t N>
bool one_of(std::string_view text, const std::string_view (&list)[N]) {
  return std::find(std::begin(list), std::end(list), text) != std::end(list);
}

/// "dense" of dense_1; the name itself where no number was counted.
std::string_view uncounted(std::string_view name) {
  const std::size_t at = name.rfind('_');
  return at != std::string_view::npos && at > 0 && is_number(name.substr(at + 1)) ? name.substr(0, at)
                                                                                  : name;
}

/// What exporters put in has the name of its neighbour with a number: BiasAdd__64.
std::string_view operation(std::string_view part) {
  return uncounted(part.substr(0, part.find("__", 1)));
}

/// Operations by which TensorFlow's names are known.
bool is_telling(std::string_view part) {
  static constexpr std::string_view kNames[] = {"BiasAdd",     "MatMul",    "Conv2D",
                                                "convolution", "Tensordot", "FusedBatchNormV3",
                                                "depthwise"};
  return one_of(operation(part), kNames);
}

/// Scopes that operations make for their steps: they are no layers.
bool is_of_operation(std::string_view part) {
  static constexpr std::string_view kNames[] = {
      "Add",     "BiasAdd",  "Cast",   "Conv2D",           "ExpandDims", "MatMul",    "Mean",
      "Pad",     "Reshape",  "Shape",  "Softmax",          "Squeeze",    "Sum",       "Tensordot",
      "batchnorm", "cond",   "conv1d", "conv2d_transpose", "convolution", "depthwise", "dropout",
      "einsum",  "moments",  "ones",   "packed",           "separable_conv2d", "strided_slice",
      "transpose", "while",  "zeros"};
  return part.starts_with("tf.") || one_of(operation(part), kNames);
}

bool is_call(std::string_view part) {
  static constexpr std::string_view kNames[] = {"PartitionedCall", "StatefulPartitionedCall"};
  return one_of(operation(part), kNames);
}

/// The scopes around an operation; empty where the name has none, or is no name of TensorFlow's.
Parts parts_of(std::string_view name) {
  Parts out;
  if (name.size() > kMaxText || name.empty() || name[0] == '/') return out;
  name = name.substr(0, name.find(';'));  // several operations that became one
  const auto all = split(name, '/');
  if (all.size() < 2 || all.size() > kMaxParts) return out;
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    if (is_call(all[i])) continue;
    if (i > 0 && is_of_operation(all[i])) break;
    if (!key_components(all[i], /*of_key=*/true)) return {};
    out.emplace_back(all[i]);
  }
  return out;
}

/// The node's name; where tf2onnx made it up (Conv__92), that of a weight which only this node has.
std::string_view telling_name(const ir::Node& node) {
  if (node.name.find('/') != std::string::npos || node.name.find("__") == std::string::npos) return node.name;
  for (std::size_t i = 1; i < node.input_count(); ++i) {
    const ir::Value* v = node.input(i);
    if (v != nullptr && v->is_initializer && v->has_one_use() && !parts_of(v->name).empty()) return v->name;
  }
  return node.name;
}

/// Without the model's own name, which stands before all.
void drop_root(std::vector<std::pair<const ir::Node*, Parts>>& all) {
  bool inner = false;
  for (const auto& [_, parts] : all) {
    if (parts[0] != all[0].second[0]) return;
    inner = inner || parts.size() > 1;
  }
  if (!inner) return;
  for (auto& [_, parts] : all) parts.erase(parts.begin());
}

/// A model that was traced before has a number behind each name, dense_1 and dense_1_2: without it, where
/// names still differ that did.
void drop_counts(std::vector<std::pair<const ir::Node*, Parts>>& all) {
  std::map<std::pair<std::string, std::string_view>, std::string_view> names;
  for (const auto& [_, parts] : all) {
    std::string outer;
    for (const std::string& part : parts) {
      const std::string_view stem = uncounted(part);
      if (stem.size() == part.size()) return;
      const auto [it, is_new] = names.emplace(std::pair(outer, stem), part);
      if (!is_new && it->second != part) return;
      outer += "/" + part;
    }
  }
  for (auto& [_, parts] : all)
    for (std::string& part : parts) part.resize(uncounted(part).size());
}

}  // namespace

TensorflowScopes::TensorflowScopes(const ir::Graph& graph) {
  std::vector<std::pair<const ir::Node*, Parts>> all;
  bool telling = false;
  ir::for_each_node(graph, [&](const ir::Node& n) {
    const std::string_view name = telling_name(n);
    Parts parts = parts_of(name);
    if (parts.empty()) return;
    telling = telling || is_telling(name.substr(name.rfind('/') + 1));
    all.emplace_back(&n, std::move(parts));
  });
  if (!telling) return;
  drop_root(all);
  drop_counts(all);
  for (const auto& [node, parts] : all) {
    torch::Scope scope;
    for (const std::string& part : parts) scope.push_back({part, "", 0});
    scopes_[node] = std::make_shared<const torch::Scope>(std::move(scope));
  }
}

torch::ScopePtr TensorflowScopes::of(const ir::Node& node) const {
  const auto it = scopes_.find(&node);
  return it == scopes_.end() ? nullptr : it->second;
}

}  // namespace onnx2nn::ops
