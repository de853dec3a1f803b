// The keys of layers and weights: the author's, where the file tells them.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ir/graph.h"
#include "ops/weight_role.h"
#include "torch/program.h"

namespace onnx2nn::ops {

using Path = std::vector<std::string>;

/// What the file says of the author's modules and weights, and who has which key.
class Keys {
 public:
  explicit Keys(const ir::Model& model);

  const Signature& said() const { return said_; }
  /// The calls of modules around a node; null where the file says nothing.
  torch::ScopePtr scope_of(const ir::Node& node) const;
  /// Whether names of weights or scopes of nodes have modules inside this one.
  bool has_modules(const Path& path) const;
  /// Whether nodes are of this module, or of some inside.
  bool is_called(const Path& path) const;
  /// Whether names of weights have some inside this module.
  bool has_weights(const Path& path) const;

  /// The author's parameters in the module that no constant of the file is called after, and in those
  /// inside of it that no node is said to be of: the exporter turned, joined or computed them, or
  /// found them equal to others. In the order of their registration, without those that were taken.
  std::vector<std::string> left(const Path& module) const;
  /// All of them.
  std::vector<std::string> left() const;
  void take(const std::string& key) { taken_.insert(key); }

  /// Gives the path to a layer, weight or constant, changed where another has it or no module can.
  Path claim(Path path);
  /// Whether a layer, weight or constant has it.
  bool is_claimed(const Path& path) const;
  /// "conv_1", "conv_2", ...
  std::string numbered(const std::string& stem);

 private:
  Signature said_;
  std::unordered_map<const ir::Node*, torch::ScopePtr> scopes_;  // of nodes that have one
  std::vector<std::string_view> names_;                          // of weights, sorted
  std::set<std::string> containers_;  // paths that have modules inside
  std::set<std::string> called_;      // paths of scopes
  std::map<std::string, std::vector<std::string>> left_;  // by the module that is called
  std::set<std::string> taken_;
  std::set<std::string> leaves_, inner_;  // what is claimed, and what is around it
  std::map<std::string, int> counts_, attempts_;
};

}  // namespace onnx2nn::ops
