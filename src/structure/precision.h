// The step `precision`: masks have the dtype that the weights are loaded in.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// Marks the variables whose dtype is that of the weights: float32 as the file has them, or what
/// `load` is given. `program` is still one function.
void mark_weight_dtypes(torch::Program& program);

/// `torch.where(mask, 0.0, torch.finfo(torch.float32).min)` is float32 whatever the weights are, and
/// attention on a GPU refuses such a mask beside halves, or reads it as halves. It becomes
/// `torch.where(mask, 0.0, torch.finfo(x.dtype).min).to(x.dtype)`, where an `x` that is marked is at
/// hand. In float32 that is the same.
void follow_weight_dtypes(torch::Function& function);

}  // namespace onnx2nn::structure
