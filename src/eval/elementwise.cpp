// Arithmetic, comparison, logic, bits. Opsets below 7 had a broadcasting of their own and are left
// alone.
#include <algorithm>
#include <limits>
#include <unordered_map>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

constexpr std::int64_t kBroadcasting = 7;

// ---------------------------------------------------------------- two operands

template <typename T, typename F>
std::vector<T> combine(const Tensor& a, const Tensor& b, const Ints& dims, F&& f) {
  const auto x = load<T>(a);
  const auto y = load<T>(b);
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(element_count(dims)));
  for_each_pair(dims, broadcast_strides(a.dims(), dims), broadcast_strides(b.dims(), dims),
                [&](std::int64_t i, std::int64_t j) {
                  out.push_back(f(x[static_cast<std::size_t>(i)], y[static_cast<std::size_t>(j)]));
                });
  return out;
}

enum class Binary {
  Add,
  Sub,
  Mul,
  Div,
  Pow,
  Min,
  Max,
  Mod,
  PRelu,
  BitAnd,
  BitOr,
  BitXor,
  ShiftLeft,
  ShiftRight,
  // From here on the result is a bool.
  Equal,
  Less,
  LessOrEqual,
  Greater,
  GreaterOrEqual,
  And,
  Or,
  Xor
};

std::optional<Binary> binary_of(const Call& c) {
  static const std::unordered_map<std::string_view, Binary> kTable = {
      {"Add", Binary::Add},
      {"Sub", Binary::Sub},
      {"Mul", Binary::Mul},
      {"Div", Binary::Div},
      {"Pow", Binary::Pow},
      {"Min", Binary::Min},
      {"Max", Binary::Max},
      {"Mod", Binary::Mod},
      {"PRelu", Binary::PRelu},
      {"Sum", Binary::Add},
      {"Mean", Binary::Add},
      {"BitwiseAnd", Binary::BitAnd},
      {"BitwiseOr", Binary::BitOr},
      {"BitwiseXor", Binary::BitXor},
      {"Equal", Binary::Equal},
      {"Less", Binary::Less},
      {"LessOrEqual", Binary::LessOrEqual},
      {"Greater", Binary::Greater},
      {"GreaterOrEqual", Binary::GreaterOrEqual},
      {"And", Binary::And},
      {"Or", Binary::Or},
      {"Xor", Binary::Xor}};
  if (c.node().op_type == "BitShift")
    return c.s("direction", "") == "LEFT" ? Binary::ShiftLeft : Binary::ShiftRight;
  const auto it = kTable.find(c.node().op_type);
  return it == kTable.end() ? std::nullopt : std::optional(it->second);
}

template <typename T>
T float_arithmetic(Binary op, T a, T b) {
  const bool nan = std::isnan(a) || std::isnan(b);
  switch (op) {
    case Binary::Add:
      return a + b;
    case Binary::Sub:
      return a - b;
    case Binary::Mul:
      return a * b;
    case Binary::Div:
      return a / b;
    case Binary::Pow:
      return std::pow(a, b);
    case Binary::Min:
      return nan ? std::numeric_limits<T>::quiet_NaN() : std::min(a, b);
    case Binary::Max:
      return nan ? std::numeric_limits<T>::quiet_NaN() : std::max(a, b);
    case Binary::Mod:
      return std::fmod(a, b);
    case Binary::PRelu:
      return a < T(0) ? a * b : a;
    default:
      return T(0);
  }
}

std::uint64_t power(std::uint64_t base, std::uint64_t exponent) {
  std::uint64_t out = 1;
  for (; exponent != 0; exponent >>= 1U, base *= base)
    if ((exponent & 1U) != 0) out *= base;
  return out;
}

