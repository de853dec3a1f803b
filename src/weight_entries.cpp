#include "weight_entries.h"

#include <cstring>
#include <utility>
#include <vector>

#include "support/error.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

/// How far apart the elements of a tensor lie along each axis of `shape`, to which it broadcasts.
std::vector<std::int64_t> broadcast_strides(const torch::Param& p,
                                            const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> out(shape.size(), 0);
  std::int64_t stride = 1;
  for (std::size_t i = p.shape.size(); i-- > 0;) {
    const std::size_t axis = i + shape.size() - p.shape.size();
    if (p.shape[i] != 1) out.at(axis) = stride;
    stride *= p.shape[i];
  }
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

emit::WeightEntry entry_of(const torch::Param& param) {
  emit::WeightEntry e;
  e.key = param.key();
  e.dtype = emit::weight_dtype(ir::info(param.stored_dtype()).torch_name);
  e.shape = param.shape;
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
  if (!is_whole(param) || !is_whole(*scale) || scale->transpose ||
      (zero && (!is_whole(*zero) || zero->transpose)) ||
      ir::info(scale->stored_dtype()).bits != 32)
    throw Error("unsupported-output",
                "the quantised weight " + printable(param.key()) + " is put together from parts",
                "write the model as .py, whose load() makes it real");
  e.dtype = emit::weight_dtype(ir::info(scale->stored_dtype()).torch_name);
  e.source = {};
  e.transpose = false;
  e.fill = [&param, scale, zero](std::span<std::byte> out) {
    const auto scale_at = broadcast_strides(*scale, param.shape);
    const auto zero_at = zero ? broadcast_strides(*zero, param.shape)
                              : std::vector<std::int64_t>(param.shape.size(), 0);
    std::vector<std::int64_t> index(param.shape.size(), 0);
    std::int64_t s = 0;
    std::int64_t z = 0;
    const auto count = static_cast<std::int64_t>(out.size() / sizeof(float));
    for (std::int64_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(element(param, i));
      const float offset = zero ? static_cast<float>(zero->tensor->int_at(z)) : 0.0F;
      const float real = (value - offset) * scale->tensor->at<float>(s);
      std::memcpy(out.data() + static_cast<std::size_t>(i) * sizeof real, &real, sizeof real);
      for (std::size_t axis = index.size(); axis-- > 0;) {
        s += scale_at[axis];
        z += zero_at[axis];
        if (++index[axis] < param.shape[axis]) break;
        s -= scale_at[axis] * param.shape[axis];
        z -= zero_at[axis] * param.shape[axis];
        index[axis] = 0;
      }
    }
  };
  return e;
}

}  // namespace onnx2nn
