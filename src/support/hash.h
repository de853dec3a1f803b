// Hashes: SHA-256 for what is shown to people, a fast 128-bit one to find equal things.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace onnx2nn {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  std::array<std::uint8_t, 32> digest();  // ends the computation

 private:
  void block(const std::byte* data);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_ = {};
  std::size_t pending_size_ = 0;
  std::uint64_t total_ = 0;
};

std::string sha256_hex(std::span<const std::byte> bytes);

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend auto operator<=>(const Hash128&, const Hash128&) = default;
};

/// Not safe against someone who looks for collisions: compare the bytes before calling two things
/// equal.
Hash128 hash128(std::span<const std::byte> bytes, std::uint64_t seed = 0);

}  // namespace onnx2nn
