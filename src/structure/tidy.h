// The step `tidy`: what is used once and is short goes where it is used.
#pragma once

#include <cstddef>

#include "torch/program.h"

namespace onnx2nn::structure {

void tidy(torch::Function& function);

/// About as many characters as the expression takes on the page.
std::size_t width(const torch::Expr& e);

}  // namespace onnx2nn::structure
