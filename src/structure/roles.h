// What blocks, layers and weights are called by what they do, where no author has named them.
#pragma once

#include <string>
#include <vector>

#include "torch/program.h"

namespace onnx2nn::structure {

struct Role {
  std::string name;  // of one: "block"
  std::string list;  // of several in a row: "blocks"
  std::string type;  // its class: "Bottleneck"
};

/// Of a block that consists of these statements; `has_lists`: some of them are blocks in a row.
Role role(const std::vector<const torch::Stmt*>& statements, bool has_lists);

/// "conv" of nn.Conv2d; a number may follow.
std::string layer_stem(const torch::Module& module);
/// Of a weight that is no layer's, from what the statement does with it.
std::string weight_stem(const torch::Stmt& statement, const torch::Param& param);

/// Whether the statement is a layer, or a function with a module in torch, of one variable.
bool is_step(const torch::Stmt& statement);

}  // namespace onnx2nn::structure
