#include "ir/dtype.h"

#include <array>
#include <cstddef>

namespace onnx2nn::ir {
namespace {
constexpr std::array<DTypeInfo, kDTypeCount> kInfo = {{
    {"undefined", "?", "float32", 0, '?'},
    {"float32", "f32", "float32", 32, 'f'},
    {"uint8", "u8", "uint8", 8, 'u'},
    {"int8", "i8", "int8", 8, 'i'},
    {"uint16", "u16", "uint16", 16, 'u'},
    {"int16", "i16", "int16", 16, 'i'},
    {"int32", "i32", "int32", 32, 'i'},
    {"int64", "i64", "int64", 64, 'i'},
    {"string", "str", "object", 0, 's'},
    {"bool", "bool", "bool", 8, 'b'},
    {"float16", "f16", "float16", 16, 'f'},
    {"float64", "f64", "float64", 64, 'f'},
    {"uint32", "u32", "uint32", 32, 'u'},
    {"uint64", "u64", "uint64", 64, 'u'},
    {"complex64", "c64", "complex64", 64, 'c'},
    {"complex128", "c128", "complex128", 128, 'c'},
    {"bfloat16", "bf16", "bfloat16", 16, 'f'},
    {"float8_e4m3fn", "f8e4m3fn", "float8_e4m3fn", 8, 'f'},
    {"float8_e4m3fnuz", "f8e4m3fnuz", "float8_e4m3fnuz", 8, 'f'},
    {"float8_e5m2", "f8e5m2", "float8_e5m2", 8, 'f'},
    {"float8_e5m2fnuz", "f8e5m2fnuz", "float8_e5m2fnuz", 8, 'f'},
    {"uint4", "u4", "uint8", 4, 'u'},
    {"int4", "i4", "int8", 4, 'i'},
    {"float4_e2m1fn", "f4e2m1", "float32", 4, 'f'},
    {"float8_e8m0fnu", "f8e8m0", "float8_e8m0fnu", 8, 'f'},
    {"uint2", "u2", "uint8", 2, 'u'},
    {"int2", "i2", "int8", 2, 'i'},
    {"float6_e2m3fn", "f6e2m3", "float32", 6, 'f'},
    {"float6_e3m2fn", "f6e3m2", "float32", 6, 'f'},
}};
}  // namespace

const DTypeInfo& info(DType dtype) {
  const auto i = static_cast<std::size_t>(dtype);
  return i < kInfo.size() ? kInfo[i] : kInfo[0];
}

DType carrier(DType t) {
  switch (t) {
    case DType::UInt4:
    case DType::UInt2:
      return DType::UInt8;
    case DType::Int4:
    case DType::Int2:
      return DType::Int8;
    case DType::Float4E2M1:
    case DType::Float6E2M3:
    case DType::Float6E3M2:
      return DType::Float32;
    default:
      return t;
  }
}

int narrow_mantissa(DType t) {
  if (t == DType::Float6E2M3) return 3;
  return t == DType::Float6E3M2 ? 2 : 1;
}

bool holds(DType t, std::int64_t v) {
  if (!is_integer(t)) return true;
  const int bits = info(t).bits;
  if (is_unsigned(t)) return v >= 0 && (bits == 64 || v < (std::int64_t{1} << bits));
  return bits == 64 ||
         (v >= -(std::int64_t{1} << (bits - 1)) && v < (std::int64_t{1} << (bits - 1)));
}

}  // namespace onnx2nn::ir
