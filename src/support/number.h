// Numbers with a fraction, to and from text; where the C++ library has that for integers alone, too.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace onnx2nn {

/// The shortest text that gives the finite number back, as std::to_chars writes it: "0.1", "100000", "1e+06".
std::string shortest(double v);
std::string shortest(float v);

/// The number that the whole text is, in decimal.
std::optional<double> real_number(std::string_view text);

}  // namespace onnx2nn
