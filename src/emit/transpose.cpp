#include "emit/transpose.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "support/error.h"

namespace onnx2nn::emit {
namespace {

// Vectors of 16 bytes: every x86-64 and ARMv8 has them, and the work is bound by memory anyway.
template <typename T>
struct Lanes {
  static constexpr std::size_t kCount = 16 / sizeof(T);
  typedef T Vector __attribute__((vector_size(16)));

  template <std::size_t... I>
  static Vector zip_low(Vector a, Vector b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (I / 2 + (I % 2) * kCount)...);
  }
  template <std::size_t... I>
  static Vector zip_high(Vector a, Vector b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (kCount / 2 + I / 2 + (I % 2) * kCount)...);
  }
};

/// A square of one vector's length. Shuffling the rows together as often as it takes to double 1
/// to the length transposes it.
template <typename T>
inline void transpose_square(const std::byte* from, std::size_t from_stride, std::byte* to,
                             std::size_t to_stride) {
  using L = Lanes<T>;
  constexpr std::size_t n = L::kCount;
  constexpr auto lanes = std::make_index_sequence<n>();
  typename L::Vector a[n];
  typename L::Vector b[n];
  for (std::size_t i = 0; i < n; ++i) std::memcpy(&a[i], from + i * from_stride, 16);
  for (std::size_t step = 1; step < n; step *= 2) {
    for (std::size_t i = 0; i < n / 2; ++i) {
      b[2 * i] = L::zip_low(a[i], a[i + n / 2], lanes);
      b[2 * i + 1] = L::zip_high(a[i], a[i + n / 2], lanes);
    }
    for (std::size_t i = 0; i < n; ++i) a[i] = b[i];
  }
  for (std::size_t i = 0; i < n; ++i) std::memcpy(to + i * to_stride, &a[i], 16);
}

template <std::size_t kSize>
void transpose_edge(const std::byte* from, std::size_t from_stride, std::byte* to,
                    std::size_t to_stride, std::size_t rows, std::size_t columns) {
  for (std::size_t c = 0; c < columns; ++c) {
    for (std::size_t r = 0; r < rows; ++r)
      std::memcpy(to + c * to_stride + r * kSize, from + r * from_stride + c * kSize, kSize);
  }
}

template <typename T>
void transpose_typed(const std::byte* from, std::size_t from_stride, std::byte* to,
                     std::size_t to_stride, std::size_t rows, std::size_t columns) {
  constexpr std::size_t size = sizeof(T);
  constexpr std::size_t square = Lanes<T>::kCount;
  // Blocks of whole cache lines on both sides; in one, the lines of `to` are finished one group
  // after the other, so that rows a power of two apart do not evict each other half written.
  constexpr std::size_t block = 64 / size;
  const std::size_t block_rows = rows / block * block;
  const std::size_t block_columns = columns / block * block;
  for (std::size_t c0 = 0; c0 < block_columns; c0 += block) {
    for (std::size_t r0 = 0; r0 < block_rows; r0 += block) {
      const std::byte* source = from + r0 * from_stride + c0 * size;
      if (r0 + 2 * block <= block_rows) {
        for (std::size_t r = block; r < 2 * block; ++r)
          __builtin_prefetch(source + r * from_stride);
      }
      std::byte* target = to + c0 * to_stride + r0 * size;
      for (std::size_t c = 0; c < block; c += square) {
        for (std::size_t r = 0; r < block; r += square)
          transpose_square<T>(source + r * from_stride + c * size, from_stride,
                              target + c * to_stride + r * size, to_stride);
      }
    }
  }
  transpose_edge<size>(from + block_rows * from_stride, from_stride, to + block_rows * size,
                       to_stride, rows - block_rows, block_columns);
  transpose_edge<size>(from + block_columns * size, from_stride, to + block_columns * to_stride,
                       to_stride, rows, columns - block_columns);
}

}  // namespace

void transpose_block(const std::byte* from, std::size_t from_stride, std::byte* to,
                     std::size_t to_stride, std::size_t rows, std::size_t columns,
                     std::size_t item_size) {
  switch (item_size) {
    case 1:
      return transpose_typed<std::uint8_t>(from, from_stride, to, to_stride, rows, columns);
    case 2:
      return transpose_typed<std::uint16_t>(from, from_stride, to, to_stride, rows, columns);
    case 4:
      return transpose_typed<std::uint32_t>(from, from_stride, to, to_stride, rows, columns);
    case 8:
      return transpose_typed<std::uint64_t>(from, from_stride, to, to_stride, rows, columns);
    case 16:
      return transpose_edge<16>(from, from_stride, to, to_stride, rows, columns);
    default:
      ONNX2NN_CHECK(false, "no element has this size");
  }
}

}  // namespace onnx2nn::emit
