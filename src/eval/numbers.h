// Elements as numbers: read into the type that the kernels compute in, rounded to the element's own.
#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "eval/array.h"

namespace onnx2nn::eval {

inline bool computes_as_float(DType t) {
  return t == DType::Float32 || t == DType::Float16 || t == DType::BFloat16;
}
inline bool is_real(DType t) {
  return computes_as_float(t) || t == DType::Float64;
}
inline bool computes_as_int(DType t) {
  return ir::is_integer(t) && t != DType::UInt64 && !ir::is_sub_byte(t);
}

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

/// Of floats.
inline bool has_nan(const Tensor& t) {
  for (std::int64_t i = 0; i < t.size(); ++i)
    if (std::isnan(t.double_at(i))) return true;
  return false;
}
inline bool is_finite(const Tensor& t) {
  for (std::int64_t i = 0; i < t.size(); ++i)
    if (!std::isfinite(t.double_at(i))) return false;
  return true;
}

template <typename To>
void put(std::vector<std::byte>& bytes, std::size_t i, To v) {
  std::memcpy(bytes.data() + i * sizeof(To), &v, sizeof(To));
}

template <typename To, typename T>
To whole(T v) {
  if constexpr (std::is_floating_point_v<T>) {
    return saturated<To>(v);
  } else {
    return static_cast<To>(v);
  }
}

/// Stores computed elements as `dtype`; floats become integers only where these hold them.
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
        put(*bytes, i, whole<std::int64_t>(v[i]));
        break;
      case DType::UInt64:
        put(*bytes, i, whole<std::uint64_t>(v[i]));
        break;
      case DType::Int32:
        put(*bytes, i, static_cast<std::int32_t>(whole<std::int64_t>(v[i])));
        break;
      case DType::Int16:
        put(*bytes, i, static_cast<std::int16_t>(whole<std::int64_t>(v[i])));
        break;
      case DType::Int8:
        put(*bytes, i, static_cast<std::int8_t>(whole<std::int64_t>(v[i])));
        break;
      case DType::UInt8:
        put(*bytes, i, static_cast<std::uint8_t>(whole<std::int64_t>(v[i])));
        break;
      case DType::UInt16:
        put(*bytes, i, static_cast<std::uint16_t>(whole<std::int64_t>(v[i])));
        break;
      case DType::UInt32:
        put(*bytes, i, static_cast<std::uint32_t>(whole<std::int64_t>(v[i])));
        break;
      case DType::Bool:
        put(*bytes, i, static_cast<std::uint8_t>(v[i] != T(0) ? 1 : 0));
        break;
      case DType::Int4:
      case DType::UInt4:
        (*bytes)[i / 2] |=
            static_cast<std::byte>((whole<std::int64_t>(v[i]) & 0xF) << (i % 2 * 4));
        break;
      case DType::Int2:
      case DType::UInt2:
        (*bytes)[i / 4] |=
            static_cast<std::byte>((whole<std::int64_t>(v[i]) & 3) << (i % 4 * 2));
        break;
      default:
        return std::nullopt;
    }
  }
  return Tensor::owned(dtype, dims, std::move(*bytes));
}

template <typename T>
Result result(const Call& c, DType dtype, const Ints& dims, const std::vector<T>& v) {
  auto t = store(c, dtype, dims, v);
  if (!t) return std::nullopt;
  return one(std::move(*t));
}

/// f(T()) where elements of `dtype` are computed as T; nothing for what is no number.
template <typename F>
Result by_type(DType dtype, F&& f) {
  if (computes_as_float(dtype)) return f(float{});
  if (dtype == DType::Float64) return f(double{});
  if (computes_as_int(dtype)) return f(std::int64_t{});
  if (dtype == DType::UInt64) return f(std::uint64_t{});
  return std::nullopt;
}

/// The same for floats only.
template <typename F>
Result by_float(DType dtype, F&& f) {
  if (computes_as_float(dtype)) return f(float{});
  if (dtype == DType::Float64) return f(double{});
  return std::nullopt;
}

}  // namespace onnx2nn::eval
