// Resize, as it scales tables of positions to the size of an input. Coordinates are computed in
// single precision, as runtimes do: they decide which neighbour is nearest.
#include <algorithm>
#include <numeric>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

/// What one place along an axis is made of.
struct Tap {
  std::int64_t from;
  double weight;
};
using Taps = std::vector<std::vector<Tap>>;

struct Axis {
  std::int64_t n;  // elements
  std::int64_t m;  // elements of the result
  float scale;
};

std::optional<float> coordinate(const Axis& a, std::int64_t i, std::string_view mode) {
  const auto x = static_cast<float>(i);
  const auto n = static_cast<float>(a.n);
  const auto m = static_cast<float>(a.m);
  if (a.scale == 1.0F) return x;
  if (mode == "half_pixel") return (x + 0.5F) / a.scale - 0.5F;
  if (mode == "pytorch_half_pixel") return a.m > 1 ? (x + 0.5F) / a.scale - 0.5F : 0.0F;
  if (mode == "align_corners") {
    // Runtime and standard differ where the scaled size is no whole number.
    if (a.scale * n != m) return std::nullopt;
    return a.m == 1 ? 0.0F : x * (n - 1.0F) / (m - 1.0F);
  }
  if (mode == "asymmetric") return x / a.scale;
  if (mode != "half_pixel_symmetric") return std::nullopt;
  const float offset = n / 2.0F * (1.0F - m / (a.scale * n));
  return offset + (x + 0.5F) / a.scale - 0.5F;
}

float nearest(float x, std::string_view mode) {
  if (mode == "floor") return std::floor(x);
  if (mode == "ceil") return std::ceil(x);
  if (mode == "round_prefer_ceil") return std::floor(x + 0.5F);
  return std::ceil(x - 0.5F);
}

std::optional<Taps> taps_of(const Call& c, const Axis& a) {
  const std::string mode = c.s("mode", "nearest");
  const std::string how = c.s("coordinate_transformation_mode", "half_pixel");
  const std::int64_t last = a.n - 1;
  const auto inside = [&](float x) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(x), 0, last);
  };
  Taps out;
  for (std::int64_t i = 0; i < a.m; ++i) {
    const auto x = coordinate(a, i, how);
    if (!x || !(std::fabs(*x) < 1e9F)) return std::nullopt;
    if (mode == "nearest") {
      out.push_back({{inside(nearest(*x, c.s("nearest_mode", "round_prefer_floor"))), 1.0}});
    } else if (mode == "linear") {
      const float at = std::clamp(*x, 0.0F, static_cast<float>(last));
      const auto low = static_cast<std::int64_t>(at);
      const double share = static_cast<double>(at) - static_cast<double>(low);
      out.push_back({{low, 1.0 - share}, {std::min(low + 1, last), share}});
    } else if (mode == "cubic") {
      const double k = c.f("cubic_coeff_a", -0.75);
      const float low = std::floor(*x);
      const double t = static_cast<double>(*x - low);
      const auto near = [&](double d) { return ((k + 2) * d - (k + 3)) * d * d + 1; };
      const auto far = [&](double d) { return ((k * d - 5 * k) * d + 8 * k) * d - 4 * k; };
      out.push_back({{inside(low - 1.0F), far(t + 1)},
                     {inside(low), near(t)},
                     {inside(low + 1.0F), near(1 - t)},
                     {inside(low + 2.0F), far(2 - t)}});
    } else {
      return std::nullopt;
    }
  }
  return out;
}

std::optional<std::vector<Axis>> axes_of(const Call& c, const Tensor& x) {
  const Tensor* scales = c.in(2) != nullptr && c.in(2)->size() > 0 ? c.in(2) : nullptr;
  const Tensor* sizes = c.in(3) != nullptr && c.in(3)->size() > 0 ? c.in(3) : nullptr;
  if ((scales == nullptr) == (sizes == nullptr)) return std::nullopt;
  Ints which(x.rank());
  std::iota(which.begin(), which.end(), 0);
  if (const auto given = c.ints("axes")) which = *given;
  const auto count = static_cast<std::int64_t>(which.size());
  if ((scales != nullptr ? scales : sizes)->size() != count) return std::nullopt;
  if (scales != nullptr && scales->dtype() != DType::Float32) return std::nullopt;
  std::vector<Axis> out;
  for (const std::int64_t n : x.dims()) out.push_back({n, n, 1.0F});
  for (std::int64_t k = 0; k < count; ++k) {
    const auto at = static_cast<std::size_t>(k);
    Axis& a = out[static_cast<std::size_t>(Call::axis(which[at], x.rank()))];
    if (scales != nullptr) {
      a.scale = scales->at<float>(k);
      const float m = std::floor(static_cast<float>(a.n) * a.scale);
      if (!(m >= 1.0F && m < 1e9F)) return std::nullopt;
      a.m = static_cast<std::int64_t>(m);
    } else {
      a.m = sizes->int_at(k);
      if (a.m < 1 || a.n < 1) return std::nullopt;
      a.scale = static_cast<float>(a.m) / static_cast<float>(a.n);
    }
  }
  return out;
}

}  // namespace

Result resize(const Call& c) {
  constexpr std::int64_t kModes = 11;
  const Tensor& x = *c.in(0);
  if (c.node().op_type != "Resize" || c.opset() < kModes || !is_real(x.dtype()) || x.size() == 0 ||
      c.i("antialias", 0) != 0 || c.i("exclude_outside", 0) != 0 ||
      c.s("keep_aspect_ratio_policy", "stretch") != "stretch")
    return std::nullopt;
  const auto axes = axes_of(c, x);
  if (!axes) return std::nullopt;
  Ints dims = x.dims();
  auto v = load<double>(x);
  for (std::size_t d = 0; d < dims.size(); ++d) {
    const Axis& a = (*axes)[d];
    if (a.n == a.m && a.scale == 1.0F) continue;
    const std::int64_t outer =
        element_count(Ints(dims.begin(), dims.begin() + static_cast<std::ptrdiff_t>(d)));
    const std::int64_t run =
        element_count(Ints(dims.begin() + static_cast<std::ptrdiff_t>(d) + 1, dims.end()));
    dims[d] = a.m;
    if (!c.room(DType::Float64, element_count(dims)) && !c.room(x.dtype(), element_count(dims)))
      return std::nullopt;
    const auto taps = taps_of(c, a);
    if (!taps) return std::nullopt;
    std::vector<double> wide(static_cast<std::size_t>(element_count(dims)), 0.0);
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t i = 0; i < a.m; ++i)
        for (const Tap& tap : (*taps)[static_cast<std::size_t>(i)]) {
          if (tap.weight == 0.0) continue;
          const double* from = v.data() + (o * a.n + tap.from) * run;
          double* to = wide.data() + (o * a.m + i) * run;
          for (std::int64_t r = 0; r < run; ++r) to[r] += tap.weight * from[r];
        }
    v = std::move(wide);
  }
  return result(c, x.dtype(), dims, v);
}

}  // namespace onnx2nn::eval
