// Sums, products, extremes and norms along axes. Floats are summed in double precision.
#include <algorithm>
#include <limits>

#include "eval/numbers.h"

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

enum class Kind { Sum, Mean, Prod, Max, Min, L1, L2, LogSum, LogSumExp, SumSquare };

/// The sum, or product, or extreme that a kind is made of.
template <typename W>
bool add(Kind kind, W& sum, W v, bool first) {
  switch (kind) {
    case Kind::Max:
    case Kind::Min:
      if (first || v != v || (kind == Kind::Max ? v > sum : v < sum)) sum = sum != sum ? sum : v;
      return true;
    case Kind::Prod:
      if constexpr (std::is_integral_v<W>) return !__builtin_mul_overflow(sum, v, &sum);
      sum *= v;
      return true;
    case Kind::L2:
    case Kind::SumSquare:
      if constexpr (std::is_integral_v<W>)
        return !__builtin_mul_overflow(v, v, &v) && !__builtin_add_overflow(sum, v, &sum);
      sum += v * v;
      return true;
    case Kind::L1:
      if constexpr (std::is_integral_v<W>) {
        if (v < 0 && __builtin_sub_overflow(W(0), v, &v)) return false;
      } else {
        v = std::fabs(v);
      }
      break;
    default:
      break;
  }
  if constexpr (std::is_integral_v<W>) return !__builtin_add_overflow(sum, v, &sum);
  sum += v;
  return true;
}

/// Sums in W. The logarithm of a sum of exponentials is taken relative to the greatest.
template <typename W>
std::optional<std::vector<W>> sums_of(const Tensor& x, const Reduced& r, Kind kind) {
  const auto v = load<W>(x);
  const auto n = static_cast<std::size_t>(element_count(r.kept));
  std::vector<W> sums(n, W(kind == Kind::Prod ? 1 : 0));
  std::vector<bool> seen(n, false);
  bool fits = true;
  const auto each = [&](auto&& f) {
    for_each_pair(x.dims(), r.strides, strides_of(x.dims()), [&](std::int64_t to, std::int64_t from) {
      f(static_cast<std::size_t>(to), v[static_cast<std::size_t>(from)]);
    });
  };
  const Kind first = kind == Kind::LogSumExp ? Kind::Max : kind;
  each([&](std::size_t k, W value) {
    fits = fits && add(first, sums[k], value, !seen[k]);
    seen[k] = true;
  });
  if constexpr (std::is_floating_point_v<W>) {
    if (kind == Kind::LogSumExp) {
      const std::vector<W> most = sums;
      std::fill(sums.begin(), sums.end(), W(0));
      each([&](std::size_t k, W value) {
        sums[k] += std::isinf(most[k]) ? W(value == most[k] ? 1 : 0) : std::exp(value - most[k]);
      });
      for (std::size_t k = 0; k < n; ++k) sums[k] = most[k] + std::log(sums[k]);
    }
    if (kind == Kind::L2)
      for (W& s : sums) s = std::sqrt(s);
    if (kind == Kind::LogSum)
      for (W& s : sums) s = std::log(s);
  }
  return fits ? std::optional(std::move(sums)) : std::nullopt;
}

Result reduce(const Call& c) {
  static const std::unordered_map<std::string_view, Kind> kKinds = {
      {"ReduceSum", Kind::Sum},     {"ReduceMean", Kind::Mean},
      {"ReduceProd", Kind::Prod},   {"ReduceMax", Kind::Max},
      {"ReduceMin", Kind::Min},     {"ReduceL1", Kind::L1},
      {"ReduceL2", Kind::L2},       {"ReduceLogSum", Kind::LogSum},
      {"ReduceLogSumExp", Kind::LogSumExp}, {"ReduceSumSquare", Kind::SumSquare}};
  const Kind kind = kKinds.at(c.node().op_type);
  const Tensor& x = *c.in(0);
  const auto r = reduced(c, x);
  if (!r || !c.room(x.dtype(), element_count(r->kept))) return std::nullopt;
  // Of nothing there is no greatest, and runtimes differ about a mean.
  const bool of_nothing = x.size() == 0 && element_count(r->kept) != 0;
  if (of_nothing && kind != Kind::Sum && kind != Kind::Prod && kind != Kind::L1 &&
      kind != Kind::L2 && kind != Kind::SumSquare)
    return std::nullopt;
  if (is_real(x.dtype())) {
    auto sums = sums_of<double>(x, *r, kind);
    const double count = static_cast<double>(x.size()) /
                         static_cast<double>(std::max<std::int64_t>(element_count(r->kept), 1));
    if (kind == Kind::Mean)
      for (double& s : *sums) s /= count;
    // Of halves, squares may be beyond what halves hold before their root is taken.
    constexpr double kMostSquares = 65504.0;
    if (kind == Kind::L2 && x.dtype() == DType::Float16 &&
        std::any_of(sums->begin(), sums->end(), [](double s) { return s * s > kMostSquares; }))
      return std::nullopt;
    return result(c, x.dtype(), r->dims, *sums);
  }
  const bool whole = kind != Kind::Mean && kind != Kind::L2 && kind != Kind::LogSum &&
                     kind != Kind::LogSumExp;
  if (!whole || !computes_as_int(x.dtype())) return std::nullopt;
  const auto sums = sums_of<std::int64_t>(x, *r, kind);
  if (!sums) return std::nullopt;
  for (const std::int64_t s : *sums)
    if (!ir::holds(x.dtype(), s)) return std::nullopt;
  return result(c, x.dtype(), r->dims, *sums);
}

}  // namespace

Result reduction(const Call& c) {
  return c.node().op_type.starts_with("Reduce") ? reduce(c) : std::nullopt;
}

}  // namespace onnx2nn::eval