/// Integers of `bits` bits, which wrap around as two's complement does; `fmod` takes the sign of
/// the dividend for a remainder.
template <typename T>
T int_arithmetic(Binary op, T a, T b, bool fmod, int bits) {
  const auto x = static_cast<std::uint64_t>(a);
  const auto y = static_cast<std::uint64_t>(b);
  const bool minus_one = std::is_signed_v<T> && b == static_cast<T>(-1);
  if ((op == Binary::Div || op == Binary::Mod) && b == 0)
    throw Error("bad-model", "an integer is divided by zero");
  switch (op) {
    case Binary::Add:
      return static_cast<T>(x + y);
    case Binary::Sub:
      return static_cast<T>(x - y);
    case Binary::Mul:
      return static_cast<T>(x * y);
    case Binary::Div:
      return minus_one ? static_cast<T>(0 - x) : static_cast<T>(a / b);
    case Binary::Pow:
      return static_cast<T>(power(x, y));
    case Binary::Min:
      return std::min(a, b);
    case Binary::Max:
      return std::max(a, b);
    case Binary::Mod: {
      if (minus_one) return 0;
      const T r = a % b;
      return !fmod && r != 0 && (r < 0) != (b < 0) ? r + b : r;
    }
    case Binary::PRelu:
      return a < 0 ? static_cast<T>(x * y) : a;
    case Binary::BitAnd:
      return static_cast<T>(x & y);
    case Binary::BitOr:
      return static_cast<T>(x | y);
    case Binary::BitXor:
      return static_cast<T>(x ^ y);
    case Binary::ShiftLeft:
      return y < static_cast<std::uint64_t>(bits) ? static_cast<T>(x << y) : 0;
    case Binary::ShiftRight:
      return a >> std::min<std::uint64_t>(y, 63);
    default:
      return 0;
  }
}

template <typename T>
bool compare(Binary op, T a, T b) {
  switch (op) {
    case Binary::Equal:
      return a == b;
    case Binary::Less:
      return a < b;
    case Binary::LessOrEqual:
      return a <= b;
    case Binary::Greater:
      return a > b;
    case Binary::GreaterOrEqual:
      return a >= b;
    case Binary::And:
      return a != T(0) && b != T(0);
    case Binary::Or:
      return a != T(0) || b != T(0);
    default:
      return (a != T(0)) != (b != T(0));
  }
}

template <typename T>
Result binary_as(const Call& c, Binary op, const Tensor& a, const Tensor& b) {
  const Ints dims = broadcast_dims(a.dims(), b.dims());
  if (!c.room(a.dtype(), element_count(dims))) return std::nullopt;
  if (op >= Binary::Equal)
    return result(c, DType::Bool, dims, combine<T>(a, b, dims, [&](T x, T y) {
                    return compare(op, x, y) ? T(1) : T(0);
                  }));
  if constexpr (std::is_floating_point_v<T>) {
    return result(c, a.dtype(), dims,
                  combine<T>(a, b, dims, [&](T x, T y) { return float_arithmetic(op, x, y); }));
  } else {
    const bool fmod = c.i("fmod", 0) != 0;
    const int bits = ir::info(a.dtype()).bits;
    return result(c, a.dtype(), dims, combine<T>(a, b, dims, [&](T x, T y) {
                    return int_arithmetic(op, x, y, fmod, bits);
                  }));
  }
}

bool is_bitwise(Binary op) {
  return op >= Binary::BitAnd && op <= Binary::ShiftRight;
}

/// The exponent may be of another type; integers are raised where the power is one.
Result pow(const Call& c, const Tensor& a, const Tensor& b) {
  if (is_real(a.dtype()))
    return by_float(a.dtype(), [&]<typename T>(T) -> Result {
      return is_real(b.dtype()) || ir::is_integer(b.dtype()) ? binary_as<T>(c, Binary::Pow, a, b)
                                                             : std::nullopt;
    });
  if (!computes_as_int(a.dtype()) || !computes_as_int(b.dtype())) return std::nullopt;
  for (std::int64_t i = 0; i < b.size(); ++i)
    if (b.int_at(i) < 0) return std::nullopt;
  return binary_as<std::int64_t>(c, Binary::Pow, a, b);
}

