// Arithmetic, comparison, casts. Opsets below 7 had a broadcasting of their own and are left alone.
#include <cmath>
#include <limits>
#include <unordered_map>

#include "eval/array.h"

namespace onnx2nn::eval {
namespace {

/// Elements in a type that computes as the operator does: float for float16 and bfloat16 too.
template <typename T>
std::vector<T> load(const Tensor& t) {
  std::vector<T> out(static_cast<std::size_t>(t.size()));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      out[static_cast<std::size_t>(i)] = static_cast<T>(t.double_at(i));
    } else {
      out[static_cast<std::size_t>(i)] = static_cast<T>(t.int_at(i));
    }
  }
  return out;
}

template <typename T>
void put(std::vector<std::byte>& bytes, std::size_t i, T v) {
  std::memcpy(bytes.data() + i * sizeof(T), &v, sizeof(T));
}

/// Stores computed elements as `dtype`.
template <typename T>
std::optional<TensorPtr> store(const Call& c, DType dtype, const Ints& dims,
                               const std::vector<T>& v) {
  auto bytes = c.room(dtype, static_cast<std::int64_t>(v.size()));
  if (!bytes) return std::nullopt;
  for (std::size_t i = 0; i < v.size(); ++i) {
    switch (dtype) {
      case DType::Float32:
        put(*bytes, i, static_cast<float>(v[i]));
        break;
      case DType::Float64:
        put(*bytes, i, static_cast<double>(v[i]));
        break;
      case DType::Float16:
        put(*bytes, i, ir::float_to_half(static_cast<float>(v[i])));
        break;
      case DType::BFloat16:
        put(*bytes, i, ir::float_to_bfloat16(static_cast<float>(v[i])));
        break;
      case DType::Int64:
        put(*bytes, i, static_cast<std::int64_t>(v[i]));
        break;
      case DType::Int32:
        put(*bytes, i, static_cast<std::int32_t>(static_cast<std::int64_t>(v[i])));
        break;
      case DType::Int16:
        put(*bytes, i, static_cast<std::int16_t>(static_cast<std::int64_t>(v[i])));
        break;
      case DType::Int8:
        put(*bytes, i, static_cast<std::int8_t>(static_cast<std::int64_t>(v[i])));
        break;
      case DType::UInt8:
        put(*bytes, i, static_cast<std::uint8_t>(static_cast<std::int64_t>(v[i])));
        break;
      case DType::UInt16:
        put(*bytes, i, static_cast<std::uint16_t>(static_cast<std::int64_t>(v[i])));
        break;
      case DType::UInt32:
        put(*bytes, i, static_cast<std::uint32_t>(static_cast<std::int64_t>(v[i])));
        break;
      case DType::Bool:
        put(*bytes, i, static_cast<std::uint8_t>(v[i] != T(0) ? 1 : 0));
        break;
      default:
        return std::nullopt;
    }
  }
  return Tensor::owned(dtype, dims, std::move(*bytes));
}

bool computes_as_float(DType t) {
  return t == DType::Float32 || t == DType::Float16 || t == DType::BFloat16;
}
bool computes_as_int(DType t) {
  return ir::is_integer(t) && t != DType::UInt64 && !ir::is_sub_byte(t);
}

template <typename T>
Result result(const Call& c, DType dtype, const Ints& dims, const std::vector<T>& v) {
  auto t = store(c, dtype, dims, v);
  if (!t) return std::nullopt;
  return one(std::move(*t));
}

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
  None,
  Add,
  Sub,
  Mul,
  Div,
  Pow,
  Min,
  Max,
  Mod,
  Equal,
  Less,
  LessOrEqual,
  Greater,
  GreaterOrEqual,
  And,
  Or,
  Xor
};

