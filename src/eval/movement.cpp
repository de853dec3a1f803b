// Operators that only move elements: no arithmetic, any element type of whole bytes.
#include <algorithm>
#include <numeric>

#include "eval/array.h"

namespace onnx2nn::eval {
namespace {

/// A tensor of `dims` whose element at index k is `input`'s element at offset(k).
template <typename Offsets>
Result gather_elements(const Call& c, const Tensor& input, const Ints& dims, Offsets&& offsets) {
  auto bytes = c.room(input.dtype(), element_count(dims));
  if (!bytes) return std::nullopt;
  const std::size_t w = width_of(input.dtype());
  std::size_t k = 0;
  offsets([&](std::int64_t from) {
    std::memcpy(bytes->data() + k * w, input.bytes().data() + static_cast<std::size_t>(from) * w,
                w);
    ++k;
  });
  return one(Tensor::owned(input.dtype(), dims, std::move(*bytes)));
}

/// The view of `input` with these dims, strides and start.
Result strided(const Call& c, const Tensor& input, const Ints& dims, const Ints& strides,
               std::int64_t start = 0) {
  return gather_elements(c, input, dims, [&](auto&& put) {
    for_each_pair(dims, strides, strides, [&](std::int64_t i, std::int64_t) { put(start + i); });
  });
}

Result transpose(const Call& c) {
  const Tensor& x = *c.in(0);
  Ints perm(x.rank());
  if (const auto p = c.ints("perm"); p && !p->empty()) {
    perm = *p;
  } else {
    std::iota(perm.rbegin(), perm.rend(), 0);
  }
  Ints sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  if (sorted.size() != x.rank()) return std::nullopt;
  for (std::size_t i = 0; i < x.rank(); ++i)
    if (sorted[i] != static_cast<std::int64_t>(i)) return std::nullopt;
  const Ints own = strides_of(x.dims());
  Ints dims;
  Ints strides;
  for (const std::int64_t p : perm) {
    dims.push_back(x.dims()[static_cast<std::size_t>(p)]);
    strides.push_back(own[static_cast<std::size_t>(p)]);
  }
  return strided(c, x, dims, strides);
}

Result reshape(const Call& c) {
  const Tensor& x = *c.in(0);
  auto target = c.ints_or_input("shape", 1);
  if (!target) return std::nullopt;
  std::int64_t known = 1;
  std::optional<std::size_t> free;
  for (std::size_t i = 0; i < target->size(); ++i) {
    std::int64_t& d = (*target)[i];
    if (d == 0 && c.i("allowzero", 0) == 0) {
      if (i >= x.rank()) return std::nullopt;
      d = x.dims()[i];
    }
    if (d == -1) {
      if (free) return std::nullopt;
      free = i;
    } else {
      if (d < 0) return std::nullopt;
      known = checked_mul(known, d);
    }
  }
  if (free) {
    if (known == 0) return std::nullopt;
    (*target)[*free] = x.size() / known;
  }
  if (element_count(*target) != x.size()) return std::nullopt;
  return one(x.reshaped(*target));
}

Result squeeze(const Call& c) {
  const Tensor& x = *c.in(0);
  const auto axes = c.ints_or_input("axes", 1);
  Ints dims;
  std::vector<bool> drop(x.rank(), false);
  if (axes && !axes->empty()) {
    for (const std::int64_t a : *axes)
      drop[static_cast<std::size_t>(Call::axis(a, x.rank()))] = true;
  } else {
    for (std::size_t i = 0; i < x.rank(); ++i) drop[i] = x.dims()[i] == 1;
  }
  for (std::size_t i = 0; i < x.rank(); ++i) {
    if (!drop[i]) dims.push_back(x.dims()[i]);
    if (drop[i] && x.dims()[i] != 1) return std::nullopt;
  }
  return one(x.reshaped(dims));
}

Result unsqueeze(const Call& c) {
  const Tensor& x = *c.in(0);
  const auto axes = c.ints_or_input("axes", 1);
  if (!axes) return std::nullopt;
  std::vector<bool> fresh(x.rank() + axes->size(), false);
  for (const std::int64_t a : *axes)
    fresh[static_cast<std::size_t>(Call::axis(a, fresh.size()))] = true;
  if (std::count(fresh.begin(), fresh.end(), true) != static_cast<std::ptrdiff_t>(axes->size()))
    return std::nullopt;
  Ints dims;
  std::size_t from = 0;
  for (const bool f : fresh) dims.push_back(f ? 1 : x.dims()[from++]);
  return one(x.reshaped(dims));
}

Result flatten(const Call& c) {
  const Tensor& x = *c.in(0);
  const std::int64_t given = c.i("axis", 1);
  const std::int64_t axis = given < 0 ? given + static_cast<std::int64_t>(x.rank()) : given;
  if (axis < 0 || axis > static_cast<std::int64_t>(x.rank())) return std::nullopt;
  const auto mid = x.dims().begin() + axis;
  return one(x.reshaped(
      {element_count(Ints(x.dims().begin(), mid)), element_count(Ints(mid, x.dims().end()))}));
}

Result concat(const Call& c) {
  const Tensor& first = *c.in(0);
  if (first.rank() == 0) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", 1), first.rank()));
  Ints dims = first.dims();
  dims[axis] = 0;
  for (std::size_t i = 0; i < c.inputs(); ++i) {
    const Tensor* t = c.in(i);
    if (t == nullptr || t->dtype() != first.dtype() || t->rank() != first.rank())
      return std::nullopt;
    for (std::size_t d = 0; d < dims.size(); ++d)
      if (d != axis && t->dims()[d] != dims[d]) return std::nullopt;
    dims[axis] = checked_add(dims[axis], t->dims()[axis]);
  }
  auto bytes = c.room(first.dtype(), element_count(dims));
  if (!bytes) return std::nullopt;
  const std::size_t w = width_of(first.dtype());
  const auto inner = static_cast<std::size_t>(element_count(
                         Ints(dims.begin() + static_cast<std::ptrdiff_t>(axis) + 1, dims.end()))) *
                     w;
  const auto outer = static_cast<std::size_t>(
      element_count(Ints(dims.begin(), dims.begin() + static_cast<std::ptrdiff_t>(axis))));
  std::byte* to = bytes->data();
  for (std::size_t o = 0; o < outer; ++o) {
    for (std::size_t i = 0; i < c.inputs(); ++i) {
      const std::size_t run = static_cast<std::size_t>(c.in(i)->dims()[axis]) * inner;
      if (run > 0) std::memcpy(to, c.in(i)->bytes().data() + o * run, run);
      to += run;
    }
  }
  return one(Tensor::owned(first.dtype(), dims, std::move(*bytes)));
}

Result slice(const Call& c) {
  const Tensor& x = *c.in(0);
  const auto starts = c.ints_or_input("starts", 1);
  const auto ends = c.ints_or_input("ends", 2);
  auto axes = c.ints_or_input("axes", 3);
  auto steps =
      c.opset() >= 10 && c.in(4) != nullptr ? std::optional(c.in(4)->to_ints()) : std::nullopt;
  if (!starts || !ends || starts->size() != ends->size()) return std::nullopt;
  if (!axes) {
    axes = Ints(starts->size());
    std::iota(axes->begin(), axes->end(), 0);
  }
  if (!steps) steps = Ints(starts->size(), 1);
  if (axes->size() != starts->size() || steps->size() != starts->size()) return std::nullopt;
  Ints dims = x.dims();
  Ints strides = strides_of(dims);
  std::int64_t start = 0;
  std::vector<bool> seen(x.rank(), false);
  for (std::size_t k = 0; k < axes->size(); ++k) {
    const auto a = static_cast<std::size_t>(Call::axis((*axes)[k], x.rank()));
    if (seen[a]) return std::nullopt;  // ONNX does not say what that means
    seen[a] = true;
    const std::int64_t n = x.dims()[a];
    const std::int64_t step = (*steps)[k];
    if (step == 0 || step == INT64_MIN) return std::nullopt;
    const auto from_end = [&](std::int64_t v) { return v < 0 ? v + n : v; };
    const std::int64_t first = std::clamp<std::int64_t>(
        from_end((*starts)[k]), 0, step > 0 ? n : std::max<std::int64_t>(n - 1, 0));
    const std::int64_t last = std::clamp<std::int64_t>(from_end((*ends)[k]), step > 0 ? 0 : -1, n);
    const std::int64_t count = step > 0 ? (last > first ? (last - first - 1) / step + 1 : 0)
                                        : (first > last ? (first - last - 1) / -step + 1 : 0);
    if (n == 0) {
      dims[a] = 0;
      continue;
    }
    dims[a] = count;
    if (count == 0) continue;
    start += first * strides[a];
    // A step that is never taken may be any number.
    strides[a] = count > 1 ? checked_mul(strides[a], step) : 0;
  }
  return strided(c, x, dims, strides, start);
}

Result gather(const Call& c) {
  const Tensor& x = *c.in(0);
  const Tensor& index = *c.in(1);
  if (x.rank() == 0) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", 0), x.rank()));
  Ints dims(x.dims().begin(), x.dims().begin() + static_cast<std::ptrdiff_t>(axis));
  dims.insert(dims.end(), index.dims().begin(), index.dims().end());
  dims.insert(dims.end(), x.dims().begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.dims().end());
  auto bytes = c.room(x.dtype(), element_count(dims));
  if (!bytes) return std::nullopt;
  const std::size_t w = width_of(x.dtype());
  const auto inner =
      static_cast<std::size_t>(element_count(
          Ints(x.dims().begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.dims().end()))) *
      w;
  const auto outer = static_cast<std::size_t>(
      element_count(Ints(x.dims().begin(), x.dims().begin() + static_cast<std::ptrdiff_t>(axis))));
  const std::int64_t n = x.dims()[axis];
  const Ints at = index.to_ints();
  for (const std::int64_t i : at)
    if (i < -n || i >= n) fail("bad-model", "the index {} is out of range for {} elements", i, n);
  std::byte* to = bytes->data();
  if (inner == 0) return one(Tensor::owned(x.dtype(), dims, std::move(*bytes)));
  for (std::size_t o = 0; o < outer; ++o) {
    for (const std::int64_t i : at) {
      std::memcpy(to,
                  x.bytes().data() + (o * static_cast<std::size_t>(n) +
                                      static_cast<std::size_t>(i < 0 ? i + n : i)) *
                                         inner,
                  inner);
      to += inner;
    }
  }
  return one(Tensor::owned(x.dtype(), dims, std::move(*bytes)));
}

Result expand(const Call& c) {
  const Tensor& x = *c.in(0);
  const Ints dims = broadcast_dims(x.dims(), c.in(1)->to_ints());
  return strided(c, x, dims, broadcast_strides(x.dims(), dims));
}

Result tile(const Call& c) {
  if (c.opset() < 6) return std::nullopt;
  const Tensor& x = *c.in(0);
  const Ints repeats = c.in(1)->to_ints();
  if (repeats.size() != x.rank()) return std::nullopt;
  // Each axis is read as [repeat, n] with stride 0 for the repeat.
  Ints wide;
  Ints strides;
  Ints dims;
  const Ints own = strides_of(x.dims());
  for (std::size_t i = 0; i < x.rank(); ++i) {
    if (repeats[i] < 0) return std::nullopt;
    wide.push_back(repeats[i]);
    wide.push_back(x.dims()[i]);
    strides.push_back(0);
    strides.push_back(own[i]);
    dims.push_back(checked_mul(repeats[i], x.dims()[i]));
  }
  auto r = strided(c, x, wide, strides);
  if (!r) return r;
  return one((*r)[0]->reshaped(dims));
}

Result split(const Call& c) {
  const Tensor& x = *c.in(0);
  if (x.rank() == 0) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", 0), x.rank()));
  const auto outputs = static_cast<std::int64_t>(c.node().output_count());
  Ints sizes;
  if (const auto given = c.ints_or_input("split", 1)) {
    sizes = *given;
  } else {
    const std::int64_t n = x.dims()[axis];
    const std::int64_t each = n / outputs + (n % outputs != 0 ? 1 : 0);
    for (std::int64_t rest = n; static_cast<std::int64_t>(sizes.size()) < outputs;
         rest -= sizes.back())
      sizes.push_back(std::min(rest, each));
  }
  std::int64_t sum = 0;
  for (const std::int64_t n : sizes) sum = checked_add(sum, n);
  if (static_cast<std::int64_t>(sizes.size()) != outputs || sum != x.dims()[axis])
    return std::nullopt;
  const Ints strides = strides_of(x.dims());
  std::vector<TensorPtr> out;
  std::int64_t start = 0;
  for (const std::int64_t n : sizes) {
    if (n < 0) return std::nullopt;
    Ints dims = x.dims();
    dims[axis] = n;
    auto r = strided(c, x, dims, strides, checked_mul(start, strides[axis]));
    if (!r) return std::nullopt;
    out.push_back((*r)[0]);
    start += n;
  }
  return out;
}

Result constant_of_shape(const Call& c) {
  const Ints dims = c.in(0)->to_ints();
  const TensorPtr value = c.t("value");
  if (!value) {
    auto bytes = c.room(DType::Float32, element_count(dims));
    if (!bytes) return std::nullopt;
    return one(Tensor::owned(DType::Float32, dims, std::move(*bytes)));
  }
  if (value->size() != 1 || width_of(value->dtype()) == 0) return std::nullopt;
  return strided(c, *value, dims, Ints(dims.size(), 0));
}

Result shape(const Call& c) {
  const Tensor& x = *c.in(0);
  const auto r = static_cast<std::int64_t>(x.rank());
  const auto place = [&](std::int64_t v) {
    return std::clamp<std::int64_t>(v < 0 ? v + r : v, 0, r);
  };
  const std::int64_t start = place(c.i("start", 0));
  const std::int64_t end = std::max(start, place(c.i("end", r)));
  return one(Tensor::ints(Ints(x.dims().begin() + start, x.dims().begin() + end)));
}

}  // namespace

Result movement(const Call& c) {
  const std::string& t = c.node().op_type;
  if (c.inputs() == 0 || c.in(0) == nullptr) return std::nullopt;
  const bool two = c.inputs() >= 2 && c.in(1) != nullptr;
  if (t == "Identity") return one(c.ptr(0));
  if (t == "Transpose") return transpose(c);
  if (t == "Reshape") return reshape(c);
  if (t == "Squeeze") return squeeze(c);
  if (t == "Unsqueeze") return unsqueeze(c);
  if (t == "Flatten") return flatten(c);
  if (t == "Concat") return concat(c);
  if (t == "Slice") return slice(c);
  if (t == "Gather" && two) return gather(c);
  if (t == "Expand" && two) return expand(c);
  if (t == "Tile" && two) return tile(c);
  if (t == "Split") return split(c);
  if (t == "ConstantOfShape") return constant_of_shape(c);
  if (t == "Shape") return shape(c);
  if (t == "Size") return one(Tensor::scalar(c.in(0)->size()));
  return std::nullopt;
}

}  // namespace onnx2nn::eval
