// What classes are called: by the file, by their keys, or by what they do.
#pragma once

#include <string>
#include <vector>

#include "structure/tree.h"

namespace onnx2nn::structure {

/// What the class of a module is to be called, by the file or by the module's key.
std::string wanted_class_name(const Own& own);

/// The same for modules that share a class. Where all that is known is that it is a block, a layer or the
/// like, it is called by what the first of them does: "SqueezeExcitation", "TransformerBlock".
std::string wanted_class_name(const std::vector<Own*>& modules);

}  // namespace onnx2nn::structure
