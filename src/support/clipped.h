// Text that is cut short.
#pragma once

#include <cstddef>
#include <string_view>

namespace onnx2nn {

/// At most `most` bytes of UTF-8 from its beginning, cut between two characters.
inline std::string_view clipped(std::string_view text, std::size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0U) == 0x80U) --most;
  return text.substr(0, most);
}

}  // namespace onnx2nn
