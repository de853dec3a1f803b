// The step `precision`: what meets activations has the dtype that the weights are loaded in.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// Marks the variables whose dtype is that of the weights: float32 as the file has them, or what
/// `load` is given; and those that are float32 whatever that is (made of integers, or by torch.where of
/// two numbers) and meet such variables in a sum, a product or attention. `program` is still one function.
void mark_weight_dtypes(torch::Program& program);

/// The latter get `.to(x.dtype)` where they are made and an `x` of the former is at hand: the cosines
/// of positions, for one, are computed in float32 and rounded once. Attention on a GPU refuses a mask of
/// floats beside halves, or reads it as halves. Its lowest numbers are `torch.finfo(x.dtype).min`,
/// which the dtype can hold. In float32 all is as before.
void follow_weight_dtypes(torch::Function& function);

}  // namespace onnx2nn::structure
