#include "emit/crc32.h"

#include <array>
#include <bit>
#include <cstring>

namespace onnx2nn::emit {
namespace {

constexpr std::size_t kSlices = 16;
using Table = std::array<std::array<std::uint32_t, 256>, kSlices>;

/// Row k: what a byte does to the remainder when k more bytes follow it.
constexpr Table make_table() {
  Table table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0xEDB88320U : 0U);
    table[0][i] = c;
  }
  for (std::size_t k = 1; k < kSlices; ++k) {
    for (std::size_t i = 0; i < 256; ++i)
      table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xFF];
  }
  return table;
}

constexpr Table kTable = make_table();

std::uint32_t word(const std::byte* p) {
  std::uint32_t value = 0;
  std::memcpy(&value, p, sizeof value);
  static_assert(std::endian::native == std::endian::little);
  return value;
}

/// The four bytes of `value`, of which the first is followed by `behind` + 3 others.
std::uint32_t fold(std::uint32_t value, std::size_t behind) {
  return kTable[behind + 3][value & 0xFF] ^ kTable[behind + 2][(value >> 8) & 0xFF] ^
         kTable[behind + 1][(value >> 16) & 0xFF] ^ kTable[behind][value >> 24];
}

}  // namespace

std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t crc) {
  crc = ~crc;
  const std::byte* p = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= kSlices; left -= kSlices, p += kSlices) {
    crc = fold(word(p) ^ crc, 12) ^ fold(word(p + 4), 8) ^ fold(word(p + 8), 4) ^
          fold(word(p + 12), 0);
  }
  for (; left > 0; --left, ++p)
    crc = (crc >> 8) ^ kTable[0][(crc ^ std::to_integer<std::uint32_t>(*p)) & 0xFF];
  return ~crc;
}

}  // namespace onnx2nn::emit
