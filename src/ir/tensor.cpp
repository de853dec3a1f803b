#include "ir/tensor.h"

#include <bit>
#include <cmath>
#include <limits>

#include "ir/type.h"
#include "support/checked.h"
#include "support/error.h"

namespace onnx2nn::ir {
namespace {

std::vector<std::int64_t> checked_dims(std::vector<std::int64_t> dims) {
  if (dims.size() > kMaxRank)
    fail("too-large", "a tensor has {} dimensions; there can be {}", dims.size(), kMaxRank);
  return dims;
}

}  // namespace

std::uint64_t packed_size(DType dtype, std::int64_t count) {
  const auto bits = static_cast<std::uint64_t>(info(dtype).bits);
  const auto n = static_cast<std::uint64_t>(count);
  if (bits >= 8) {
    std::uint64_t out = 0;
    if (__builtin_mul_overflow(n, bits / 8, &out))
      throw Error("bad-model", "tensor size overflows 64 bits");
    return out;
  }
  return n / 8 * bits + (n % 8 * bits + 7) / 8;
}

Tensor::Tensor(DType dtype, std::vector<std::int64_t> dims, ByteSource source)
    : dtype_(dtype),
      dims_(checked_dims(std::move(dims))),
      size_(element_count(dims_)),
      source_(std::move(source)) {
  const std::uint64_t need = packed_size(dtype_, size_);
  if (source_.size() != need)
    throw Error("bad-model", "tensor of type " + std::string(info(dtype_).name) + " with " +
                                 std::to_string(size_) + " elements needs " + std::to_string(need) +
                                 " bytes, but has " + std::to_string(source_.size()));
}

Tensor::Tensor(std::vector<std::int64_t> dims, std::vector<std::string> strings)
    : dtype_(DType::String),
      dims_(checked_dims(std::move(dims))),
      size_(element_count(dims_)),
      strings_(std::move(strings)) {
  if (strings_.size() != static_cast<std::size_t>(size_))
    throw Error("bad-model", "string tensor of " + std::to_string(size_) + " elements has " +
                                 std::to_string(strings_.size()) + " strings");
}

TensorPtr Tensor::owned(DType dtype, std::vector<std::int64_t> dims, std::vector<std::byte> bytes) {
  return std::make_shared<const Tensor>(dtype, std::move(dims),
                                        ByteSource::of_vector(std::move(bytes)));
}

TensorPtr Tensor::reshaped(std::vector<std::int64_t> dims) const {
  if (dtype_ == DType::String) return std::make_shared<const Tensor>(std::move(dims), strings_);
  auto out = std::make_shared<Tensor>(dtype_, std::move(dims), source_);
  out->reshaped_ = true;
  out->first_dims_ = first_dims();
  return out;
}

void Tensor::no_element(std::int64_t i) const {
  fail("bad-model", "element {} of a tensor of {} is asked for", i, size_);
}

const std::string& Tensor::string_at(std::int64_t i) const {
  if (i < 0 || static_cast<std::uint64_t>(i) >= strings_.size()) no_element(i);
  return strings_[static_cast<std::size_t>(i)];
}

std::int64_t Tensor::int_at(std::int64_t i) const {
  const auto byte = [&](std::int64_t k) { return at<std::uint8_t>(k); };
  switch (dtype_) {
    case DType::Int64:
      return at<std::int64_t>(i);
    case DType::UInt64:
      return static_cast<std::int64_t>(at<std::uint64_t>(i));
    case DType::Int32:
      return at<std::int32_t>(i);
    case DType::UInt32:
      return at<std::uint32_t>(i);
    case DType::Int16:
      return at<std::int16_t>(i);
    case DType::UInt16:
      return at<std::uint16_t>(i);
    case DType::Int8:
      return at<std::int8_t>(i);
    case DType::UInt8:
    case DType::Bool:
      return byte(i);
    case DType::UInt4:
      return (byte(i / 2) >> (i % 2 * 4)) & 0xF;
    case DType::Int4: {
      const int v = (byte(i / 2) >> (i % 2 * 4)) & 0xF;
      return v >= 8 ? v - 16 : v;
    }
    case DType::UInt2:
      return (byte(i / 4) >> (i % 4 * 2)) & 3;
    case DType::Int2: {
      const int v = (byte(i / 4) >> (i % 4 * 2)) & 3;
      return v >= 2 ? v - 4 : v;
    }
    default:
      throw Error("bad-model", "expected integers, found " + std::string(info(dtype_).name));
  }
}

double Tensor::double_at(std::int64_t i) const {
  switch (dtype_) {
    case DType::Float32:
      return static_cast<double>(at<float>(i));
    case DType::Float64:
      return at<double>(i);
    case DType::Float16:
      return static_cast<double>(half_to_float(at<std::uint16_t>(i)));
    case DType::BFloat16:
      return static_cast<double>(bfloat16_to_float(at<std::uint16_t>(i)));
    case DType::Float8E4M3FN:
    case DType::Float8E4M3FNUZ:
    case DType::Float8E5M2:
    case DType::Float8E5M2FNUZ:
    case DType::Float8E8M0:
      return static_cast<double>(small_float_to_float(dtype_, at<std::uint8_t>(i)));
    case DType::Float4E2M1: {
      const auto b = at<std::uint8_t>(i / 2);
      return static_cast<double>(
          small_float_to_float(dtype_, static_cast<std::uint8_t>((b >> (i % 2 * 4)) & 0xF)));
    }
    case DType::Float6E2M3:
    case DType::Float6E3M2: {
      // Four elements in three bytes, the lowest bits first.
      const std::int64_t byte = i / 4 * 3 + i % 4 * 6 / 8;
      const int shift = static_cast<int>(i % 4 * 6 % 8);
      int bits = at<std::uint8_t>(byte) >> shift;
      if (shift > 2) bits |= at<std::uint8_t>(byte + 1) << (8 - shift);
      return static_cast<double>(
          small_float_to_float(dtype_, static_cast<std::uint8_t>(bits & 0x3F)));
    }
    case DType::UInt64:
      return static_cast<double>(at<std::uint64_t>(i));
    default:
      return static_cast<double>(int_at(i));
  }
}

std::vector<std::int64_t> Tensor::to_ints() const {
  std::vector<std::int64_t> out;
  out.reserve(static_cast<std::size_t>(size_));
  for (std::int64_t i = 0; i < size_; ++i) out.push_back(int_at(i));
  return out;
}

std::vector<double> Tensor::to_doubles() const {
  std::vector<double> out;
  out.reserve(static_cast<std::size_t>(size_));
  for (std::int64_t i = 0; i < size_; ++i) out.push_back(double_at(i));
  return out;
}

bool Tensor::is_splat() const {
  // Rules ask it of a constant for each of its readers.
  if (!is_splat_) is_splat_ = find_splat();
  return *is_splat_;
}

bool Tensor::find_splat() const {
  if (size_ == 0) return false;
  if (dtype_ == DType::String) {
    for (const std::string& s : strings_)
      if (s != strings_[0]) return false;
    return true;
  }
  if (is_sub_byte(dtype_)) return size_ == 1;
  const std::size_t width = static_cast<std::size_t>(info(dtype_).bits) / 8;
  const std::byte* first = source_.bytes(0, width).data();
  for (std::size_t i = 1; i < static_cast<std::size_t>(size_); ++i)
    if (std::memcmp(first, source_.bytes(i * width, width).data(), width) != 0) return false;
  return true;
}

bool Tensor::same(const Tensor& other) const {
  if (dtype_ != other.dtype_ || dims_ != other.dims_ || strings_ != other.strings_) return false;
  const auto a = bytes();
  const auto b = other.bytes();
  return a.size() == b.size() &&
         (a.data() == b.data() || a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

std::string Tensor::str() const {
  std::string out(info(dtype_).short_name);
  out += Shape::of(dims_).str();
  if (size_ > 0 && size_ <= 8 && dtype_ != DType::String && info(dtype_).kind != 'c') {
    out += " {";
    for (std::int64_t i = 0; i < size_; ++i) {
      if (i > 0) out += ", ";
      std::string text =
          info(dtype_).kind == 'f' ? std::to_string(double_at(i)) : std::to_string(int_at(i));
      out += text;
    }
    out += "}";
  }
  return out;
}

// ---------------------------------------------------------------- small floats

float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000U) << 16U;
  const std::uint32_t exponent = (h >> 10U) & 0x1FU;
  const std::uint32_t mantissa = h & 0x3FFU;
  if (exponent == 0) {
    const float v = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -v : v;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13U));
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (mantissa << 13U));
}

