// What a node says of the module that it was part of, before the model was exported.
#pragma once

#include "ir/graph.h"
#include "torch/program.h"

namespace onnx2nn::ops {

/// The calls of modules around the node, from the root inwards; null where it says nothing.
/// Read from the metadata of torch's exporter (pkg.torch.onnx.name_scopes and .class_hierarchy, else
/// `namespace`), else from the node's name: "/layer1/layer1.0/conv1/Conv".
torch::ScopePtr scope_of(const ir::Node& node);

}  // namespace onnx2nn::ops
