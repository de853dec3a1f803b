// Weights as torch's archives name them: what rebuilds a tensor, and the record that holds its bytes.
#pragma once

#include <cstddef>
#include <functional>

#include "emit/pickle.h"
#include "emit/weights.h"

namespace onnx2nn::emit {

enum class StorageForm {
  OfDType,  // a class for each dtype: what TorchScript reads
  AsSaved   // as torch.save writes it, which has no class for newer dtypes
};

/// The storage of a weight, in record `record` of the archive.
void pickle_storage(Pickle& out, const WeightEntry& entry, std::size_t record, StorageForm form);

/// A contiguous tensor; `storage` writes the one that it reads.
void pickle_weight(Pickle& out, const WeightEntry& entry, bool trainable, StorageForm form,
                   const std::function<void()>& storage);

}  // namespace onnx2nn::emit
