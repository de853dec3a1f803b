// What a weight of the file is to a module of torch: a parameter, a buffer, or a constant of the code.
#pragma once

#include "ir/graph.h"

namespace onnx2nn::ops {

struct WeightRole {
  bool trainable = false;   // an nn.Parameter; else a buffer
  bool persistent = false;  // an entry of the state_dict
};

/// The role of a constant that is read by itself, and not as the weight of a torch.nn module. A
/// floating-point initialiser is a parameter unless its name was made up by a tool, or it is called,
/// used or filled like a constant.
WeightRole weight_role(const ir::Value& value);

}  // namespace onnx2nn::ops
