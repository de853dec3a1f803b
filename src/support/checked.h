// Arithmetic on numbers from a file: overflow is an Error, never wraparound, and a float becomes an
// integer only where it fits.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "support/error.h"

namespace onnx2nn {

template <std::integral T>
T checked_add(T a, std::type_identity_t<T> b, std::string_view what = "size") {
  T sum{};
  if (__builtin_add_overflow(a, b, &sum)) fail("too-large", "{} overflows: {} + {}", what, a, b);
  return sum;
}

template <std::integral T>
T checked_sub(T a, std::type_identity_t<T> b, std::string_view what = "size") {
  T difference{};
  if (__builtin_sub_overflow(a, b, &difference))
    fail("too-large", "{} overflows: {} - {}", what, a, b);
  return difference;
}

template <std::integral T>
T checked_mul(T a, std::type_identity_t<T> b, std::string_view what = "size") {
  T product{};
  if (__builtin_mul_overflow(a, b, &product))
    fail("too-large", "{} overflows: {} * {}", what, a, b);
  return product;
}

/// `value` as a To, or an Error where it does not fit.
template <std::integral To, std::integral From>
To narrow(From value, std::string_view what = "number") {
  if (!std::in_range<To>(value))
    fail("too-large", "{} {} does not fit in {} bits", what, value, sizeof(To) * 8);
  return static_cast<To>(value);
}

/// `value` without its fraction, or nothing where that is no To: NaN, infinite, too large.
template <std::integral To, std::floating_point From>
std::optional<To> to_integer(From value) {
  // One more than the greatest To is a power of two, which every float holds.
  constexpr From kEnd = static_cast<From>(std::numeric_limits<To>::max() / 2 + 1) * From(2);
  const From whole = std::trunc(value);
  if (!(whole < kEnd && whole >= static_cast<From>(std::numeric_limits<To>::min())))
    return std::nullopt;
  return static_cast<To>(whole);
}

/// The To that is nearest to `value` without its fraction; 0 for NaN.
template <std::integral To, std::floating_point From>
To saturated(From value) {
  if (const auto exact = to_integer<To>(value)) return *exact;
  if (std::isnan(value)) return 0;
  return value < 0 ? std::numeric_limits<To>::min() : std::numeric_limits<To>::max();
}

/// The product of `dims` (1 for none); negative dims and overflow are an Error. A zero makes it 0
/// whatever the others are.
inline std::int64_t element_count(std::span<const std::int64_t> dims) {
  bool zero = false;
  for (const std::int64_t d : dims) {
    if (d < 0) fail("bad-model", "negative dimension {}", d);
    zero = zero || d == 0;
  }
  if (zero) return 0;
  std::int64_t count = 1;
  for (const std::int64_t d : dims) count = checked_mul(count, d, "element count");
  return count;
}

}  // namespace onnx2nn
