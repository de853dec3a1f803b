// The zip archives that torch reads: weights and texts, stored and aligned.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "emit/pickle.h"
#include "emit/weights.h"
#include "support/atomic_file.h"

namespace onnx2nn::emit {

struct ArchiveText {
  std::string name;
  std::string text;
};

/// A weight with storage of its own.
struct ArchiveWeight {
  std::string name;
  const WeightEntry* entry = nullptr;
};

/// Adds to `files` an archive whose records lie in the folder "archive": some texts, the weights, and
/// other texts. Names differ by more than case: torch's reader does not tell `a` from `A`.
void add_archive(AtomicFileSet& files, const std::string& path, std::span<const ArchiveText> before,
                 std::span<const ArchiveWeight> weights, std::span<const ArchiveText> after);

}  // namespace onnx2nn::emit
