// Which functions of torch leave elements at their places.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace onnx2nn::structure {

inline bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Functions that compute each element from those at its place.
inline bool is_elementwise(std::string_view f) {
  return is_one_of(f, {"add",     "sub",        "mul",     "div",       "neg",        "abs",
                       "relu",    "gelu",       "silu",    "sigmoid",   "tanh",       "exp",
                       "sqrt",    "rsqrt",      "square",  "pow",       "erf",        "mish",
                       "elu",     "leaky_relu", "hardtanh", "hardswish", "hardsigmoid", "softplus",
                       "maximum", "minimum",    "where",   "relu6",     "clamp",      "masked_fill"});
}

/// Functions that leave each element of their first argument where it is.
inline bool passes_on(std::string_view f) {
  return is_one_of(f, {"contiguous", "to", "clone", "float", "alias"});
}

}  // namespace onnx2nn::structure
