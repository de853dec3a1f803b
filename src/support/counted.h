// Names that tools counted: mul_46, conv2, val.3.
#pragma once

#include <string_view>

#include "support/text.h"

namespace onnx2nn {

/// The name without the digits that it ends with.
constexpr std::string_view without_digits(std::string_view name) {
  while (!name.empty() && is_digit(name.back())) name.remove_suffix(1);
  return name;
}

/// The name without the number that it was counted with, of digits and underscores: mul of mul_46.
constexpr std::string_view without_count(std::string_view name) {
  while (!name.empty() && (is_digit(name.back()) || name.back() == '_')) name.remove_suffix(1);
  return name;
}

}  // namespace onnx2nn
