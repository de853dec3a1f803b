// Activations, and what is normalised along an axis.
#include <algorithm>
#include <limits>
#include <numbers>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

template <typename T>
T softplus(T v) {
  return v > T(0) ? v + std::log1p(std::exp(-v)) : std::log1p(std::exp(v));
}

template <typename T>
T sigmoid(T v) {
  return T(1) / (T(1) + std::exp(-v));
}

template <typename T>
T gelu(T v, bool by_tanh) {
  if (!by_tanh) return T(0.5) * v * (T(1) + std::erf(v / std::numbers::sqrt2_v<T>));
  const T inner = std::numbers::sqrt2_v<T> * std::numbers::inv_sqrtpi_v<T>;
  return T(0.5) * v * (T(1) + std::tanh(inner * (v + T(0.044715) * v * v * v)));
}

/// The function of one element, computed as T. NaN stays what it is, but where only comparisons ask.
template <typename T>
T activate(const Call& c, std::string_view type, T v) {
  const auto f = [&](std::string_view name, double otherwise) {
    return static_cast<T>(c.f(name, static_cast<double>(static_cast<float>(otherwise))));
  };
  if (type == "ThresholdedRelu") return v > f("alpha", 1.0) ? v : T(0);
  if (type == "Shrink") {
    const T lambd = f("lambd", 0.5);
    const T bias = f("bias", 0.0);
    return v < -lambd ? v + bias : v > lambd ? v - bias : T(0);
  }
  if (std::isnan(v)) return v;
  if (type == "Relu") return std::max(v, T(0));
  if (type == "Sigmoid") return sigmoid(v);
  if (type == "Softplus") return softplus(v);
  if (type == "Softsign") return v / (T(1) + std::fabs(v));
  if (type == "LeakyRelu") return v < T(0) ? f("alpha", 0.01) * v : v;
  if (type == "Elu") return v < T(0) ? f("alpha", 1.0) * std::expm1(v) : v;
  if (type == "Celu") {
    const T alpha = f("alpha", 1.0);
    return v < T(0) ? alpha * std::expm1(v / alpha) : v;
  }
  if (type == "Selu") {
    const bool first = c.opset() < 6;  // its defaults had fewer digits
    const T gamma = f("gamma", first ? 1.0507 : 1.0507009873554804934193349852946);
    const T alpha = f("alpha", first ? 1.6732 : 1.6732632423543772848170429916717);
    return v > T(0) ? gamma * v : gamma * alpha * std::expm1(v);
  }
  if (type == "HardSigmoid") return std::clamp(f("alpha", 0.2) * v + f("beta", 0.5), T(0), T(1));
  if (type == "HardSwish") return v * std::clamp(f("", 1.0 / 6.0) * v + T(0.5), T(0), T(1));
  if (type == "Mish") return v * std::tanh(softplus(v));
  if (type == "Swish") return v * sigmoid(f("alpha", 1.0) * v);
  return gelu(v, c.s("approximate", "none") == "tanh");
}

Result each(const Call& c) {
  const Tensor& t = *c.in(0);
  const std::string& type = c.node().op_type;
  // ONNX Runtime shrinks doubles in single precision.
  if (type == "Shrink" && t.dtype() == DType::Float64) return std::nullopt;
  if (is_real(t.dtype()))
    return by_float(t.dtype(), [&]<typename T>(T) {
      auto v = load<T>(t);
      for (T& x : v) x = activate(c, type, x);
      return result(c, t.dtype(), t.dims(), v);
    });
  if (type != "Relu" || !computes_as_int(t.dtype())) return std::nullopt;
  auto v = load<std::int64_t>(t);
  for (std::int64_t& x : v) x = std::max<std::int64_t>(x, 0);
  return result(c, t.dtype(), t.dims(), v);
}

template <typename T>
std::optional<T> bound(const Call& c, std::string_view name, std::size_t i) {
  constexpr std::int64_t kInputs = 11;  // the opset from which the bounds are inputs
  if (c.opset() >= kInputs) {
    const Tensor* t = c.in(i);
    if (t == nullptr || t->size() != 1) return std::nullopt;
    if constexpr (std::is_floating_point_v<T>) return static_cast<T>(t->double_at(0));
    return static_cast<T>(t->int_at(0));
  }
  // The defaults were those of float32, whatever the type.
  constexpr double kMost = std::numeric_limits<float>::max();
  return static_cast<T>(c.f(name, name == "min" ? -kMost : kMost));
}

