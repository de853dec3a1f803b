// Moving the bytes of weights into place in a file that is being written.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "emit/weights.h"

namespace onnx2nn::emit {

struct PlacedWeight {
  const WeightEntry* entry;
  std::uint64_t offset;  // in the file, which has been extended over it
  std::uint64_t size;
};

/// CRC-32s of what is written, taken while it is at hand. May be used from several threads at once.
class Checksums {
 public:
  /// `size` bytes whose CRC-32 is `crc` go to `offset` of the file.
  void add(std::uint64_t offset, std::uint64_t size, std::uint32_t crc);
  /// The CRC-32 of each weight's place; what was not added is read back from the file.
  std::vector<std::uint32_t> of(const AtomicFile& file, std::span<const PlacedWeight> weights);

 private:
  struct Piece {
    std::uint64_t offset;
    std::uint64_t size;
    std::uint32_t crc;
  };
  std::mutex mutex_;
  std::vector<Piece> pieces_;
};

/// Fills the place of each weight; two threads, at most 30 MiB besides what `fill` needs.
/// sums: where not null, gets what does not have to be read again for it.
void stream_weights(AtomicFile& file, std::span<const PlacedWeight> weights,
                    Checksums* sums = nullptr);

}  // namespace onnx2nn::emit
