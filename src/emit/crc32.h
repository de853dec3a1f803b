// CRC-32 as zip files use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace onnx2nn::emit {

/// The checksum of what `crc` stands for (0: nothing) followed by `bytes`.
std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t crc = 0);

/// The checksum of what `first` stands for, followed by `size` bytes whose own is `second`.
std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t size);

}  // namespace onnx2nn::emit
