// Modules as objects, each with a class of its own that takes no arguments: what is written by emitters
// whose classes have no constructors, such as TorchScript.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "torch/program.h"

namespace onnx2nn::torch {

struct Instance;

/// What a module has under one name: a weight or another module.
struct Attribute {
  std::string name;  // a component of a key: an identifier or a number
  ParamPtr param;
  std::shared_ptr<Instance> module;
};

/// In its functions weights and modules are attributes of `self`, by components of their keys, and
/// the method `text` of a module is called by an ExprKind::Method whose first argument is the
/// module.
struct Instance {
  std::string type;  // what its class is called: by the author, or by its key
  bool is_layer = false;  // of torch.nn
  std::vector<Attribute> attributes;
  std::vector<Function> functions;  // `forward` first; none: what has only attributes
};
using InstancePtr = std::shared_ptr<Instance>;

}  // namespace onnx2nn::torch