Binary binary_of(std::string_view type) {
  static const std::unordered_map<std::string_view, Binary> kTable = {
      {"Add", Binary::Add},
      {"Sub", Binary::Sub},
      {"Mul", Binary::Mul},
      {"Div", Binary::Div},
      {"Pow", Binary::Pow},
      {"Min", Binary::Min},
      {"Max", Binary::Max},
      {"Mod", Binary::Mod},
      {"Equal", Binary::Equal},
      {"Less", Binary::Less},
      {"LessOrEqual", Binary::LessOrEqual},
      {"Greater", Binary::Greater},
      {"GreaterOrEqual", Binary::GreaterOrEqual},
      {"And", Binary::And},
      {"Or", Binary::Or},
      {"Xor", Binary::Xor}};
  const auto it = kTable.find(type);
  return it == kTable.end() ? Binary::None : it->second;
}

/// Integers wrap around as two's complement does.
std::int64_t wrap(std::uint64_t v) {
  return static_cast<std::int64_t>(v);
}

template <typename T>
T arithmetic(Binary op, T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
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
        return std::isnan(a) || std::isnan(b) ? std::numeric_limits<T>::quiet_NaN()
                                              : std::min(a, b);
      case Binary::Max:
        return std::isnan(a) || std::isnan(b) ? std::numeric_limits<T>::quiet_NaN()
                                              : std::max(a, b);
      case Binary::Mod:
        return std::fmod(a, b);
      default:
        return T(0);
    }
  } else {
    const auto x = static_cast<std::uint64_t>(a);
    const auto y = static_cast<std::uint64_t>(b);
    switch (op) {
      case Binary::Add:
        return wrap(x + y);
      case Binary::Sub:
        return wrap(x - y);
      case Binary::Mul:
        return wrap(x * y);
      case Binary::Div:
        if (b == 0) throw Error("bad-model", "an integer is divided by zero");
        return b == -1 ? wrap(0 - x) : a / b;
      case Binary::Min:
        return std::min(a, b);
      case Binary::Max:
        return std::max(a, b);
      case Binary::Mod: {
        if (b == 0) throw Error("bad-model", "an integer is divided by zero");
        if (b == -1) return 0;
        const T r = a % b;
        return r != 0 && (r < 0) != (b < 0) ? r + b : r;
      }
      default:
        return 0;
    }
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
  return result(c, a.dtype(), dims,
                combine<T>(a, b, dims, [&](T x, T y) { return arithmetic(op, x, y); }));
}

Result binary(const Call& c, Binary op, const Tensor& a, const Tensor& b) {
  if (op == Binary::Pow) {
    // The exponent may be of another type; integer powers are computed where they are exact.
    if (a.dtype() == DType::Float32 && ir::info(b.dtype()).kind != 'c')
      return binary_as<float>(c, op, a, b);
    if (a.dtype() == DType::Float64) return binary_as<double>(c, op, a, b);
    return std::nullopt;
  }
  if (a.dtype() != b.dtype()) return std::nullopt;
  // fmod says which sign the remainder has: the dividend's, which the kernel of floats computes, or
  // the divisor's, as that of integers.
  const bool real = computes_as_float(a.dtype()) || a.dtype() == DType::Float64;
  if (op == Binary::Mod && (c.i("fmod", 0) != 0) != real) return std::nullopt;
  if (computes_as_float(a.dtype())) return binary_as<float>(c, op, a, b);
  if (a.dtype() == DType::Float64) return binary_as<double>(c, op, a, b);
  if (computes_as_int(a.dtype())) return binary_as<std::int64_t>(c, op, a, b);
  if (a.dtype() == DType::Bool && op >= Binary::Equal) return binary_as<std::int64_t>(c, op, a, b);
  return std::nullopt;
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
      {"Tanh", [](T v) { return std::tanh(v); }},
      {"Erf", [](T v) { return std::erf(v); }},
      {"Reciprocal", [](T v) { return T(1) / v; }},
      {"Sign", [](T v) { return sign(v); }},
      {"Relu", [](T v) { return v > T(0) || std::isnan(v) ? v : T(0); }},
      {"Sigmoid", [](T v) { return T(1) / (T(1) + std::exp(-v)); }}};
  const auto it = kTable.find(type);
  return it == kTable.end() ? std::nullopt : std::optional(it->second);
}

