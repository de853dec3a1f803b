// Tree ensembles as tensors: the attributes of ai.onnx.ml, checked and packed for the runtime's
// helpers.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/context.h"

namespace onnx2nn::ops {

/// Nodes are numbered over all trees, leaves first.
struct Forest {
  ir::TensorPtr roots;          // int32 [trees]
  ir::TensorPtr feature;        // int32 [nodes]
  ir::TensorPtr threshold;      // [nodes]
  ir::TensorPtr child;          // int32 [2 nodes]: false, true; a leaf is its own child
  ir::TensorPtr target;         // int64 [leaves, K], padded with n_targets
  ir::TensorPtr weight;         // [leaves, K], padded with 0
  ir::TensorPtr mode;           // int8 [nodes], where several modes are in use
  ir::TensorPtr missing;        // bool [nodes], where a missing value may go to the true branch
  ir::TensorPtr members;        // [sets + 1, widest], padded with NaN; row 0 is empty
  ir::TensorPtr member_row;     // int32 [nodes]
  std::int64_t depth = 0;       // steps to the deepest leaf
  Ints modes;                   // in use: 0 LEQ, 1 LT, 2 GTE, 3 GT, 4 EQ, 5 NEQ, 6 MEMBER
  std::vector<double> weights;  // as given
  std::vector<std::int64_t> targets;  // as given
};

/// The attributes of TreeEnsembleRegressor ("target") or TreeEnsembleClassifier ("class").
Forest pack_forest(const NodeContext& c, const std::string& prefix, std::int64_t n_targets);

/// The attributes of TreeEnsemble.
Forest pack_tree_ensemble(const NodeContext& c, std::int64_t n_targets);

/// Numbers from an attribute `name`, or from the tensor `name`_as_tensor of newer opsets.
std::vector<double> floats_or_tensor(const NodeContext& c, const std::string& name);
DType dtype_of_floats(const NodeContext& c, const std::string& name);

/// Numbers as a tensor of float32 or float64.
ir::TensorPtr float_tensor(DType dtype, std::vector<std::int64_t> dims,
                           const std::vector<double>& values);

}  // namespace onnx2nn::ops
