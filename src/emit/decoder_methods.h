// What a page's model has besides `forward` where it continues a text token by token.
#pragma once

#include <string>

#include "torch/decoder.h"

namespace onnx2nn::emit {

/// The methods `empty_cache`, `step` and `generate` of a class, a line left free in front of each.
std::string decoder_methods(const torch::Decoder& decoder);

}  // namespace onnx2nn::emit
