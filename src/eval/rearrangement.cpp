// Operators that move elements into another order or between others: paddings, blocks, triangles.
#include <algorithm>
#include <numeric>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

/// Copies element `from(k)` of `x` to place k, or `fill` where that is negative.
template <typename From>
Result rearranged(const Call& c, const Tensor& x, const Ints& dims, const std::byte* fill,
                  From&& from) {
  auto bytes = c.room(x.dtype(), element_count(dims));
  if (!bytes) return std::nullopt;
  const std::size_t w = width_of(x.dtype());
  std::size_t k = 0;
  for_each_index(dims, [&](const Ints& at) {
    const std::int64_t i = from(at);
    if (i >= 0) {
      std::memcpy(bytes->data() + k * w, x.bytes().data() + static_cast<std::size_t>(i) * w, w);
    } else if (fill != nullptr) {
      std::memcpy(bytes->data() + k * w, fill, w);
    }
    ++k;
  });
  return one(Tensor::owned(x.dtype(), dims, std::move(*bytes)));
}

// ---------------------------------------------------------------- Pad

/// Where place `i` of a padded axis of `n` elements comes from; -1 for the constant.
std::int64_t padded_from(std::int64_t i, std::int64_t n, std::string_view mode) {
  if (i >= 0 && i < n) return i;
  if (mode == "edge") return std::clamp<std::int64_t>(i, 0, n - 1);
  if (mode == "wrap") return ((i % n) + n) % n;
  if (mode != "reflect") return -1;
  if (n == 1) return 0;
  const std::int64_t period = 2 * (n - 1);
  const std::int64_t j = ((i % period) + period) % period;
  return j < n ? j : period - j;
}

Result pad(const Call& c) {
  constexpr std::int64_t kInputs = 11;  // the opset from which the pads are an input
  if (c.opset() < 2) return std::nullopt;
  const Tensor& x = *c.in(0);
  const auto given = c.opset() < kInputs ? c.ints("pads") : c.ints_or_input("pads", 1);
  if (!given) return std::nullopt;
  Ints axes(x.rank());
  std::iota(axes.begin(), axes.end(), 0);
  if (c.in(3) != nullptr) {
    axes = c.in(3)->to_ints();
    for (std::int64_t& a : axes) a = Call::axis(a, x.rank());
  }
  if (given->size() != 2 * axes.size()) return std::nullopt;
  const std::string mode = c.s("mode", "constant");
  Ints before(x.rank(), 0);
  Ints dims = x.dims();
  for (std::size_t k = 0; k < axes.size(); ++k) {
    const auto a = static_cast<std::size_t>(axes[k]);
    before[a] = (*given)[k];
    dims[a] = checked_add(checked_add(dims[a], (*given)[k]), (*given)[k + axes.size()]);
    if (dims[a] < 0 || (mode != "constant" && x.dims()[a] == 0 && dims[a] != 0))
      return std::nullopt;
  }
  std::vector<std::byte> fill(std::max<std::size_t>(width_of(x.dtype()), 1));
  if (c.in(2) != nullptr) {
    if (c.in(2)->size() != 1 || c.in(2)->dtype() != x.dtype()) return std::nullopt;
    std::copy(c.in(2)->bytes().begin(), c.in(2)->bytes().end(), fill.begin());
  } else if (c.opset() < kInputs && c.f("value", 0.0) != 0.0) {
    const auto value = store<double>(c, x.dtype(), {}, {c.f("value", 0.0)});
    if (!value) return std::nullopt;
    std::copy((*value)->bytes().begin(), (*value)->bytes().end(), fill.begin());
  }
  const Ints strides = strides_of(x.dims());
  return rearranged(c, x, dims, fill.data(), [&](const Ints& at) {
    std::int64_t from = 0;
    for (std::size_t d = 0; d < at.size(); ++d) {
      const std::int64_t i = padded_from(at[d] - before[d], x.dims()[d], mode);
      if (i < 0) return i;
      from += i * strides[d];
    }
    return from;
  });
}

// ---------------------------------------------------------------- blocks

