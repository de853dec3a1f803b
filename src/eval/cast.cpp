// Casts. Floats below float16 are read, not written.
#include <cmath>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

bool is_readable(DType d) {
  const char kind = ir::info(d).kind;
  return kind == 'f' || kind == 'i' || kind == 'u' || kind == 'b';
}
bool is_writable(DType d) {
  return is_real(d) || ir::is_integer(d) || d == DType::Bool;
}

Result cast_to(const Call& c, DType to) {
  const Tensor& t = *c.in(0);
  const DType from = t.dtype();
  if (from == to) return one(c.ptr(0));
  if (!is_readable(from) || !is_writable(to) || !c.room(to, t.size())) return std::nullopt;
  if (from == DType::UInt64) return result(c, to, t.dims(), load<std::uint64_t>(t));
  if (ir::info(from).kind != 'f') return result(c, to, t.dims(), load<std::int64_t>(t));
  if (!ir::is_integer(to)) return result(c, to, t.dims(), load<double>(t));
  // What lies outside of the integers is not defined, and differs between machines; only what lies below those
  // of 32 and of 64 bits is the smallest one on all, as in the logarithm of a distance of 0.
  const double limit = std::ldexp(1.0, ir::info(to).bits - (ir::is_unsigned(to) ? 0 : 1));
  const bool ends_below = to == DType::Int32 || to == DType::Int64;
  auto v = load<double>(t);
  for (double& x : v) {
    if (ends_below && x < -limit) x = -limit;
    if (!(std::trunc(x) < limit && std::trunc(x) >= (ir::is_unsigned(to) ? 0.0 : -limit)))
      return std::nullopt;
  }
  if (to == DType::UInt64) return result(c, to, t.dims(), v);
  std::vector<std::int64_t> out;
  out.reserve(v.size());
  // Four bits are rounded to, where others are cut off.
  for (const double x : v)
    out.push_back(
        static_cast<std::int64_t>(ir::is_sub_byte(to) ? std::nearbyint(x) : std::trunc(x)));
  return result(c, to, t.dims(), out);
}

}  // namespace

Result cast(const Call& c) {
  if (c.node().op_type == "CastLike")
    return c.in(1) != nullptr ? cast_to(c, c.in(1)->dtype()) : std::nullopt;
  const std::int64_t to = c.i("to", 0);
  if (to <= 0 || to >= ir::kDTypeCount) return std::nullopt;
  return cast_to(c, static_cast<DType>(to));
}

}  // namespace onnx2nn::eval
