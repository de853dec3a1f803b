// CRC-32 as zip files use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace onnx2nn::emit {

/// The checksum of what `crc` stands for (0: nothing) followed by `bytes`.
std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t crc = 0);

}  // namespace onnx2nn::emit
