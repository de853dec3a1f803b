// The step `names`: what variables are called.
#pragma once

#include <set>
#include <string>

#include "structure/readers.h"
#include "torch/program.h"

namespace onnx2nn::structure {

/// Gives each variable of the function its name: by what it is, and one that is free where it lives.
/// `taken`: names of the file that the function may call, such as helpers. `kept`: variables that
/// keep the name which the model has for them. `roles`: what readers say that variables are.
void name_variables(torch::Function& function, const std::set<std::string>& taken,
                    const std::set<int>& kept, const Roles& roles);

}  // namespace onnx2nn::structure
