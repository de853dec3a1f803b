#include "ops/ml/trees.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace onnx2nn::ops {
namespace {

constexpr std::int64_t kMember = 6;

/// What both kinds of operator give, in the new numbering.
struct Nodes {
  std::size_t leaves = 0;
  std::vector<std::int32_t> roots;
  std::vector<std::int32_t> feature;
  std::vector<double> threshold;
  std::vector<std::int32_t> child;
  std::vector<std::int8_t> mode;  // of leaves 0
  std::vector<std::uint8_t> missing;
  std::size_t size() const { return feature.size(); }
};

/// Steps from the roots to the deepest leaf. A node that two parents share is fine, a cycle is not.
std::int64_t depth_of(const NodeContext& c, const Nodes& nodes) {
  constexpr std::int64_t kNew = -1;
  constexpr std::int64_t kOpen = -2;
  std::vector<std::int64_t> depth(nodes.size(), kNew);
  for (std::size_t i = 0; i < nodes.leaves; ++i) depth[i] = 0;
  std::vector<std::size_t> stack;
  std::int64_t deepest = 0;
  for (const std::int32_t root : nodes.roots) {
    stack.push_back(static_cast<std::size_t>(root));
    while (!stack.empty()) {
      const std::size_t n = stack.back();
      if (depth[n] >= 0) {
        stack.pop_back();
        continue;
      }
      const auto no = static_cast<std::size_t>(nodes.child[2 * n]);
      const auto yes = static_cast<std::size_t>(nodes.child[2 * n + 1]);
      if (depth[n] == kOpen && depth[no] >= 0 && depth[yes] >= 0) {
        depth[n] = 1 + std::max(depth[no], depth[yes]);
        stack.pop_back();
        continue;
      }
      depth[n] = kOpen;
      for (const std::size_t next : {no, yes}) {
        if (depth[next] == kOpen) c.fail("the nodes of a tree form a cycle");
        if (depth[next] == kNew) stack.push_back(next);
      }
    }
    deepest = std::max(deepest, depth[static_cast<std::size_t>(root)]);
  }
  return deepest;
}

template <typename T>
std::int64_t length(const std::vector<T>& v) {
  return static_cast<std::int64_t>(v.size());
}

template <typename T>
void check_size(const NodeContext& c, const std::vector<T>& values, std::size_t n,
                const std::string& name) {
  if (values.size() != n)
    c.fail(name + " has " + std::to_string(values.size()) + " entries, not " + std::to_string(n));
}

std::int32_t index32(const NodeContext& c, std::int64_t value, std::int64_t below,
                     const char* what) {
  if (value < 0 || value >= below)
    c.fail(std::string(what) + " " + std::to_string(value) + " is out of range");
  return static_cast<std::int32_t>(value);
}

constexpr std::int64_t kMaxIndex = std::numeric_limits<std::int32_t>::max();

void pack_nodes(const NodeContext& c, const Nodes& nodes, DType dtype, Forest& out) {
  out.depth = depth_of(c, nodes);
  const std::int64_t n = length(nodes.feature);
  out.roots = ir::Tensor::from(DType::Int32, {length(nodes.roots)}, nodes.roots);
  out.feature = ir::Tensor::from(DType::Int32, {n}, nodes.feature);
  out.threshold = float_tensor(dtype, {n}, nodes.threshold);
  out.child = ir::Tensor::from(DType::Int32, {2 * n}, nodes.child);
  std::array<bool, 7> used{};
  for (std::size_t i = nodes.leaves; i < nodes.size(); ++i)
    used[static_cast<std::size_t>(nodes.mode[i])] = true;
  for (std::size_t m = 0; m < used.size(); ++m)
    if (used[m]) out.modes.push_back(static_cast<std::int64_t>(m));
  if (out.modes.size() > 1) out.mode = ir::Tensor::from(DType::Int8, {n}, nodes.mode);
  if (std::any_of(nodes.missing.begin(), nodes.missing.end(),
                  [](std::uint8_t m) { return m != 0; }))
    out.missing = ir::Tensor::from(DType::Bool, {n}, nodes.missing);
}

/// The features that the input is known to have; what reads beyond is refused.
std::int64_t feature_count(const NodeContext& c) {
  const Shape& s = c.shape(0);
  if (s.has_rank() && s.rank() > 0 && s.dims().back().is_const()) return s.dims().back().value();
  return kMaxIndex;
}

/// One long row would make a padded table far larger than the model.
void check_padding(const NodeContext& c, std::size_t cells, std::size_t given,
                   const char* message) {
  constexpr std::size_t kAlwaysFine = std::size_t{1} << 22U;
  if (cells > kAlwaysFine + 64 * given) c.unsupported(message);
}

struct PairHash {
  std::size_t operator()(const std::pair<std::int64_t, std::int64_t>& p) const {
    return std::hash<std::int64_t>()(p.first) * 0x9E3779B97F4A7C15U ^
           std::hash<std::int64_t>()(p.second);
  }
};

std::int8_t mode_of(const NodeContext& c, std::string_view name) {
  static constexpr std::array<std::string_view, 6> kNames = {
      "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"};
  const auto* const it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end()) c.fail("the node mode \"" + std::string(name) + "\" is not known");
  return static_cast<std::int8_t>(it - kNames.begin());
}

}  // namespace

