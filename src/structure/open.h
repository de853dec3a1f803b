// The step `open`: a layer with statements around it is a module of the author's.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

/// A class that derives from one of torch's layers does more than that: LayerNorm2d permutes before
/// and after. Where statements of the layer's own scope stand around its call, the call becomes that
/// of the layer's function, and its weights are those of the module.
void open_layers(torch::Program& program);

}  // namespace onnx2nn::structure
