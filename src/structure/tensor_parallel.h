// Which linear layers may be split over processes: tensor parallelism as torch's parallelize_module does it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "torch/program.h"

namespace onnx2nn::structure {

struct TensorParallelPlan {
  /// Paths of modules, equal ones of a list as one with "*", and "ColwiseParallel" or "RowwiseParallel".
  std::vector<std::pair<std::string, std::string>> styles;
  /// Of the other linear layers, the reason why they stay whole.
  std::vector<std::pair<std::string, std::string>> whole;
  /// The number of processes has to divide it: the numbers of heads and of features. 0 where nothing is split.
  std::int64_t parts = 0;
};

/// Blocks that begin with layers split by columns and end with layers split by rows, each process
/// computing on its shards alone what lies between, and gradients too. Sizes in between that
/// would be another with each number of processes (heads) become -1 in the program. What is not
/// shown to be right stays whole. The layers have the paths that they keep.
TensorParallelPlan tensor_parallel(torch::Program& program);

}  // namespace onnx2nn::structure
