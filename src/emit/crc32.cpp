#include "emit/crc32.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace onnx2nn::emit {
namespace {

constexpr std::uint32_t kPolynomial = 0xEDB88320;  // x^31 is the lowest bit
constexpr std::size_t kSlices = 16;
using Table = std::array<std::array<std::uint32_t, 256>, kSlices>;

/// Row k: what a byte does to the remainder when k more bytes follow it.
constexpr Table make_table() {
  Table table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? kPolynomial : 0U);
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

/// The remainder after more bytes, not inverted.
std::uint32_t by_table(std::span<const std::byte> bytes, std::uint32_t crc) {
  const std::byte* p = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= kSlices; left -= kSlices, p += kSlices) {
    crc = fold(word(p) ^ crc, 12) ^ fold(word(p + 4), 8) ^ fold(word(p + 8), 4) ^
          fold(word(p + 12), 0);
  }
  for (; left > 0; --left, ++p)
    crc = (crc >> 8) ^ kTable[0][(crc ^ std::to_integer<std::uint32_t>(*p)) & 0xFF];
  return crc;
}

/// a * b modulo the polynomial.
constexpr std::uint32_t product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out = 0;
  for (std::uint32_t bit = 1U << 31; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) out ^= b;
    b = (b >> 1) ^ ((b & 1) != 0 ? kPolynomial : 0U);
  }
  return out;
}

#if defined(__x86_64__)

#define ONNX2NN_CLMUL __attribute__((target("pclmul,sse4.1")))

/// 16 bytes moved on by the distance that `factors` are for, added to those there.
ONNX2NN_CLMUL inline __m128i moved(__m128i bytes, __m128i factors, __m128i there) {
  return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(bytes, factors, 0x00),
                                     _mm_clmulepi64_si128(bytes, factors, 0x11)),
                       there);
}

/// By products without carry, as in Gopal et al., "Fast CRC Computation for Generic Polynomials Using
/// PCLMULQDQ" (Intel, 2009): four times 16 bytes are moved on by 64 until they meet the end. The
/// factors are x^(n + 32) and x^(n - 32) modulo the polynomial, bits reversed, for n bits.
ONNX2NN_CLMUL std::uint32_t by_products(std::span<const std::byte> bytes, std::uint32_t crc) {
  constexpr std::size_t kBlock = 64;
  const __m128i by_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
  const __m128i by_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
  const auto load = [](const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  };
  const std::byte* p = bytes.data();
  const std::byte* end = p + bytes.size() / kBlock * kBlock;
  __m128i a = _mm_xor_si128(load(p), _mm_cvtsi32_si128(static_cast<int>(crc)));
  __m128i b = load(p + 16);
  __m128i c = load(p + 32);
  __m128i d = load(p + 48);
  for (p += kBlock; p != end; p += kBlock) {
    a = moved(a, by_64, load(p));
    b = moved(b, by_64, load(p + 16));
    c = moved(c, by_64, load(p + 32));
    d = moved(d, by_64, load(p + 48));
  }
  std::array<std::byte, 16> rest;
  const __m128i all = moved(moved(moved(a, by_16, b), by_16, c), by_16, d);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest.data()), all);
  return by_table(bytes.subspan(bytes.size() / kBlock * kBlock), by_table(rest, 0));
}

bool has_products() {
  static const bool has = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
  return has;
}

#endif

}  // namespace

std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t crc) {
#if defined(__x86_64__)
  constexpr std::size_t kWorthIt = 256;
  if (bytes.size() >= kWorthIt && has_products()) return ~by_products(bytes, ~crc);
#endif
  return ~by_table(bytes, ~crc);
}

std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t size) {
  std::uint32_t step = 1U << 23;  // x^8: one byte
  for (; size != 0; size >>= 1) {
    if ((size & 1) != 0) first = product(step, first);
    step = product(step, step);
  }
  return first ^ second;
}

}  // namespace onnx2nn::emit
