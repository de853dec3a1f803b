// What makes tensors from sizes and numbers: ranges, identities, windows.
#include <algorithm>
#include <numbers>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

/// How many numbers a range has: exactly for integers, whose distance a double need not hold.
template <typename T>
double range_length(T start, T limit, T delta) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::ceil((static_cast<double>(limit) - static_cast<double>(start)) /
                     static_cast<double>(delta));
  } else {
    const bool up = delta > 0;
    if (up ? limit <= start : limit >= start) return 0;
    const auto bits = [](T v) { return static_cast<std::uint64_t>(v); };
    const std::uint64_t span = up ? bits(limit) - bits(start) : bits(start) - bits(limit);
    const std::uint64_t step = up ? bits(delta) : 0 - bits(delta);
    return static_cast<double>((span - 1) / step) + 1;
  }
}

template <typename T>
Result range_as(const Call& c) {
  const DType dtype = c.in(0)->dtype();
  const T start = load<T>(*c.in(0))[0];
  const T limit = load<T>(*c.in(1))[0];
  const T delta = load<T>(*c.in(2))[0];
  if (delta == T(0)) throw Error("bad-model", "Range with a step of zero");
  const double steps = range_length(start, limit, delta);
  if (!(steps < 1e9)) return std::nullopt;
  const auto n = static_cast<std::int64_t>(std::max(steps, 0.0));
  if (!c.room(dtype, n)) return std::nullopt;
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      out.push_back(static_cast<T>(start + static_cast<T>(i) * delta));
    } else {
      // Each number fits, the distance to it need not.
      out.push_back(static_cast<T>(static_cast<std::uint64_t>(start) +
                                   static_cast<std::uint64_t>(i) *
                                       static_cast<std::uint64_t>(delta)));
    }
  }
  return result(c, dtype, {n}, out);
}

Result range(const Call& c) {
  for (std::size_t i = 0; i < 3; ++i)
    if (c.in(i) == nullptr || c.in(i)->size() != 1 || c.in(i)->dtype() != c.in(0)->dtype())
      return std::nullopt;
  const DType t = c.in(0)->dtype();
  if (t == DType::Float16 || t == DType::BFloat16 || t == DType::UInt64) return std::nullopt;
  return by_type(t, [&]<typename T>(T) { return range_as<T>(c); });
}

Result eye_like(const Call& c) {
  const Tensor& x = *c.in(0);
  const std::int64_t type = c.i("dtype", static_cast<std::int64_t>(x.dtype()));
  if (x.rank() != 2 || type <= 0 || type >= ir::kDTypeCount) return std::nullopt;
  const auto dtype = static_cast<DType>(type);
  if (width_of(dtype) == 0 || !c.room(dtype, x.size())) return std::nullopt;
  const std::int64_t k = c.i("k", 0);
  std::vector<std::int64_t> v;
  for_each_index(x.dims(), [&](const Ints& at) { v.push_back(at[1] - at[0] == k ? 1 : 0); });
  return result(c, dtype, x.dims(), v);
}

/// Hann, Hamming and Blackman: sums of cosines.
Result window(const Call& c) {
  if (c.in(0)->size() != 1 || !ir::is_integer(c.in(0)->dtype())) return std::nullopt;
  const std::int64_t n = c.in(0)->int_at(0);
  const std::int64_t type = c.i("output_datatype", 1);
  if (n < 1 || type <= 0 || type >= ir::kDTypeCount) return std::nullopt;
  const auto dtype = static_cast<DType>(type);
  if (!is_real(dtype) || !c.room(dtype, n)) return std::nullopt;
  const std::string& name = c.node().op_type;
  const double a0 = name == "HannWindow" ? 0.5 : name == "HammingWindow" ? 25.0 / 46.0 : 0.42;
  const double a1 = name == "BlackmanWindow" ? 0.5 : 1.0 - a0;
  const double a2 = name == "BlackmanWindow" ? 0.08 : 0.0;
  const double period = static_cast<double>(c.i("periodic", 1) != 0 ? n : n - 1);
  std::vector<double> v;
  for (std::int64_t i = 0; i < n; ++i) {
    const double angle = 2.0 * std::numbers::pi * static_cast<double>(i) / period;
    v.push_back(a0 - a1 * std::cos(angle) + a2 * std::cos(2.0 * angle));
  }
  return result(c, dtype, {n}, v);
}

}  // namespace

Result creation(const Call& c) {
  static const std::unordered_map<std::string_view, Kernel> kKernels = {{"Range", range},
                                                                        {"EyeLike", eye_like},
                                                                        {"HannWindow", window},
                                                                        {"HammingWindow", window},
                                                                        {"BlackmanWindow", window}};
  return run(kKernels, c);
}

}  // namespace onnx2nn::eval
