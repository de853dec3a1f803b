// Simplification: named rules, run to a fixed point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "support/error.h"

namespace onnx2nn::passes {

/// A node that a rule looked at and left alone, and why.
struct Miss {
  std::string rule;
  std::string node;
  std::string reason;
};

struct Options {
  /// Rules that compute weights (folding batch norms, ...), merge values, or spell several
  /// operators as one of ONNX's: what makes a better model, but not better source.
  bool change_weights = false;
  std::set<std::string, std::less<>> also;  // rules to use though `change_weights` is off
  /// Folding makes no constant of more bytes.
  std::uint64_t max_constant = std::numeric_limits<std::uint64_t>::max();
  std::set<std::string, std::less<>> disabled;
  std::set<std::string, std::less<>> only;  // where not empty, the others are disabled
  /// Rewrites after which it stops, to find the one at fault.
  std::size_t stop_after = std::numeric_limits<std::size_t>::max();
  /// Each rewrite in order, where asked for: the rule, and the node that it was about.
  std::vector<std::pair<std::string, std::string>>* log = nullptr;
  /// Nodes may become operators of any opset, each by itself: conversion has no opset to keep.
  bool any_opset = false;
  /// Operators, by domain and type, that the user has code for: they stay as they are.
  std::set<std::pair<std::string, std::string>> kept;
  /// Rules of which it is asked why they left nodes alone that they almost took. `misses` holds
  /// what is true of the graph as it is in the end.
  std::set<std::string, std::less<>> why_not;
  std::vector<Miss>* misses = nullptr;
};

/// What conversion wants: nothing that changes a weight, nothing that torch says better itself.
/// With `fuse_weights` what follows a linear operator by channel is folded into its weights.
inline Options for_conversion(bool fuse_weights = false) {
  Options options;
  if (fuse_weights) options.also = {"fuse-batch-norm", "fuse-arithmetic", "fuse-into-batch-norm"};
  options.any_opset = true;
  return options;
}

struct RuleInfo {
  std::string_view name;
  std::string_view what;
};
/// All rules of simplification, in the order in which a node meets them.
std::vector<RuleInfo> rules();

/// Infers and rewrites `model` until nothing changes; counts in `counts` how often each rule did
/// something. Leaves all types inferred.
void simplify(ir::Model& model, const Options& options, Diagnostics& diagnostics,
              std::map<std::string, std::size_t>& counts);

}  // namespace onnx2nn::passes
