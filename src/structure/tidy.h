// The step `tidy`: what is used once and is short goes where it is used.
#pragma once

#include "torch/program.h"

namespace onnx2nn::structure {

void tidy(torch::Function& function);

}  // namespace onnx2nn::structure
