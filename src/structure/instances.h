// The modules of the page as objects, for outputs whose classes have no constructors.
#pragma once

#include "structure/structure.h"
#include "torch/instance.h"

namespace onnx2nn::structure {

/// The model as a tree of modules; each has the functions of its own numbers, loops over modules
/// are not rolled. Keys of weights are those of the page. Variables have their names.
torch::InstancePtr instances(const Page& page);

}  // namespace onnx2nn::structure