std::vector<double> floats_or_tensor(const NodeContext& c, const std::string& name) {
  if (const auto tensor = c.attr_tensor(name + "_as_tensor")) {
    c.ignore_attr(name);
    return tensor->to_doubles();
  }
  return c.attr_floats(name).value_or(std::vector<double>{});
}

DType dtype_of_floats(const NodeContext& c, const std::string& name) {
  const auto tensor = c.attr_tensor(name + "_as_tensor");
  return tensor && tensor->dtype() == DType::Float64 ? DType::Float64 : DType::Float32;
}

ir::TensorPtr float_tensor(DType dtype, std::vector<std::int64_t> dims,
                           const std::vector<double>& values) {
  if (dtype == DType::Float64) return ir::Tensor::from(DType::Float64, std::move(dims), values);
  const std::vector<float> narrow(values.begin(), values.end());
  return ir::Tensor::from(DType::Float32, std::move(dims), narrow);
}

Forest pack_forest(const NodeContext& c, const std::string& prefix, std::int64_t n_targets) {
  const auto ints = [&](const std::string& name) { return c.attr_ints(name).value_or(Ints{}); };
  const Ints trees = ints("nodes_treeids");
  const Ints ids = ints("nodes_nodeids");
  const Ints features = ints("nodes_featureids");
  const Ints yes = ints("nodes_truenodeids");
  const Ints no = ints("nodes_falsenodeids");
  const Ints tracks = ints("nodes_missing_value_tracks_true");
  const auto modes = c.attr_strings("nodes_modes").value_or(std::vector<std::string>{});
  const auto values = floats_or_tensor(c, "nodes_values");
  c.ignore_attr("nodes_hitrates");
  c.ignore_attr("nodes_hitrates_as_tensor");
  const std::size_t n = modes.size();
  check_size(c, trees, n, "nodes_treeids");
  check_size(c, ids, n, "nodes_nodeids");
  check_size(c, features, n, "nodes_featureids");
  check_size(c, yes, n, "nodes_truenodeids");
  check_size(c, no, n, "nodes_falsenodeids");
  check_size(c, values, n, "nodes_values");
  if (!tracks.empty()) check_size(c, tracks, n, "nodes_missing_value_tracks_true");
  if (n == 0) c.fail("it has no trees");

  std::vector<std::size_t> order;
  for (const bool leaf : {true, false})
    for (std::size_t i = 0; i < n; ++i)
      if ((modes[i] == "LEAF") == leaf) order.push_back(i);
  std::unordered_map<std::pair<std::int64_t, std::int64_t>, std::int32_t, PairHash> number;
  number.reserve(n);
  for (std::size_t at = 0; at < n; ++at)
    if (!number.emplace(std::pair{trees[order[at]], ids[order[at]]}, static_cast<std::int32_t>(at))
             .second)
      c.fail("node " + std::to_string(ids[order[at]]) + " of tree " +
             std::to_string(trees[order[at]]) + " is there twice");
  const auto find = [&](std::int64_t tree, std::int64_t id) {
    const auto it = number.find({tree, id});
    if (it == number.end())
      c.fail("tree " + std::to_string(tree) + " has no node " + std::to_string(id));
    return it->second;
  };

  Nodes nodes;
  const std::int64_t width = feature_count(c);
  for (std::size_t at = 0; at < n; ++at) {
    const std::size_t i = order[at];
    const bool leaf = modes[i] == "LEAF";
    if (leaf) ++nodes.leaves;
    nodes.feature.push_back(leaf ? 0 : index32(c, features[i], width, "the feature"));
    nodes.threshold.push_back(values[i]);
    nodes.mode.push_back(leaf ? std::int8_t{0} : mode_of(c, modes[i]));
    nodes.missing.push_back(!leaf && !tracks.empty() && tracks[i] == 1 ? 1 : 0);
    nodes.child.push_back(leaf ? static_cast<std::int32_t>(at) : find(trees[i], no[i]));
    nodes.child.push_back(leaf ? static_cast<std::int32_t>(at) : find(trees[i], yes[i]));
  }
  // A tree's first node is its root.
  for (std::size_t i = 0; i < n; ++i)
    if (i == 0 || trees[i] != trees[i - 1]) nodes.roots.push_back(find(trees[i], ids[i]));
  Forest out;
  pack_nodes(c, nodes, dtype_of_floats(c, "nodes_values"), out);

  const Ints leaf_trees = ints(prefix + "_treeids");
  const Ints leaf_ids = ints(prefix + "_nodeids");
  out.targets = ints(prefix + "_ids");
  out.weights = floats_or_tensor(c, prefix + "_weights");
  check_size(c, leaf_trees, out.weights.size(), prefix + "_treeids");
  check_size(c, leaf_ids, out.weights.size(), prefix + "_nodeids");
  check_size(c, out.targets, out.weights.size(), prefix + "_ids");
  std::vector<std::int32_t> leaf_of;
  std::vector<std::int64_t> given(nodes.leaves, 0);
  for (std::size_t i = 0; i < out.weights.size(); ++i) {
    leaf_of.push_back(find(leaf_trees[i], leaf_ids[i]));
    index32(c, out.targets[i], n_targets, "the target");
    // Weights of inner nodes are never reached.
    if (static_cast<std::size_t>(leaf_of[i]) < nodes.leaves)
      ++given[static_cast<std::size_t>(leaf_of[i])];
  }
  // Of several weights for the only target ONNX Runtime takes the first, and exporters of decision
  // paths count on it.
  if (n_targets == 1)
    for (std::int64_t& count : given) count = std::min<std::int64_t>(count, 1);
  const std::int64_t most =
      std::max<std::int64_t>(1, given.empty() ? 1 : *std::max_element(given.begin(), given.end()));
  check_padding(c, nodes.leaves * static_cast<std::size_t>(most), out.weights.size(),
                "one leaf has very many weights");
  std::vector<std::int64_t> target(nodes.leaves * static_cast<std::size_t>(most), n_targets);
  std::vector<double> weight(target.size(), 0.0);
  std::fill(given.begin(), given.end(), 0);
  for (std::size_t i = 0; i < out.weights.size(); ++i) {
    const auto leaf = static_cast<std::size_t>(leaf_of[i]);
    if (leaf >= nodes.leaves || given[leaf] == most) continue;
    const std::size_t at =
        leaf * static_cast<std::size_t>(most) + static_cast<std::size_t>(given[leaf]++);
    target[at] = out.targets[i];
    weight[at] = out.weights[i];
  }
  const std::vector<std::int64_t> dims{static_cast<std::int64_t>(nodes.leaves), most};
  out.target = ir::Tensor::from(DType::Int64, dims, target);
  out.weight = float_tensor(dtype_of_floats(c, prefix + "_weights"), dims, weight);
  return out;
}

