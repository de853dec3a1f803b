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

/// What the names of one thing in two modules have in common: past_key of past_key_values_0_key and
/// past_key_values_1_key. The first where they differ in more than a number.
std::string common_hint(const std::string& a, const std::string& b);

}  // namespace onnx2nn::structure