Result binary(const Call& c, Binary op, const Tensor& a, const Tensor& b) {
  if (op == Binary::Pow) return pow(c, a, b);
  if (a.dtype() != b.dtype()) return std::nullopt;
  if (a.dtype() == DType::Bool)
    return op >= Binary::Equal ? binary_as<std::int64_t>(c, op, a, b) : std::nullopt;
  if (is_real(a.dtype()) && is_bitwise(op)) return std::nullopt;
  // Runtimes multiply zeros by such slopes too, or not.
  if (op == Binary::PRelu && !is_finite(b)) return std::nullopt;
  // fmod says which sign the remainder has: the dividend's, which the kernel of floats computes.
  if (op == Binary::Mod && is_real(a.dtype()) && c.i("fmod", 0) == 0) return std::nullopt;
  return by_type(a.dtype(),
                 [&]<typename T>(T) -> Result { return binary_as<T>(c, op, a, b); });
}

/// One operand or more: the first two, then each of the others with what came of those before.
Result variadic(const Call& c, Binary op) {
  const std::string& type = c.node().op_type;
  const bool many = type == "Sum" || type == "Mean" || type == "Min" || type == "Max";
  for (std::size_t i = 0; i < c.inputs(); ++i)
    if (c.in(i) == nullptr) return std::nullopt;
  if (c.inputs() != 2 && !many) return std::nullopt;
  TensorPtr sum = c.ptr(0);
  for (std::size_t i = 1; i < c.inputs(); ++i) {
    const auto next = binary(c, op, *sum, *c.in(i));
    if (!next) return std::nullopt;
    sum = next->front();
  }
  if (type != "Mean") return one(sum);
  return by_float(sum->dtype(), [&]<typename T>(T) -> Result {
    auto v = load<T>(*sum);
    for (T& x : v) x /= static_cast<T>(c.inputs());
    return result(c, sum->dtype(), sum->dims(), v);
  });
}

// ---------------------------------------------------------------- one operand

template <typename T>
T sign(T v) {
  return v > T(0) ? T(1) : v < T(0) ? T(-1) : v;
}

template <typename T>
std::optional<T (*)(T)> float_unary(std::string_view type) {
  static const std::unordered_map<std::string_view, T (*)(T)> kTable = {
      {"Abs", [](T v) { return std::fabs(v); }},
      {"Neg", [](T v) { return -v; }},
      {"Sqrt", [](T v) { return std::sqrt(v); }},
      {"Exp", [](T v) { return std::exp(v); }},
      {"Log", [](T v) { return std::log(v); }},
      {"Floor", [](T v) { return std::floor(v); }},
      {"Ceil", [](T v) { return std::ceil(v); }},
      {"Round", [](T v) { return std::nearbyint(v); }},
      {"Sin", [](T v) { return std::sin(v); }},
      {"Cos", [](T v) { return std::cos(v); }},
      {"Tan", [](T v) { return std::tan(v); }},
      {"Asin", [](T v) { return std::asin(v); }},
      {"Acos", [](T v) { return std::acos(v); }},
      {"Atan", [](T v) { return std::atan(v); }},
      {"Sinh", [](T v) { return std::sinh(v); }},
      {"Cosh", [](T v) { return std::cosh(v); }},
      {"Tanh", [](T v) { return std::tanh(v); }},
      {"Asinh", [](T v) { return std::asinh(v); }},
      {"Acosh", [](T v) { return std::acosh(v); }},
      {"Atanh", [](T v) { return std::atanh(v); }},
      {"Erf", [](T v) { return std::erf(v); }},
      {"Reciprocal", [](T v) { return T(1) / v; }},
      {"Sign", [](T v) { return sign(v); }}};
  const auto it = kTable.find(type);
  return it == kTable.end() ? std::nullopt : std::optional(it->second);
}

template <typename T, typename F>
Result map(const Call& c, const Tensor& t, F&& f) {
  auto v = load<T>(t);
  for (T& x : v) x = f(x);
  return result(c, t.dtype(), t.dims(), v);
}