std::uint16_t float_to_half(float f) {
  const auto x = std::bit_cast<std::uint32_t>(f);
  const auto sign = static_cast<std::uint16_t>((x >> 16U) & 0x8000U);
  const std::uint32_t a = x & 0x7FFFFFFFU;
  if (a > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U);
  if (a >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7C00U);
  if (a < 0x38800000U) {  // subnormal or zero: rint rounds to even
    const float scaled = std::ldexp(std::bit_cast<float>(a), 24);
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::nearbyint(scaled)));
  }
  const std::uint32_t rounded = a - 0x38000000U + 0xFFFU + ((a >> 13U) & 1U);
  return static_cast<std::uint16_t>(sign | (rounded >> 13U));
}

float bfloat16_to_float(std::uint16_t b) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(b) << 16U);
}

std::uint16_t float_to_bfloat16(float f) {
  auto x = std::bit_cast<std::uint32_t>(f);
  if ((x & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((x >> 16U) | 0x40U);
  x += 0x7FFFU + ((x >> 16U) & 1U);
  return static_cast<std::uint16_t>(x >> 16U);
}

float small_float_to_float(DType dtype, std::uint8_t b) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const auto decode = [&](int exponent_bits, int mantissa_bits, int bias) {
    const int sign = b >> (exponent_bits + mantissa_bits) & 1;
    const int exponent = (b >> mantissa_bits) & ((1 << exponent_bits) - 1);
    const int mantissa = b & ((1 << mantissa_bits) - 1);
    const int m = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
    const int e = (exponent == 0 ? 1 : exponent) - bias - mantissa_bits;
    const float v = std::ldexp(static_cast<float>(m), e);
    return sign != 0 ? -v : v;
  };
  switch (dtype) {
    case DType::Float8E4M3FN:
      return (b & 0x7F) == 0x7F ? nan : decode(4, 3, 7);
    case DType::Float8E4M3FNUZ:
      return b == 0x80 ? nan : decode(4, 3, 8);
    case DType::Float8E5M2:
      if ((b & 0x7C) == 0x7C) return (b & 3) != 0 ? nan : ((b & 0x80) != 0 ? -inf : inf);
      return decode(5, 2, 15);
    case DType::Float8E5M2FNUZ:
      return b == 0x80 ? nan : decode(5, 2, 16);
    case DType::Float8E8M0:
      return b == 0xFF ? nan : std::ldexp(1.0F, static_cast<int>(b) - 127);
    case DType::Float4E2M1:
      return decode(2, 1, 1);
    case DType::Float6E2M3:
      return decode(2, 3, 1);
    case DType::Float6E3M2:
      return decode(3, 2, 3);
    default:
      return nan;
  }
}

}  // namespace onnx2nn::ir
