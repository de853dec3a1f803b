#include "ops/weight_view.h"

#include <algorithm>
#include <numeric>

#include "ops/context.h"
#include "support/checked.h"

namespace onnx2nn::ops {
namespace {

using Ints = WeightView::Ints;

constexpr int kMostNodes = 256;
constexpr std::size_t kMostBoxes = 256;

std::optional<Ints> fixed_dims(const ir::Value* v) {
  if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank()) return std::nullopt;
  return v->type.shape.constant();
}

}  // namespace

WeightView WeightView::constant(ir::Value* value) {
  WeightView out;
  out.dims_ = value->constant->dims();
  Box box{value, 0, Ints(out.dims_.size(), 0), out.dims_, Ints(out.dims_.size())};
  std::int64_t stride = 1;
  for (std::size_t i = out.dims_.size(); i-- > 0;) {
    box.stride[i] = stride;
    stride = checked_mul(stride, out.dims_[i]);
  }
  out.boxes_.push_back(std::move(box));
  return out;
}

std::optional<WeightView> WeightView::of(const ir::Value* value,
                                         std::unordered_set<const ir::Node*>& nodes) {
  int budget = kMostNodes;
  return of(value, nodes, budget);
}

std::optional<WeightView> WeightView::of(const ir::Value* value,
                                         std::unordered_set<const ir::Node*>& nodes, int& budget) {
  if (value == nullptr || --budget < 0) return std::nullopt;
  if (value->constant) {
    const ir::DType t = value->constant->dtype();
    if (!ir::is_float(t) || ir::is_sub_byte(t) || value->constant->size() == 0) return std::nullopt;
    // A view leads to its leaves by pointers that lowering asks for; it changes none of them.
    return constant(const_cast<ir::Value*>(value));
  }
  const ir::Node* n = value->producer();
  if (n == nullptr || !n->domain.empty() || n->unsound || n->input_count() == 0)
    return std::nullopt;
  nodes.insert(n);
  if (n->is("Concat")) {
    std::vector<WeightView> parts;
    std::size_t boxes = 0;
    for (std::size_t i = 0; i < n->input_count(); ++i) {
      auto part = of(n->input(i), nodes, budget);
      if (!part) return std::nullopt;
      boxes += part->boxes_.size();
      parts.push_back(std::move(*part));
    }
    const NodeContext c(*n);
    const std::size_t rank = parts[0].dims_.size();
    if (rank == 0 || boxes > kMostBoxes) return std::nullopt;
    const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis", 1), rank));
    for (const WeightView& part : parts) {
      if (part.dims_.size() != rank) return std::nullopt;
      for (std::size_t i = 0; i < rank; ++i)
        if (i != axis && part.dims_[i] != parts[0].dims_[i]) return std::nullopt;
    }
    return concat(parts, axis);
  }
  auto data = of(n->input(0), nodes, budget);
  if (!data) return std::nullopt;
  auto out = made_by(*n, value->output_index(), std::move(*data));
  // What inference says of the value stands above what is worked out here.
  if (!out || fixed_dims(value) != out->dims_) return std::nullopt;
  return out;
}

std::optional<WeightView> WeightView::made_by(const ir::Node& n, std::size_t output,
                                              WeightView data) {
  const NodeContext c(n);
  const std::size_t rank = data.dims_.size();
  if (n.is("Identity")) return data;
  if (n.is("Transpose")) {
    Ints perm(rank);
    std::iota(perm.rbegin(), perm.rend(), 0);
    perm = c.attr_ints("perm").value_or(perm);
    Ints sorted = perm;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < rank; ++i)
      if (sorted.size() != rank || sorted[i] != static_cast<std::int64_t>(i)) return std::nullopt;
    return data.permute(perm);
  }
  if (n.is("Unsqueeze") || n.is("Squeeze") || n.is("Reshape") || n.is("Flatten")) {
    const auto dims = fixed_dims(n.output(0));
    return dims ? data.with_ones(*dims) : std::nullopt;
  }
  if (n.is("Split")) {
    const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis", 0), rank));
    std::int64_t from = 0;
    for (std::size_t i = 0; i <= output; ++i) {
      const auto dims = fixed_dims(n.output(i));
      if (!dims || dims->size() != rank) return std::nullopt;
      const std::int64_t to = checked_add(from, (*dims)[axis]);
      if (to > data.dims_[axis]) return std::nullopt;
      if (i == output) return data.slice(axis, from, to);
      from = to;
    }
  }
  if (n.is("Slice")) {
    const auto starts = c.ints("starts", 1);
    const auto ends = c.ints("ends", 2);
    if (!starts || !ends || starts->size() != ends->size()) return std::nullopt;
    Ints axes(starts->size());
    std::iota(axes.begin(), axes.end(), 0);
    if (c.has_ints("axes", 3)) {
      const auto given = c.ints("axes", 3);
      if (!given) return std::nullopt;
      axes = *given;
    }
    const auto steps = c.has_input(4) ? c.const_ints(4) : Ints(axes.size(), 1);
    if (!steps || axes.size() != starts->size() || *steps != Ints(axes.size(), 1))
      return std::nullopt;
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const auto axis = static_cast<std::size_t>(c.axis(axes[i], rank));
      const std::int64_t d = data.dims_[axis];
      const auto place = [&](std::int64_t at) {
        return std::clamp<std::int64_t>(at < 0 ? (at < -d ? 0 : at + d) : at, 0, d);
      };
      const std::int64_t from = place((*starts)[i]);
      const std::int64_t to = place((*ends)[i]);
      if (from >= to) return std::nullopt;
      data = data.slice(axis, from, to);
    }
    return data;
  }
  return std::nullopt;
}

