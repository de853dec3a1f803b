#include "weight_entries.h"

#include <cstring>
#include <utility>
#include <vector>

#include "support/error.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

/// Where a scale or zero point has what belongs to the element at `index` of a weight of this shape: it
/// has as many along each axis, one, or one for each block.
std::int64_t place_of(const torch::Param& p, const std::vector<std::int64_t>& shape,
                      const std::vector<std::int64_t>& index) {
  const std::size_t before = shape.size() - p.shape.size();
  const auto along = [&](std::size_t i) { return index.at(before + i) * p.shape[i] / shape.at(before + i); };
  if (p.transpose) return along(1) * p.shape[0] + along(0);
  std::int64_t out = 0;
  for (std::size_t i = 0; i < p.shape.size(); ++i) out = out * p.shape[i] + along(i);
  return out;
}

/// Element `i` of the weight in its own order, which may be the other way round in the file.
std::int64_t element(const torch::Param& p, std::int64_t i) {
  if (!p.transpose) return p.tensor->int_at(i);
  const std::int64_t rows = p.shape[0];
  const std::int64_t columns = p.shape[1];
  return p.tensor->int_at(i % columns * rows + i / columns);
}

}  // namespace

std::vector<std::int64_t> stored_shape(const torch::Param& param) {
  if (!param.tensor || !ir::is_sub_byte(param.tensor->dtype())) return param.shape;
  std::vector<std::int64_t> out = param.tensor->dims();
  out.back() /= 2;
  return out;
}

emit::WeightEntry entry_of(const torch::Param& param) {
  emit::WeightEntry e;
  e.key = param.key();
  e.dtype = emit::weight_dtype(ir::info(param.stored_dtype()).torch_name);
  e.shape = stored_shape(param);
  if (param.tensor) e.source = param.tensor->source();
  e.transpose = param.transpose;
  for (const torch::Piece& piece : param.pieces)
    e.parts.push_back({piece.tensor->source(), piece.offset, piece.rows, piece.columns,
                       piece.stride, piece.transpose});
  return e;
}

emit::WeightEntry real_entry_of(const torch::Program& program, const torch::Param& param) {
  torch::ParamPtr scale;
  torch::ParamPtr zero;
  for (const auto& p : program.params) {
    if (p->quantized.get() != &param) continue;
    (p->path.back() == "scale" ? scale : zero) = p;
  }
  emit::WeightEntry e = entry_of(param);
  if (!scale) return e;
  const auto is_whole = [](const torch::Param& p) { return p.tensor && p.pieces.empty(); };
  if (!is_whole(param) || !is_whole(*scale) || (zero && !is_whole(*zero)) ||
      ir::info(scale->stored_dtype()).bits != 32)
    throw Error("unsupported-output",
                "the quantised weight " + printable(param.key()) + " is put together from parts",
                "write the model as .py, whose load() makes it real");
  e.dtype = emit::weight_dtype(ir::info(scale->stored_dtype()).torch_name);
  e.shape = param.shape;
  e.source = {};
  e.transpose = false;
  e.fill = [&param, scale, zero](std::span<std::byte> out) {
    std::vector<std::int64_t> index(param.shape.size(), 0);
    const auto count = static_cast<std::int64_t>(out.size() / sizeof(float));
    for (std::int64_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(element(param, i));
      const float offset =
          zero ? static_cast<float>(zero->tensor->int_at(place_of(*zero, param.shape, index))) : 0.0F;
      const float real =
          (value - offset) * scale->tensor->at<float>(place_of(*scale, param.shape, index));
      std::memcpy(out.data() + static_cast<std::size_t>(i) * sizeof real, &real, sizeof real);
      for (std::size_t axis = index.size(); axis-- > 0;) {
        if (++index[axis] < param.shape[axis]) break;
        index[axis] = 0;
      }
    }
  };
  return e;
}

}  // namespace onnx2nn