Forest pack_tree_ensemble(const NodeContext& c, std::int64_t n_targets) {
  const auto ints = [&](const std::string& name) { return c.attr_ints(name).value_or(Ints{}); };
  const auto required = [&](const std::string& name) {
    auto t = c.attr_tensor(name);
    if (!t) c.fail("the attribute \"" + name + "\" is missing");
    return t;
  };
  const Ints features = ints("nodes_featureids");
  const Ints yes = ints("nodes_truenodeids");
  const Ints no = ints("nodes_falsenodeids");
  const Ints yes_leaf = ints("nodes_trueleafs");
  const Ints no_leaf = ints("nodes_falseleafs");
  const Ints tracks = ints("nodes_missing_value_tracks_true");
  const Ints leaf_targets = ints("leaf_targetids");
  const auto splits = required("nodes_splits");
  const Ints modes = required("nodes_modes")->to_ints();
  const auto weights = required("leaf_weights");
  c.ignore_attr("nodes_hitrates");
  const std::size_t n = modes.size();
  const std::size_t leaves = leaf_targets.size();
  check_size(c, features, n, "nodes_featureids");
  check_size(c, yes, n, "nodes_truenodeids");
  check_size(c, no, n, "nodes_falsenodeids");
  check_size(c, yes_leaf, n, "nodes_trueleafs");
  check_size(c, no_leaf, n, "nodes_falseleafs");
  if (!tracks.empty()) check_size(c, tracks, n, "nodes_missing_value_tracks_true");
  Forest out;
  out.weights = weights->to_doubles();
  out.targets = leaf_targets;
  const std::vector<double> split_values = splits->to_doubles();
  check_size(c, split_values, n, "nodes_splits");
  check_size(c, out.weights, leaves, "leaf_weights");
  const DType dtype = splits->dtype() == DType::Float64 ? DType::Float64 : DType::Float32;
  for (const std::int64_t t : leaf_targets) index32(c, t, n_targets, "the target");

  Nodes nodes;
  nodes.leaves = leaves;
  nodes.feature.assign(leaves, 0);
  nodes.threshold.assign(leaves, 0.0);
  nodes.mode.assign(leaves, 0);
  nodes.missing.assign(leaves, 0);
  for (std::size_t i = 0; i < leaves; ++i)
    nodes.child.insert(nodes.child.end(), 2, static_cast<std::int32_t>(i));
  const std::int64_t width = feature_count(c);
  const auto place = [&](std::int64_t id, bool leaf) {
    const auto count = static_cast<std::int64_t>(leaf ? leaves : n);
    return index32(c, id, count, leaf ? "the leaf" : "the node") +
           (leaf ? 0 : static_cast<std::int32_t>(leaves));
  };
  for (std::size_t i = 0; i < n; ++i) {
    nodes.feature.push_back(index32(c, features[i], width, "the feature"));
    nodes.threshold.push_back(split_values[i]);
    nodes.mode.push_back(
        static_cast<std::int8_t>(index32(c, modes[i], kMember + 1, "the node mode")));
    nodes.missing.push_back(!tracks.empty() && tracks[i] == 1 ? 1 : 0);
    nodes.child.push_back(place(no[i], no_leaf[i] != 0));
    nodes.child.push_back(place(yes[i], yes_leaf[i] != 0));
  }
  for (const std::int64_t root : ints("tree_roots")) nodes.roots.push_back(place(root, false));
  if (nodes.roots.empty()) c.fail("it has no trees");
  pack_nodes(c, nodes, dtype, out);
  out.target = ir::Tensor::from(DType::Int64, {static_cast<std::int64_t>(leaves), 1}, leaf_targets);
  out.weight = float_tensor(dtype, {static_cast<std::int64_t>(leaves), 1}, out.weights);

  // Sets of members end with NaN, in the order of the nodes that ask for one.
  const auto membership = c.attr_tensor("membership_values");
  if (out.modes.empty() || out.modes.back() != kMember) return out;
  std::vector<std::vector<double>> sets{{}};
  for (const double value : membership ? membership->to_doubles() : std::vector<double>{}) {
    if (std::isnan(value)) {
      sets.emplace_back();
    } else {
      sets.back().push_back(value);
    }
  }
  const auto asking = static_cast<std::size_t>(std::count(modes.begin(), modes.end(), kMember));
  if (sets.size() < asking)
    c.fail("membership_values has " + std::to_string(sets.size()) + " sets for " +
           std::to_string(asking) + " nodes");
  sets.resize(asking);
  std::size_t widest = 0;
  for (const auto& s : sets) widest = std::max(widest, s.size());
  check_padding(c, widest * (asking + 1),
                static_cast<std::size_t>(membership ? membership->size() : 0),
                "one node has very many members");
  std::vector<double> rows(widest * (asking + 1), std::numeric_limits<double>::quiet_NaN());
  for (std::size_t i = 0; i < asking; ++i)
    std::copy(sets[i].begin(), sets[i].end(),
              rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * widest));
  std::vector<std::int32_t> row_of(leaves, 0);
  std::int32_t used = 0;
  for (const std::int64_t mode : modes) row_of.push_back(mode == kMember ? ++used : 0);
  out.members = float_tensor(
      dtype, {static_cast<std::int64_t>(asking) + 1, static_cast<std::int64_t>(widest)}, rows);
  out.member_row = ir::Tensor::from(DType::Int32, {length(row_of)}, row_of);
  return out;
}

}  // namespace onnx2nn::ops
