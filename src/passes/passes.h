// Simplification: rules run to a fixed point.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>

#include "ir/graph.h"
#include "support/error.h"

namespace onnx2nn::passes {

struct Options {
  bool change_weights = false;  // rules that compute new weight values (folding batch norms, ...)
  bool fuse = false;            // rules that spell several operators as one of ONNX's
  std::set<std::string> disabled;
};

/// What conversion wants: nothing that changes a weight, nothing that torch says better itself.
inline Options for_conversion() { return {}; }

/// Infers and rewrites `model` until nothing changes; counts in `rules` how often each rule did something.
void simplify(ir::Model& model, const Options& options, Diagnostics& diagnostics, std::map<std::string, std::size_t>& rules);

}  // namespace onnx2nn::passes
