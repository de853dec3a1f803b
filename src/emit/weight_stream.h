// Moving the bytes of weights into place in a file that is being written.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "emit/weights.h"

namespace onnx2nn::emit {

struct PlacedWeight {
  const WeightEntry* entry;
  std::uint64_t offset;  // in the file, which has been extended over it
  std::uint64_t size;
};

/// Fills the place of each weight; two threads, at most 30 MiB besides what `fill` needs.
void stream_weights(AtomicFile& file, std::span<const PlacedWeight> weights);

/// The CRC-32 of each weight's place, read back from the file.
std::vector<std::uint32_t> checksum_weights(const AtomicFile& file,
                                            std::span<const PlacedWeight> weights);

}  // namespace onnx2nn::emit