Result unary(const Call& c) {
  const std::string& type = c.node().op_type;
  const Tensor& t = *c.in(0);
  if (is_real(t.dtype()))
    return by_float(t.dtype(), [&]<typename T>(T) -> Result {
      const auto f = float_unary<T>(type);
      // Runtimes differ about the sign of what is no number.
      if (type == "Sign" && has_nan(t)) return std::nullopt;
      return f ? map<T>(c, t, *f) : std::nullopt;
    });
  if (t.dtype() == DType::Bool)
    return type == "Not" ? map<std::int64_t>(c, t, [](std::int64_t v) { return v == 0 ? 1 : 0; })
                         : std::nullopt;
  return by_type(t.dtype(), [&]<typename T>(T) -> Result {
    using U = std::uint64_t;
    if (type == "Neg") return map<T>(c, t, [](T v) { return static_cast<T>(0 - U(v)); });
    if (type == "Abs") return map<T>(c, t, [](T v) { return v < 0 ? static_cast<T>(0 - U(v)) : v; });
    if (type == "Sign") return map<T>(c, t, [](T v) { return v > 0 ? T(1) : static_cast<T>(v < 0 ? -1 : 0); });
    if (type == "BitwiseNot") return map<T>(c, t, [](T v) { return static_cast<T>(~U(v)); });
    return std::nullopt;
  });
}

template <typename F>
Result test(const Call& c, F&& f) {
  const Tensor& t = *c.in(0);
  if (ir::info(t.dtype()).kind != 'f') return std::nullopt;
  auto v = load<double>(t);
  for (double& x : v) x = f(x) ? 1.0 : 0.0;
  return result(c, DType::Bool, t.dims(), v);
}

Result is_inf(const Call& c) {
  const bool positive = c.i("detect_positive", 1) != 0;
  const bool negative = c.i("detect_negative", 1) != 0;
  return test(c, [&](double v) { return std::isinf(v) && (v > 0 ? positive : negative); });
}

// ---------------------------------------------------------------- Where

Result where(const Call& c) {
  if (c.inputs() != 3 || c.in(1) == nullptr || c.in(2) == nullptr) return std::nullopt;
  const Tensor& condition = *c.in(0);
  const Tensor& x = *c.in(1);
  const Tensor& y = *c.in(2);
  if (x.dtype() != y.dtype() || condition.dtype() != DType::Bool) return std::nullopt;
  const Ints dims = broadcast_dims(broadcast_dims(condition.dims(), x.dims()), y.dims());
  auto bytes = c.room(x.dtype(), element_count(dims));
  if (!bytes) return std::nullopt;
  const std::size_t w = width_of(x.dtype());
  const Ints sc = broadcast_strides(condition.dims(), dims);
  std::vector<std::int64_t> chosen;
  for_each_pair(dims, sc, sc,
                [&](std::int64_t i, std::int64_t) { chosen.push_back(condition.int_at(i)); });
  std::size_t k = 0;
  for_each_pair(dims, broadcast_strides(x.dims(), dims), broadcast_strides(y.dims(), dims),
                [&](std::int64_t i, std::int64_t j) {
                  const std::byte* from = chosen[k] != 0
                                              ? x.bytes().data() + static_cast<std::size_t>(i) * w
                                              : y.bytes().data() + static_cast<std::size_t>(j) * w;
                  std::memcpy(bytes->data() + k * w, from, w);
                  ++k;
                });
  return one(Tensor::owned(x.dtype(), dims, std::move(*bytes)));
}

}  // namespace

Result elementwise(const Call& c) {
  const std::string& type = c.node().op_type;
  if (type == "Cast" || type == "CastLike") return cast(c);
  if (type == "Where") return where(c);
  if (type == "IsNaN") return test(c, [](double v) { return std::isnan(v); });
  if (type == "IsInf") return is_inf(c);
  if (const auto op = binary_of(c))
    return c.opset() >= kBroadcasting ? variadic(c, *op) : std::nullopt;
  return c.inputs() == 1 ? unary(c) : std::nullopt;
}

}  // namespace onnx2nn::eval
