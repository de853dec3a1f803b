// Sums and products along axes, ranges.
#include <algorithm>
#include <cmath>

#include "eval/array.h"

namespace onnx2nn::eval {
namespace {

/// Dimensions with the reduced axes as ones, and for each element of the input where it goes.
struct Reduced {
  Ints kept;     // with ones
  Ints dims;     // of the result
  Ints strides;  // into the result, 0 along what is reduced
};

std::optional<Reduced> reduced(const Call& c, const Tensor& x) {
  const auto axes = c.ints_or_input("axes", 1);
  const bool keep = c.i("keepdims", 1) != 0;
  if ((!axes || axes->empty()) && c.i("noop_with_empty_axes", 0) != 0) return std::nullopt;
  std::vector<bool> along(x.rank(), !axes || axes->empty());
  if (axes)
    for (const std::int64_t a : *axes)
      along[static_cast<std::size_t>(Call::axis(a, x.rank()))] = true;
  Reduced r;
  for (std::size_t i = 0; i < x.rank(); ++i) {
    r.kept.push_back(along[i] ? 1 : x.dims()[i]);
    if (!along[i]) {
      r.dims.push_back(x.dims()[i]);
    } else if (keep) {
      r.dims.push_back(1);
    }
  }
  const Ints own = strides_of(r.kept);
  for (std::size_t i = 0; i < x.rank(); ++i) r.strides.push_back(along[i] ? 0 : own[i]);
  return r;
}

template <typename T>
Result reduce_as(const Call& c, const Tensor& x, const Reduced& r, DType dtype) {
  const std::string& type = c.node().op_type;
  const auto n = static_cast<std::size_t>(element_count(r.kept));
  const bool product = type == "ReduceProd";
  const bool maximum = type == "ReduceMax";
  const bool minimum = type == "ReduceMin";
  std::vector<double> wide(n, product ? 1.0 : 0.0);
  std::vector<std::int64_t> whole(n, product ? 1 : 0);
  std::vector<bool> seen(n, false);
  if (x.size() == 0) return std::nullopt;
  bool overflow = false;
  for_each_pair(x.dims(), r.strides, strides_of(x.dims()), [&](std::int64_t to, std::int64_t from) {
    const auto k = static_cast<std::size_t>(to);
    if constexpr (std::is_floating_point_v<T>) {
      const double v = x.double_at(from);
      if (maximum || minimum) {
        if (!seen[k] || std::isnan(v) || (maximum ? v > wide[k] : v < wide[k]))
          wide[k] = seen[k] && std::isnan(wide[k]) ? wide[k] : v;
      } else {
        wide[k] = product ? wide[k] * v : wide[k] + v;
      }
    } else {
      const std::int64_t v = x.int_at(from);
      if (maximum || minimum) {
        if (!seen[k] || (maximum ? v > whole[k] : v < whole[k])) whole[k] = v;
      } else if (product) {
        overflow |= __builtin_mul_overflow(whole[k], v, &whole[k]);
      } else {
        overflow |= __builtin_add_overflow(whole[k], v, &whole[k]);
      }
    }
    seen[k] = true;
  });
  if (overflow) return std::nullopt;
  const double count =
      static_cast<double>(x.size()) / static_cast<double>(std::max<std::size_t>(n, 1));
  std::vector<T> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      out[i] = static_cast<T>(type == "ReduceMean" ? wide[i] / count : wide[i]);
    } else {
      if (static_cast<std::int64_t>(static_cast<T>(whole[i])) != whole[i]) return std::nullopt;
      out[i] = static_cast<T>(whole[i]);
    }
  }
  if (!c.room(dtype, static_cast<std::int64_t>(n))) return std::nullopt;
  return one(Tensor::from<T>(dtype, r.dims, out));
}

Result reduce(const Call& c) {
  const Tensor& x = *c.in(0);
  const auto r = reduced(c, x);
  if (!r) return std::nullopt;
  if (x.dtype() == DType::Float32) return reduce_as<float>(c, x, *r, x.dtype());
  if (x.dtype() == DType::Float64) return reduce_as<double>(c, x, *r, x.dtype());
  if (c.node().op_type == "ReduceMean") return std::nullopt;
  if (x.dtype() == DType::Int64) return reduce_as<std::int64_t>(c, x, *r, x.dtype());
  if (x.dtype() == DType::Int32) return reduce_as<std::int32_t>(c, x, *r, x.dtype());
  return std::nullopt;
}

template <typename T>
Result range_as(const Call& c) {
  const T start = c.in(0)->at<T>(0);
  const T limit = c.in(1)->at<T>(0);
  const T delta = c.in(2)->at<T>(0);
  if (delta == T(0)) throw Error("bad-model", "Range with a step of zero");
  const double steps = std::ceil((static_cast<double>(limit) - static_cast<double>(start)) /
                                 static_cast<double>(delta));
  if (!(steps < 1e9)) return std::nullopt;
  const auto n = static_cast<std::int64_t>(std::max(steps, 0.0));
  if (!c.room(c.in(0)->dtype(), n)) return std::nullopt;
  std::vector<T> out;
  for (std::int64_t i = 0; i < n; ++i)
    out.push_back(static_cast<T>(start + static_cast<T>(i) * delta));
  return one(Tensor::from<T>(c.in(0)->dtype(), {n}, out));
}

Result range(const Call& c) {
  for (std::size_t i = 0; i < 3; ++i)
    if (c.in(i) == nullptr || c.in(i)->size() != 1 || c.in(i)->dtype() != c.in(0)->dtype())
      return std::nullopt;
  switch (c.in(0)->dtype()) {
    case DType::Int64:
      return range_as<std::int64_t>(c);
    case DType::Int32:
      return range_as<std::int32_t>(c);
    case DType::Float32:
      return range_as<float>(c);
    case DType::Float64:
      return range_as<double>(c);
    default:
      return std::nullopt;
  }
}

}  // namespace

Result reduction(const Call& c) {
  const std::string& t = c.node().op_type;
  if (c.inputs() == 0 || c.in(0) == nullptr) return std::nullopt;
  if (t == "ReduceSum" || t == "ReduceProd" || t == "ReduceMax" || t == "ReduceMin" ||
      t == "ReduceMean")
    return reduce(c);
  if (t == "Range" && c.inputs() == 3) return range(c);
  return std::nullopt;
}

}  // namespace onnx2nn::eval
