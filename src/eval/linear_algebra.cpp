// Inverses of small matrices, as calibrations and homographies hold them.
#include <algorithm>
#include <cmath>
#include <utility>

#include "eval/array.h"

namespace onnx2nn::eval {
namespace {

/// Larger matrices are left to the runtime, whose order of operations decides their last digits.
constexpr std::size_t kMostRows = 16;
/// Entries of this size times the largest are what rounding leaves of a zero.
constexpr double kSingular = 1e-6;

/// Replaces the `n` by `n` matrix `a` by its inverse, by Gauss and Jordan with pivots; false where
/// it has none, or one that is mostly rounding.
bool invert(std::vector<double>& a, std::size_t n) {
  double largest = 0.0;
  for (const double v : a) {
    if (!std::isfinite(v)) return false;
    largest = std::max(largest, std::abs(v));
  }
  std::vector<double> out(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i) out[i * n + i] = 1.0;
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::abs(a[i * n + k]) > std::abs(a[pivot * n + k])) pivot = i;
    if (!(std::abs(a[pivot * n + k]) > kSingular * largest)) return false;
    for (std::size_t j = 0; j < n; ++j) {
      std::swap(a[k * n + j], a[pivot * n + j]);
      std::swap(out[k * n + j], out[pivot * n + j]);
    }
    const double scale = 1.0 / a[k * n + k];
    for (std::size_t j = 0; j < n; ++j) {
      a[k * n + j] *= scale;
      out[k * n + j] *= scale;
    }
    for (std::size_t i = 0; i < n; ++i) {
      const double factor = a[i * n + k];
      if (i == k || factor == 0.0) continue;
      for (std::size_t j = 0; j < n; ++j) {
        a[i * n + j] -= factor * a[k * n + j];
        out[i * n + j] -= factor * out[k * n + j];
      }
    }
  }
  a = std::move(out);
  return true;
}

template <typename T>
Result inverse_as(const Call& c, const Tensor& x, std::size_t n) {
  const std::size_t size = n * n;
  const auto count = static_cast<std::size_t>(x.size());
  if (!c.room(x.dtype(), x.size())) return std::nullopt;
  const std::vector<double> in = x.to_doubles();
  std::vector<T> out;
  out.reserve(count);
  std::vector<double> matrix(size);
  for (std::size_t start = 0; start < count; start += size) {
    for (std::size_t i = 0; i < size; ++i) matrix[i] = in[start + i];
    if (!invert(matrix, n)) return std::nullopt;
    for (const double v : matrix) out.push_back(static_cast<T>(v));
  }
  return one(Tensor::from<T>(x.dtype(), x.dims(), out));
}

Result inverse(const Call& c) {
  const Tensor& x = *c.in(0);
  if (x.rank() < 2 || x.dims()[x.rank() - 1] != x.dims()[x.rank() - 2]) return std::nullopt;
  const auto n = static_cast<std::size_t>(x.dims().back());
  if (n == 0 || n > kMostRows) return std::nullopt;
  if (x.dtype() == DType::Float32) return inverse_as<float>(c, x, n);
  if (x.dtype() == DType::Float64) return inverse_as<double>(c, x, n);
  return std::nullopt;
}

}  // namespace

Result linear_algebra(const Call& c) {
  if (c.inputs() != 1 || c.in(0) == nullptr) return std::nullopt;
  if (c.node().op_type == "Inverse") return inverse(c);
  return std::nullopt;
}

}  // namespace onnx2nn::eval
