#include "ops/onnx/rotary.h"

namespace onnx2nn::ops {

bool knows_rotary(const Dim& size, const Dim& pairs) {
  return size.is_const() && pairs.is_const() && pairs.value() > 0 &&
         pairs.value() <= size.value() / 2;
}

Ex shared_angles(LowerContext& c, const Ex& table, const Ex& positions, const char* hint) {
  const Ex of = positions.is_none() ? table : aten("embedding", {table, positions});
  return c.shared(aten("unsqueeze", {of, 1}), hint);
}

Ex rotated(const Ex& x, const Ex& cos, const Ex& sin, std::int64_t size, std::int64_t pairs,
           bool interleaved) {
  const char* turn = interleaved ? "rotate_pairs" : "rotate_halves";
  if (2 * pairs == size) return helper(turn, {x, cos, sin});
  const Ex width(2 * pairs);
  const Ex first = aten("slice.Tensor", {x, 3, kNone, width});
  const Ex rest = aten("slice.Tensor", {x, 3, width, kNone});
  return aten("cat", {list({helper(turn, {first, cos, sin}), rest}), -1});
}

bool lower_plain_rotary(LowerContext& c, std::size_t positions, std::size_t cos, std::size_t sin,
                        const Dim& size) {
  const Shape& table = c.shape(cos);
  const bool by_position = c.has_input(positions);
  if (!table.has_rank() || table.rank() != (by_position ? 2U : 3U) || !knows_rotary(size, table.dims().back()) ||
      (by_position && c.rank(positions) != 2U) || (c.rank(0) != 3U && c.rank(0) != 4U))
    return false;
  const Ex at = c.in(positions);
  const Ex turns[] = {shared_angles(c, c.in(cos), at, "cos"), shared_angles(c, c.in(sin), at, "sin")};
  const bool has_heads = c.rank(0) == 4U;
  Ex x = c.in(0);
  if (!has_heads) {
    const Ex parts = aten("unflatten.int", {x, Ex(-1), list({Ex(-1), Ex(size.value())})});
    x = c.let(aten("transpose.int", {parts, 1, 2}), "x");
  }
  const Ex y = rotated(x, turns[0], turns[1], size.value(), table.dims().back().value(),
                       c.attr_int("interleaved", 0) != 0);
  c.out(0, has_heads ? y
                     : aten("flatten.using_ints", {aten("transpose.int", {c.let(y, "y"), 1, 2}), 2}));
  return true;
}

}  // namespace onnx2nn::ops
