// Transposing a block of a matrix in memory.
#pragma once

#include <cstddef>

namespace onnx2nn::emit {

/// to[c][r] = from[r][c] for `rows` x `columns` elements of `item_size` bytes (1, 2, 4, 8 or 16).
/// Strides are the bytes from one row to the next; nothing need be aligned.
void transpose_block(const std::byte* from, std::size_t from_stride, std::byte* to,
                     std::size_t to_stride, std::size_t rows, std::size_t columns,
                     std::size_t item_size);

}  // namespace onnx2nn::emit
