// What the C++ library of Debian's Emscripten (3.1.6) lacks; included before every file of the page's build by the
// compiler's -include, and by nothing else.
#pragma once

#include <version>

#ifndef __cpp_lib_bit_cast
namespace std {
template <typename To, typename From>
constexpr To bit_cast(const From& from) noexcept {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}
}  // namespace std
#endif
