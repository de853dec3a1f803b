// What depends on the order of elements along an axis: the greatest, the first of them, running sums.
#include <algorithm>
#include <numeric>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

/// The rows of a tensor along an axis.
struct Rows {
  std::int64_t outer = 1, n = 1, stride = 1;
  static Rows of(const Ints& dims, std::size_t axis) {
    Rows r;
    for (std::size_t i = 0; i < axis; ++i) r.outer *= dims[i];
    r.n = dims[axis];
    for (std::size_t i = axis + 1; i < dims.size(); ++i) r.stride *= dims[i];
    return r;
  }
  template <typename F>
  void each(F&& f) const {
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t s = 0; s < stride; ++s) f(o, s);
  }
  std::size_t at(std::int64_t o, std::int64_t i, std::int64_t s) const {
    return static_cast<std::size_t>((o * n + i) * stride + s);
  }
};

template <typename T>
bool has_nan(const std::vector<T>& v) {
  return std::any_of(v.begin(), v.end(), [](T x) { return x != x; });
}

Result arg_extreme(const Call& c) {
  const Tensor& x = *c.in(0);
  if (x.rank() == 0 || x.size() == 0) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", 0), x.rank()));
  const bool greatest = c.node().op_type == "ArgMax";
  const bool last = c.i("select_last_index", 0) != 0;
  const Rows r = Rows::of(x.dims(), axis);
  Ints dims = x.dims();
  if (c.i("keepdims", 1) != 0) {
    dims[axis] = 1;
  } else {
    dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis));
  }
  if (!c.room(DType::Int64, element_count(dims))) return std::nullopt;
  return by_type(x.dtype(), [&]<typename T>(T) -> Result {
    const auto v = load<T>(x);
    if (has_nan(v)) return std::nullopt;
    Ints out;
    r.each([&](std::int64_t o, std::int64_t s) {
      std::int64_t best = 0;
      for (std::int64_t i = 1; i < r.n; ++i) {
        const T a = v[r.at(o, i, s)];
        const T b = v[r.at(o, best, s)];
        if ((greatest ? a > b : a < b) || (last && a == b)) best = i;
      }
      out.push_back(best);
    });
    return one(Tensor::from<std::int64_t>(DType::Int64, dims, out));
  });
}

Result top_k(const Call& c) {
  const Tensor& x = *c.in(0);
  if (x.rank() == 0 || c.i("sorted", 1) == 0) return std::nullopt;
  if (c.opset() >= 10 && (c.in(1) == nullptr || c.in(1)->size() != 1)) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", -1), x.rank()));
  const std::int64_t k = c.opset() < 10 ? c.i("k", -1) : c.in(1)->int_at(0);
  if (k < 0 || k > x.dims()[axis]) return std::nullopt;
  const bool largest = c.i("largest", 1) != 0;
  const Rows r = Rows::of(x.dims(), axis);
  Ints dims = x.dims();
  dims[axis] = k;
  if (!c.room(DType::Int64, element_count(dims))) return std::nullopt;
  const Rows to = Rows::of(dims, axis);
  return by_type(x.dtype(), [&]<typename T>(T) -> Result {
    const auto v = load<T>(x);
    if (has_nan(v)) return std::nullopt;
    std::vector<T> values(static_cast<std::size_t>(element_count(dims)));
    Ints indices(values.size());
    r.each([&](std::int64_t o, std::int64_t s) {
      Ints order(static_cast<std::size_t>(r.n));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
        const T a = v[r.at(o, i, s)];
        const T b = v[r.at(o, j, s)];
        return largest ? a > b : a < b;
      });
      for (std::int64_t i = 0; i < k; ++i) {
        const std::int64_t from = order[static_cast<std::size_t>(i)];
        indices[to.at(o, i, s)] = from;
        values[to.at(o, i, s)] = v[r.at(o, from, s)];
      }
    });
    auto y = store(c, x.dtype(), dims, values);
    if (!y) return std::nullopt;
    return std::vector<TensorPtr>{*y, Tensor::from<std::int64_t>(DType::Int64, dims, indices)};
  });
}

Result accumulate(const Call& c) {
  const Tensor& x = *c.in(0);
  if (x.rank() == 0 || c.in(1) == nullptr || c.in(1)->size() != 1) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.in(1)->int_at(0), x.rank()));
  const bool exclusive = c.i("exclusive", 0) != 0;
  const bool reverse = c.i("reverse", 0) != 0;
  const bool product = c.node().op_type == "CumProd";
  const Rows r = Rows::of(x.dims(), axis);
  return by_type(x.dtype(), [&]<typename T>(T) -> Result {
    using Wide = std::conditional_t<std::is_integral_v<T>, std::uint64_t, T>;
    auto v = load<T>(x);
    r.each([&](std::int64_t o, std::int64_t s) {
      auto sum = static_cast<Wide>(product ? 1 : 0);
      for (std::int64_t k = 0; k < r.n; ++k) {
        T& here = v[r.at(o, reverse ? r.n - 1 - k : k, s)];
        const auto before = sum;
        sum = product ? sum * static_cast<Wide>(here) : sum + static_cast<Wide>(here);
        here = static_cast<T>(exclusive ? before : sum);
      }
    });
    return result(c, x.dtype(), x.dims(), v);
  });
}

}  // namespace

Result order(const Call& c) {
  static const std::unordered_map<std::string_view, Kernel> kKernels = {
      {"ArgMax", arg_extreme}, {"ArgMin", arg_extreme}, {"TopK", top_k},
      {"CumSum", accumulate},  {"CumProd", accumulate}};
  return run(kKernels, c);
}

}  // namespace onnx2nn::eval
