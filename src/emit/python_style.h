// How a person spells each ATen function in Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace onnx2nn::emit {

// Python's precedences, tighter ones higher.
inline constexpr int kCompare = 30;
inline constexpr int kSum = 42;
inline constexpr int kProduct = 44;
inline constexpr int kUnary = 46;
inline constexpr int kPower = 48;
inline constexpr int kPostfix = 60;

enum class StyleKind : std::uint8_t { Torch, Functional, Method, Infix, Prefix };

struct Style {
  StyleKind kind = StyleKind::Torch;
  std::string_view text;       // the operator, or the Python name where it differs
  int precedence = kPostfix;   // of operators
  std::size_t positional = 0;  // arguments up to this index need no keyword
  bool spread = false;         // a list as argument 1 is given as single arguments
  bool keywords = false;       // tensors after the first go by keyword too
  bool swapped = false;        // Python takes the first two arguments the other way round
};

/// The style of an ATen function, without its overload; torch.name(...) where nothing else is said.
Style style_of(std::string_view function);

}  // namespace onnx2nn::emit