/// x, read as one of `wide` and transposed by `perm`, as one of `dims`.
Result regrouped(const Call& c, const Ints& wide, const Ints& perm, const Ints& dims) {
  const Tensor& x = *c.in(0);
  const Ints own = strides_of(wide);
  Ints turned;
  Ints strides;
  for (const std::int64_t p : perm) {
    turned.push_back(wide[static_cast<std::size_t>(p)]);
    strides.push_back(own[static_cast<std::size_t>(p)]);
  }
  const auto r = rearranged(c, x, turned, nullptr, [&](const Ints& at) {
    return std::inner_product(at.begin(), at.end(), strides.begin(), std::int64_t{0});
  });
  return r ? one((*r)[0]->reshaped(dims)) : r;
}

Result depth_to_space(const Call& c) {
  const Tensor& x = *c.in(0);
  const std::int64_t b = c.i("blocksize", 0);
  if (x.rank() != 4 || b < 1 || b > 1024 || x.dims()[1] % (b * b) != 0) return std::nullopt;
  const Ints& d = x.dims();
  const std::int64_t depth = d[1] / (b * b);
  const Ints dims = {d[0], depth, checked_mul(d[2], b), checked_mul(d[3], b)};
  if (c.s("mode", "DCR") == "CRD")
    return regrouped(c, {d[0], depth, b, b, d[2], d[3]}, {0, 1, 4, 2, 5, 3}, dims);
  return regrouped(c, {d[0], b, b, depth, d[2], d[3]}, {0, 3, 4, 1, 5, 2}, dims);
}

Result space_to_depth(const Call& c) {
  const Tensor& x = *c.in(0);
  const std::int64_t b = c.i("blocksize", 0);
  if (x.rank() != 4 || b < 1 || b > 1024 || x.dims()[2] % b != 0 || x.dims()[3] % b != 0)
    return std::nullopt;
  const Ints& d = x.dims();
  const Ints perm = c.s("mode", "DCR") == "CRD" ? Ints{0, 1, 3, 5, 2, 4} : Ints{0, 3, 5, 1, 2, 4};
  return regrouped(c, {d[0], d[1], d[2] / b, b, d[3] / b, b}, perm,
                   {d[0], checked_mul(d[1], b * b), d[2] / b, d[3] / b});
}

// ---------------------------------------------------------------- triangles, sequences

Result trilu(const Call& c) {
  const Tensor& x = *c.in(0);
  if (x.rank() < 2) return std::nullopt;
  std::int64_t k = 0;
  if (c.in(1) != nullptr) {
    if (c.in(1)->size() != 1) return std::nullopt;
    k = c.in(1)->int_at(0);
  }
  const bool upper = c.i("upper", 1) != 0;
  std::int64_t i = 0;
  return rearranged(c, x, x.dims(), nullptr, [&](const Ints& at) -> std::int64_t {
    const std::int64_t from = i++;
    const std::int64_t beyond = at[at.size() - 1] - at[at.size() - 2];
    return (upper ? beyond >= k : beyond <= k) ? from : -1;
  });
}

Result reverse_sequence(const Call& c) {
  const Tensor& x = *c.in(0);
  const std::int64_t time = c.i("time_axis", 0);
  const std::int64_t batch = c.i("batch_axis", 1);
  if (x.rank() < 2 || time + batch != 1 || time * batch != 0 || c.in(1) == nullptr)
    return std::nullopt;
  const Ints lengths = c.in(1)->to_ints();
  if (static_cast<std::int64_t>(lengths.size()) != x.dims()[static_cast<std::size_t>(batch)])
    return std::nullopt;
  for (const std::int64_t n : lengths)
    if (n < 0 || n > x.dims()[static_cast<std::size_t>(time)]) return std::nullopt;
  const Ints strides = strides_of(x.dims());
  return rearranged(c, x, x.dims(), nullptr, [&](const Ints& at) {
    const std::int64_t n = lengths[static_cast<std::size_t>(at[static_cast<std::size_t>(batch)])];
    const std::int64_t t = at[static_cast<std::size_t>(time)];
    const std::int64_t from =
        std::inner_product(at.begin(), at.end(), strides.begin(), std::int64_t{0});
    return t < n ? from + (n - 1 - 2 * t) * strides[static_cast<std::size_t>(time)] : from;
  });
}

}  // namespace

Result rearrangement(const Call& c) {
  static const std::unordered_map<std::string_view, Kernel> kKernels = {
      {"Pad", pad},
      {"DepthToSpace", depth_to_space},
      {"SpaceToDepth", space_to_depth},
      {"Trilu", trilu},
      {"ReverseSequence", reverse_sequence}};
  return run(kKernels, c);
}

}  // namespace onnx2nn::eval