std::vector<ir::Value*> WeightView::leaves() const {
  std::vector<ir::Value*> out;
  for (const Box& b : boxes_)
    if (std::find(out.begin(), out.end(), b.leaf) == out.end()) out.push_back(b.leaf);
  return out;
}

WeightView WeightView::slice(std::size_t axis, std::int64_t from, std::int64_t to) const {
  WeightView out;
  out.dims_ = dims_;
  out.dims_[axis] = to - from;
  for (Box b : boxes_) {
    const std::int64_t begin = std::max(b.start[axis], from);
    const std::int64_t end = std::min(b.start[axis] + b.size[axis], to);
    if (begin >= end) continue;
    b.offset += (begin - b.start[axis]) * b.stride[axis];
    b.start[axis] = begin - from;
    b.size[axis] = end - begin;
    out.boxes_.push_back(std::move(b));
  }
  return out;
}

WeightView WeightView::select(std::size_t axis, std::int64_t at) const {
  WeightView out = slice(axis, at, at + 1);
  out.drop(axis);
  return out;
}

WeightView WeightView::concat(const std::vector<WeightView>& parts, std::size_t axis) {
  WeightView out;
  out.dims_ = parts.at(0).dims_;
  out.dims_[axis] = 0;
  for (const WeightView& part : parts) {
    for (Box b : part.boxes_) {
      b.start[axis] += out.dims_[axis];
      out.boxes_.push_back(std::move(b));
    }
    out.dims_[axis] = checked_add(out.dims_[axis], part.dims_[axis]);
  }
  return out;
}

WeightView WeightView::permute(const Ints& perm) const {
  const auto moved = [&](const Ints& v) {
    Ints out;
    for (const std::int64_t i : perm) out.push_back(v[static_cast<std::size_t>(i)]);
    return out;
  };
  WeightView out;
  out.dims_ = moved(dims_);
  for (const Box& b : boxes_)
    out.boxes_.push_back({b.leaf, b.offset, moved(b.start), moved(b.size), moved(b.stride)});
  return out;
}

void WeightView::drop(std::size_t axis) {
  const auto at = static_cast<std::ptrdiff_t>(axis);
  dims_.erase(dims_.begin() + at);
  for (Box& b : boxes_)
    for (Ints* v : {&b.start, &b.size, &b.stride}) v->erase(v->begin() + at);
}

void WeightView::insert(std::size_t axis) {
  const auto at = static_cast<std::ptrdiff_t>(axis);
  dims_.insert(dims_.begin() + at, 1);
  for (Box& b : boxes_) {
    b.start.insert(b.start.begin() + at, 0);
    b.size.insert(b.size.begin() + at, 1);
    b.stride.insert(b.stride.begin() + at, 1);
  }
}

/// With other dimensions, where they differ in ones only.
std::optional<WeightView> WeightView::with_ones(const Ints& dims) const {
  WeightView out = *this;
  for (std::size_t i = out.dims_.size(); i-- > 0;)
    if (out.dims_[i] == 1) out.drop(i);
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (dims[i] == 1) out.insert(i);
  if (out.dims_ != dims) return std::nullopt;
  return out;
}

std::optional<std::vector<torch::Piece>> WeightView::pieces() const {
  std::vector<Box> boxes = boxes_;
  std::sort(boxes.begin(), boxes.end(),
            [](const Box& a, const Box& b) { return a.start < b.start; });
  std::vector<torch::Piece> out;
  for (const Box& b : boxes) {
    // Only the first dimension of several elements may be cut.
    std::vector<std::size_t> axes;
    for (std::size_t i = 0; i < dims_.size(); ++i) {
      if (dims_[i] == 1) continue;
      if (!axes.empty() && b.size[i] != dims_[i]) return std::nullopt;
      axes.push_back(i);
    }
    if (axes.size() > 2) return std::nullopt;
    torch::Piece p{b.leaf->constant, b.offset, 1, 1, 1, false};
    if (axes.size() == 1) {
      p.columns = b.size[axes[0]];
      p.stride = p.columns;
      if (b.stride[axes[0]] != 1) {
        if (p.columns > 1) return std::nullopt;
      }
    } else if (axes.size() == 2) {
      p.rows = b.size[axes[0]];
      p.columns = b.size[axes[1]];
      const std::int64_t down = b.stride[axes[0]];
      const std::int64_t across = b.stride[axes[1]];
      if (across != 1 && (down != 1 && p.rows > 1)) return std::nullopt;
      p.transpose = across != 1;
      p.stride = p.transpose ? across : p.rows == 1 ? p.columns : down;
    }
    // One that goes on where the last one ends is the same piece.
    if (!out.empty() && out.back().tensor == p.tensor && !p.transpose && !out.back().transpose) {
      torch::Piece& last = out.back();
      if (axes.size() == 1 && last.offset + last.columns == p.offset) {
        last.columns += p.columns;
        last.stride = last.columns;
        continue;
      }
      if (axes.size() == 2 && last.stride == p.stride &&
          last.offset + last.rows * last.stride == p.offset) {
        last.rows += p.rows;
        continue;
      }
    }
    out.push_back(std::move(p));
  }
  return out;
}

ir::Value* WeightView::whole() const {
  const auto all = pieces();
  if (!all || all->size() != 1) return nullptr;
  const torch::Piece& p = all->front();
  const std::int64_t count = p.tensor->size();
  if (p.offset != 0 || p.transpose || p.rows * p.columns != count ||
      (p.rows > 1 && p.stride != p.columns))
    return nullptr;
  return boxes_.front().leaf;
}

}  // namespace onnx2nn::ops