template <typename T, typename F>
Result map(const Call& c, const Tensor& t, F&& f) {
  auto v = load<T>(t);
  for (T& x : v) x = f(x);
  return result(c, t.dtype(), t.dims(), v);
}

Result unary(const Call& c, std::string_view type, const Tensor& t) {
  if (computes_as_float(t.dtype())) {
    if (const auto f = float_unary<float>(type)) return map<float>(c, t, *f);
  } else if (t.dtype() == DType::Float64) {
    if (const auto f = float_unary<double>(type)) return map<double>(c, t, *f);
  } else if (computes_as_int(t.dtype())) {
    if (type == "Neg")
      return map<std::int64_t>(
          c, t, [](std::int64_t v) { return wrap(0 - static_cast<std::uint64_t>(v)); });
    if (type == "Abs")
      return map<std::int64_t>(
          c, t, [](std::int64_t v) { return v < 0 ? wrap(0 - static_cast<std::uint64_t>(v)) : v; });
    if (type == "Sign") return map<std::int64_t>(c, t, [](std::int64_t v) { return sign(v); });
    if (type == "Relu")
      return map<std::int64_t>(c, t, [](std::int64_t v) { return std::max<std::int64_t>(v, 0); });
  } else if (t.dtype() == DType::Bool && type == "Not") {
    return map<std::int64_t>(c, t, [](std::int64_t v) { return v == 0 ? 1 : 0; });
  }
  return std::nullopt;
}

// ---------------------------------------------------------------- casts

Result cast(const Call& c, DType to) {
  const Tensor& t = *c.in(0);
  const DType from = t.dtype();
  if (from == to) return one(c.ptr(0));
  const auto easy = [](DType d) {
    return computes_as_float(d) || d == DType::Float64 || computes_as_int(d) || d == DType::Bool;
  };
  if (!easy(from) || !easy(to)) return std::nullopt;
  if (!c.room(to, t.size())) return std::nullopt;
  if (ir::info(from).kind != 'f') return result(c, to, t.dims(), load<std::int64_t>(t));
  const auto v = load<double>(t);
  if (ir::is_integer(to)) {
    // What lies outside of the integers is not defined, and differs between machines.
    const double limit = std::ldexp(1.0, ir::info(to).bits - (ir::is_unsigned(to) ? 0 : 1));
    for (const double x : v)
      if (!(std::trunc(x) < limit && std::trunc(x) >= (ir::is_unsigned(to) ? 0.0 : -limit)))
        return std::nullopt;
    std::vector<std::int64_t> out;
    for (const double x : v) out.push_back(static_cast<std::int64_t>(std::trunc(x)));
    return result(c, to, t.dims(), out);
  }
  return result(c, to, t.dims(), v);
}

// ---------------------------------------------------------------- Where, Clip

Result where(const Call& c) {
  const Tensor& condition = *c.in(0);
  const Tensor& x = *c.in(1);
  const Tensor& y = *c.in(2);
  if (x.dtype() != y.dtype()) return std::nullopt;
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
  if (type == "Cast")
    return c.node().attribute("to") != nullptr && c.i("to", 0) > 0 && c.i("to", 0) < ir::kDTypeCount
               ? cast(c, static_cast<DType>(c.i("to", 0)))
               : std::nullopt;
  if (type == "CastLike" && c.inputs() == 2) return cast(c, c.in(1)->dtype());
  if (type == "Where" && c.inputs() == 3) return where(c);
  if (c.opset() < 7) return std::nullopt;
  if (c.inputs() == 1)
    if (auto r = unary(c, type, *c.in(0))) return r;
  const Binary op = binary_of(type);
  if (op == Binary::None || c.inputs() == 0) return std::nullopt;
  if (c.inputs() == 1) return op == Binary::Min || op == Binary::Max ? one(c.ptr(0)) : std::nullopt;
  if (c.inputs() == 2)
    return c.in(0) != nullptr && c.in(1) != nullptr ? binary(c, op, *c.in(0), *c.in(1))
                                                    : std::nullopt;
  return std::nullopt;
}

}  // namespace onnx2nn::eval
