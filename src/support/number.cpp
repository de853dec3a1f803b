#include "support/number.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>

namespace onnx2nn {
namespace {

/// `text` says `v` with as few digits as there are. Its digits, laid out with an exponent or without, whichever is shorter.
std::string laid_out(std::string_view text, double v) {
  const bool negative = text[0] == '-';
  if (negative) text.remove_prefix(1);
  const std::size_t e = std::min(text.find('e'), text.size());
  int exponent = e < text.size() ? std::atoi(std::string(text.substr(e + 1)).c_str()) : 0;
  const std::string_view mantissa = text.substr(0, e);
  std::string digits;
  for (const char c : mantissa)
    if (c != '.') digits += c;
  exponent += static_cast<int>(std::min(mantissa.find('.'), mantissa.size())) - 1;
  const std::size_t zeros = std::min(digits.find_first_not_of('0'), digits.size() - 1);
  digits.erase(0, zeros);
  exponent -= static_cast<int>(zeros);
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.empty()) return negative ? "-0" : "0";

  const auto count = static_cast<int>(digits.size());
  std::string scientific = digits.substr(0, 1);
  if (count > 1) scientific += "." + digits.substr(1);
  scientific += fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  std::string plain;
  if (exponent >= count - 1) {
    plain = fmt::format("{:.0f}", std::abs(v));  // what the digits leave out is not always zeros
  } else if (exponent >= 0) {
    plain = digits.insert(static_cast<std::size_t>(exponent + 1), ".");
  } else {
    plain = "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  }
  return (negative ? "-" : "") + (plain.size() <= scientific.size() ? plain : scientific);
}

}  // namespace

std::string shortest(double v) {
  return laid_out(fmt::format("{}", v), v);
}

std::string shortest(float v) {
  return laid_out(fmt::format("{}", v), static_cast<double>(v));
}

std::optional<double> real_number(std::string_view text) {
#ifdef __cpp_lib_to_chars
  double value = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), value);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size()) return {};
  return value;
#else  // the page's library, whose locale is always that of C
  const std::string copy(text);
  if (copy.find_first_not_of("0123456789.e+-") != std::string::npos) return {};
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  if (copy.empty() || copy[0] == '+' || end != copy.c_str() + copy.size()) return {};
  return value;
#endif
}

}  // namespace onnx2nn
