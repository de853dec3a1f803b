// A constant tensor: element type, dimensions, bytes and who keeps the bytes alive.
// Bytes are as in ONNX's raw_data: little-endian, row-major, sub-byte types packed low nibble
// first, not aligned. Strings are held apart.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ir/dtype.h"
#include "support/input_file.h"

namespace onnx2nn::ir {

class Tensor;
using TensorPtr = std::shared_ptr<const Tensor>;

class Tensor {
 public:
  /// `source` holds exactly the bytes that `dtype` and `dims` need (throws Error "bad-model"
  /// otherwise).
  Tensor(DType dtype, std::vector<std::int64_t> dims, ByteSource source);
  Tensor(std::vector<std::int64_t> dims, std::vector<std::string> strings);

  /// A tensor that owns a copy of `bytes`.
  static TensorPtr owned(DType dtype, std::vector<std::int64_t> dims, std::vector<std::byte> bytes);
  template <typename T>
  static TensorPtr from(DType dtype, std::vector<std::int64_t> dims, const std::vector<T>& values) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return owned(dtype, std::move(dims), std::move(bytes));
  }
  static TensorPtr ints(const std::vector<std::int64_t>& values) {
    return from<std::int64_t>(DType::Int64, {static_cast<std::int64_t>(values.size())}, values);
  }
  static TensorPtr scalar(std::int64_t value) {
    return from<std::int64_t>(DType::Int64, {}, {value});
  }

  DType dtype() const { return dtype_; }
  const std::vector<std::int64_t>& dims() const { return dims_; }
  std::size_t rank() const { return dims_.size(); }
  std::int64_t size() const { return size_; }  // number of elements
  std::size_t byte_size() const { return source_.size(); }
  /// Reads them where they lie on disk; whoever wants their number only asks for `byte_size`.
  std::span<const std::byte> bytes() const { return source_.bytes(); }
  const ByteSource& source() const { return source_; }
  const std::vector<std::string>& strings() const { return strings_; }
  /// The same bytes under other dimensions (of the same element count).
  TensorPtr reshaped(std::vector<std::int64_t> dims) const;
  /// The dimensions that it had before it was reshaped.
  const std::vector<std::int64_t>& first_dims() const { return reshaped_ ? first_dims_ : dims_; }

  /// Element `i` in row-major order, read as T, whose size must be the element's. An Error where
  /// there is none: graphs say "a scalar" and give an empty tensor.
  template <typename T>
  T at(std::int64_t i) const {
    if (i < 0 || static_cast<std::uint64_t>(i) >= source_.size() / sizeof(T)) no_element(i);
    T v;
    std::memcpy(&v, source_.bytes(static_cast<std::size_t>(i) * sizeof(T), sizeof(T)).data(),
                sizeof(T));
    return v;
  }
  /// Element `i` as text, of strings.
  const std::string& string_at(std::int64_t i) const;
  /// Element `i` as an integer: of integer types and bool; sub-byte types unpacked.
  std::int64_t int_at(std::int64_t i) const;
  /// Element `i` as a double: of any real type, float16 to float4 decoded.
  double double_at(std::int64_t i) const;
  /// All elements of an integer or bool tensor.
  std::vector<std::int64_t> to_ints() const;
  std::vector<double> to_doubles() const;
  /// Every element is equal bit by bit, and there is one at least.
  bool is_splat() const;
  /// Same dtype, dimensions and bytes.
  bool same(const Tensor& other) const;
  std::string str() const;

 private:
  bool find_splat() const;
  [[noreturn]] void no_element(std::int64_t i) const;

  DType dtype_;
  std::vector<std::int64_t> dims_;
  std::vector<std::int64_t> first_dims_;  // where reshaped_
  bool reshaped_ = false;
  std::int64_t size_;
  ByteSource source_;
  std::vector<std::string> strings_;
  mutable std::optional<bool> is_splat_;  // once it was asked
};

/// Bytes that `count` elements of `dtype` take when packed.
std::uint64_t packed_size(DType dtype, std::int64_t count);
float half_to_float(std::uint16_t h);
std::uint16_t float_to_half(float f);
float bfloat16_to_float(std::uint16_t b);
std::uint16_t float_to_bfloat16(float f);
/// Decodes one of the four float8 types, float8e8m0, float4 or a float6.
float small_float_to_float(DType dtype, std::uint8_t bits);

}  // namespace onnx2nn::ir
