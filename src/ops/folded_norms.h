// What torch's exporters folded away before the file was written.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "torch/program.h"

namespace onnx2nn::ops {

/// Batch norms that were folded into the layers before them, by their names with `*` for each number;
/// where the file does not tell these, the layers that hold them. Sorted, each once.
std::vector<std::string> folded_batch_norms(const ir::Model& model, const torch::Program& program);

}  // namespace onnx2nn::ops
