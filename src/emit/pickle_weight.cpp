#include "emit/pickle_weight.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "emit/weight_types.h"
#include "support/checked.h"

namespace onnx2nn::emit {
namespace {

std::vector<std::int64_t> strides_of(std::span<const std::int64_t> shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride = checked_mul(stride, std::max<std::int64_t>(shape[i], 1), "stride");
  }
  return strides;
}

bool has_class(const DTypeRow& dtype, StorageForm form) {
  return form == StorageForm::OfDType || dtype.typed;
}

}  // namespace

void pickle_storage(Pickle& out, const WeightEntry& entry, std::size_t record, StorageForm form) {
  const DTypeRow& dtype = row_of(entry.dtype);
  const bool typed = has_class(dtype, form);
  const std::uint64_t size = byte_size(entry);
  out.op('(');
  out.text("storage");
  if (typed) {
    out.global("torch", dtype.storage);
  } else {
    out.global("torch.storage", "UntypedStorage");
  }
  out.text(std::to_string(record));
  out.text("cpu");
  out.integer(typed ? size / dtype.size : size);
  out.op('t');
  out.op('Q');
}

void pickle_weight(Pickle& out, const WeightEntry& entry, bool trainable, StorageForm form,
                   const std::function<void()>& storage) {
  const DTypeRow& dtype = row_of(entry.dtype);
  const bool typed = has_class(dtype, form);
  out.global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  out.op('(');
  storage();
  out.integer(0);
  out.integers(entry.shape);
  out.integers(strides_of(entry.shape));
  out.boolean(trainable);
  out.ordered_dict();
  if (!typed) out.global("torch", dtype.torch_name);
  out.op('t');
  out.op('R');
}

}  // namespace onnx2nn::emit