Result clip(const Call& c) {
  const Tensor& t = *c.in(0);
  for (std::size_t i = 1; i < c.inputs(); ++i)
    if (c.in(i) != nullptr && (c.in(i)->size() != 1 || c.in(i)->dtype() != t.dtype()))
      return std::nullopt;
  return by_type(t.dtype(), [&]<typename T>(T) -> Result {
    if (c.opset() < 11 && !std::is_floating_point_v<T>) return std::nullopt;
    const auto low = bound<T>(c, "min", 1);
    const auto high = bound<T>(c, "max", 2);
    auto v = load<T>(t);
    for (T& x : v) {
      if (low && x < *low) x = *low;
      if (high && x > *high) x = *high;
    }
    return result(c, t.dtype(), t.dims(), v);
  });
}

/// Rows of `n` elements, each `stride` apart.
struct Rows {
  std::int64_t outer = 1, n = 1, stride = 1;
};

/// What Softmax and its kin work along: one axis since opset 13, all from it on before.
Rows rows_of(const Call& c, const Tensor& t) {
  constexpr std::int64_t kOneAxis = 13;
  const bool one_axis = c.opset() >= kOneAxis;
  Rows r;
  if (t.rank() == 0) return r;
  const std::int64_t given = c.i("axis", one_axis ? -1 : 1);
  const bool none = !one_axis && given == static_cast<std::int64_t>(t.rank());
  const auto axis = none ? t.rank() : static_cast<std::size_t>(Call::axis(given, t.rank()));
  for (std::size_t i = 0; i < t.rank(); ++i) {
    if (i < axis) {
      r.outer *= t.dims()[i];
    } else if (i == axis || !one_axis) {
      r.n *= t.dims()[i];
    } else {
      r.stride *= t.dims()[i];
    }
  }
  return r;
}

template <typename T>
void normalise(std::string_view type, T* v, const Rows& r) {
  const auto at = [&](std::int64_t i) -> T& { return v[i * r.stride]; };
  T most = -std::numeric_limits<T>::infinity();
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < r.n; ++i) {
    if (!(at(i) > most)) continue;
    most = at(i);
    first = i;
  }
  if (type == "Hardmax") {
    for (std::int64_t i = 0; i < r.n; ++i) at(i) = i == first ? T(1) : T(0);
    return;
  }
  T sum = 0;
  for (std::int64_t i = 0; i < r.n; ++i) sum += std::exp(at(i) - most);
  for (std::int64_t i = 0; i < r.n; ++i)
    at(i) = type == "Softmax" ? std::exp(at(i) - most) / sum : at(i) - most - std::log(sum);
}

Result along_rows(const Call& c) {
  const Tensor& t = *c.in(0);
  return by_float(t.dtype(), [&]<typename T>(T) -> Result {
    auto v = load<T>(t);
    if (v.empty()) return one(c.ptr(0));
    if (c.node().op_type == "Hardmax" && has_nan(t)) return std::nullopt;
    const Rows r = rows_of(c, t);
    for (std::int64_t o = 0; o < r.outer; ++o)
      for (std::int64_t s = 0; s < r.stride; ++s)
        normalise(c.node().op_type, v.data() + o * r.n * r.stride + s, r);
    return result(c, t.dtype(), t.dims(), v);
  });
}

}  // namespace

Result activation(const Call& c) {
  static const std::unordered_map<std::string_view, Kernel> kKernels = {
      {"Relu", each},        {"Sigmoid", each},         {"Softplus", each},
      {"Softsign", each},    {"LeakyRelu", each},       {"Elu", each},
      {"Celu", each},        {"Selu", each},            {"ThresholdedRelu", each},
      {"HardSigmoid", each}, {"HardSwish", each},       {"Mish", each},
      {"Swish", each},       {"Gelu", each},            {"Shrink", each},
      {"Clip", clip},        {"Softmax", along_rows},   {"LogSoftmax", along_rows},
      {"Hardmax", along_rows}};
  return run(kKernels, c);
}

}  // namespace onnx2nn::eval
