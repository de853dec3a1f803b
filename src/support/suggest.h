// What a misspelt name was meant to be.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace onnx2nn {

/// The one of `names` that `text` most likely stands for: the nearest by letters put in, left out,
/// changed or swapped with a neighbour, or the one that `text` shortens (fuse-bn: fuse-batch-norm).
/// Empty where none is near.
std::string_view closest(std::string_view text, std::span<const std::string_view> names);

}  // namespace onnx2nn
