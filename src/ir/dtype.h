// Element types, numbered as ONNX's TensorProto.DataType.
#pragma once

#include <cstdint>
#include <string_view>

namespace onnx2nn::ir {

enum class DType : std::uint8_t {
  Undefined = 0,
  Float32 = 1,
  UInt8 = 2,
  Int8 = 3,
  UInt16 = 4,
  Int16 = 5,
  Int32 = 6,
  Int64 = 7,
  String = 8,
  Bool = 9,
  Float16 = 10,
  Float64 = 11,
  UInt32 = 12,
  UInt64 = 13,
  Complex64 = 14,
  Complex128 = 15,
  BFloat16 = 16,
  Float8E4M3FN = 17,
  Float8E4M3FNUZ = 18,
  Float8E5M2 = 19,
  Float8E5M2FNUZ = 20,
  UInt4 = 21,
  Int4 = 22,
  Float4E2M1 = 23,
  Float8E8M0 = 24,
  UInt2 = 25,
  Int2 = 26,
  Float6E2M3 = 27,
  Float6E3M2 = 28,
};
inline constexpr int kDTypeCount = 29;

struct DTypeInfo {
  std::string_view name;        // ONNX's name in lower case, as numpy and ml_dtypes spell it
  std::string_view short_name;  // f32, i64, ...
  std::string_view torch_name;  // the torch dtype that carries it (int4 in int8, float4 in float32)
  int bits;                     // in an ONNX file; 0 for strings
  char kind;  // 'f' float, 'i' signed, 'u' unsigned, 'b' bool, 'c' complex, 's' string
};

/// The row of `dtype`; Undefined and values outside the table give a row named "undefined".
const DTypeInfo& info(DType dtype);

inline bool is_float(DType t) {
  return info(t).kind == 'f';
}
inline bool is_integer(DType t) {
  return info(t).kind == 'i' || info(t).kind == 'u';
}
inline bool is_unsigned(DType t) {
  return info(t).kind == 'u';
}
/// Whether the integer type `t` holds `v`; other types hold all.
bool holds(DType t, std::int64_t v);
inline bool is_sub_byte(DType t) {
  return info(t).bits > 0 && info(t).bits < 8;
}
/// float4 and the two float6.
inline bool is_narrow_float(DType t) {
  return is_float(t) && is_sub_byte(t);
}
/// How many bits of a narrow float are its mantissa.
int narrow_mantissa(DType t);
/// The dtype whose torch namesake carries `t`: Int4 -> Int8, Float4E2M1 -> Float32, others
/// themselves.
DType carrier(DType t);

}  // namespace onnx2nn::ir
