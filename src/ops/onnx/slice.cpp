// Operators that take tensors apart and repeat them: Slice, Split, Expand, Tile, ReverseSequence.
// https://onnx.ai/onnx/operators/onnx__Slice.html and its neighbours.
#include <algorithm>
#include <cmath>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

// Longer vectors of integers are data, not shapes.
constexpr std::int64_t kMaxContents = 1024;
// Exporters say "to the end" with the greatest integer of some width.
constexpr std::int64_t kFar = INT32_MAX;

// ---------------------------------------------------------------- Slice
// Bounds are attributes before opset 10, without steps; inputs from then on, as in the experimental
// DynamicSlice of opset 1.

struct SliceAxis {
  std::int64_t axis = 0;
  Dim start;
  Dim end;
  std::int64_t step = 1;
};

/// Bounds of a Slice as an attribute or an input says them, elements possibly unknown.
std::optional<Dims> slice_bounds(const NodeContext& c, std::string_view attribute,
                                 std::size_t input) {
  if (const auto a = c.attr_ints(attribute)) return Dims(a->begin(), a->end());
  if (const auto v = c.contents(input)) return v;
  const Shape& s = c.shape(input);
  if (c.has_input(input) && s.has_rank() && s.rank() == 1 && s[0].is_const() && s[0].value() >= 0 &&
      s[0].value() < 64)
    return Dims(static_cast<std::size_t>(s[0].value()));
  return std::nullopt;
}

/// What is sliced, where the axes and steps are known. Axes are normalised where the rank is known.
std::optional<std::vector<SliceAxis>> slice_axes(const NodeContext& c) {
  const auto starts = slice_bounds(c, "starts", 1);
  const auto ends = slice_bounds(c, "ends", 2);
  auto axes = c.ints("axes", 3);
  auto steps = c.const_ints(4);
  if (!starts || !ends) return std::nullopt;
  if (starts->size() != ends->size()) c.fail("starts and ends have different lengths");
  const std::size_t n = starts->size();
  if (!axes) {
    if (c.has_ints("axes", 3)) return std::nullopt;
    axes = Ints(n);
    for (std::size_t i = 0; i < n; ++i) (*axes)[i] = static_cast<std::int64_t>(i);
  }
  if (!steps) {
    if (c.has_input(4)) return std::nullopt;
    steps = Ints(n, 1);
  }
  if (axes->size() != n || steps->size() != n)
    c.fail("starts, axes and steps have different lengths");
  if (const auto rank = c.rank(0)) axes = c.axes(*axes, *rank);
  std::vector<SliceAxis> out;
  for (std::size_t i = 0; i < n; ++i) {
    if ((*steps)[i] == 0) c.fail("a step is 0");
    out.push_back({(*axes)[i], (*starts)[i], (*ends)[i], (*steps)[i]});
  }
  return out;
}

/// First position and number of positions of a slice over a fixed length, as ONNX clamps its
/// bounds.
std::pair<std::int64_t, std::int64_t> slice_range(std::int64_t size, std::int64_t start,
                                                  std::int64_t end, std::int64_t step) {
  const auto wrap = [&](std::int64_t v) { return v < 0 ? (v < -size ? -1 : v + size) : v; };
  if (step > 0) {
    const std::int64_t first = std::clamp<std::int64_t>(start < -size ? 0 : wrap(start), 0, size);
    const std::int64_t last = std::clamp<std::int64_t>(end < -size ? 0 : wrap(end), 0, size);
    return {first, last > first ? (last - first - 1) / step + 1 : 0};
  }
  const std::int64_t first = start < -size ? 0 : std::min(wrap(start), size - 1);
  const std::int64_t last = end < -size ? -1 : std::min(wrap(end), size - 1);
  if (size == 0 || last >= first) return {0, 0};
  return {first, step == INT64_MIN ? 1 : (first - last - 1) / -step + 1};
}

/// Whether the slice takes all of its axis, in order (step 1) or turned round (step -1).
bool takes_all(const SliceAxis& s) {
  if (!s.start.is_const() || !s.end.is_const()) return false;
  if (s.step > 0) return s.start.value() == 0 && s.end.value() >= kFar;
  return (s.start.value() == -1 || s.start.value() >= kFar) && s.end.value() <= -kFar;
}

Dim sliced_size(const Dim& size, const SliceAxis& s) {
  if (takes_all(s) && size.known())
    return s.step == INT64_MIN ? Dim() : Dim::ceil_div(size, Dim(std::abs(s.step)));
  if (size.is_const() && s.start.is_const() && s.end.is_const())
    return slice_range(size.value(), s.start.value(), s.end.value(), s.step).second;
  if (s.step == 1 && s.start.is_const() && s.end.is_const()) {
    const std::int64_t start = s.start.value();
    const std::int64_t end = s.end.value();
    // The last one is there unless the axis is empty; no model slices that.
    if (start == -1 && end >= kFar && size.is_const()) return size.value() > 0 ? 1 : 0;
    if (end <= start && (start >= 0) == (end >= 0)) return 0;
  }
  if (s.step == 1 && s.start.is_const() && s.start.value() == 0 && s.end == size) return size;
  return {};
}

void infer_slice(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  const auto slices = slice_axes(c);
  if (!slices) return c.set(0, c.dtype(0), Shape::unknown_dims(s.rank()));
  Dims out = s.dims();
  for (const SliceAxis& a : *slices)
    out[static_cast<std::size_t>(a.axis)] = sliced_size(out[static_cast<std::size_t>(a.axis)], a);
  c.set(0, c.dtype(0), Shape(std::move(out)));
  const auto v = c.contents(0);
  if (!v || s.rank() != 1 || slices->size() != 1) return;
  const SliceAxis& a = (*slices)[0];
  if (!a.start.is_const() || !a.end.is_const()) return;
  const auto [first, count] =
      slice_range(static_cast<std::int64_t>(v->size()), a.start.value(), a.end.value(), a.step);
  Dims contents;
  for (std::int64_t i = 0; i < count; ++i)
    contents.push_back((*v)[static_cast<std::size_t>(first + i * a.step)]);
  c.set_contents(0, std::move(contents));
}

/// A slice with a negative step: torch has none, so the axis is turned round first.
std::optional<Ex> reversed_slice(const Ex& x, const SliceAxis& s, const Dim& size) {
  if (s.step == INT64_MIN) return std::nullopt;
  if (takes_all(s))
    return aten("slice.Tensor", {aten("flip", {x, list({s.axis})}), s.axis, kNone, kNone, -s.step});
  if (!size.is_const() || !s.start.is_const() || !s.end.is_const()) return std::nullopt;
  const auto [first, count] = slice_range(size.value(), s.start.value(), s.end.value(), s.step);
  const std::int64_t from = size.value() - 1 - first;
  const std::int64_t to = count == 0 ? from : from + (count - 1) * -s.step + 1;
  return aten("slice.Tensor", {aten("flip", {x, list({s.axis})}), s.axis, from,
                               to == size.value() ? kNone : Ex(to), -s.step});
}

std::optional<Ex> lower_slices(LowerContext& c) {
  const auto slices = slice_axes(c);
  if (!slices) return std::nullopt;
  const auto elements = [&](std::string_view attribute,
                            std::size_t i) -> std::optional<std::vector<Ex>> {
    if (const auto a = c.attr_ints(attribute)) return std::vector<Ex>(a->begin(), a->end());
    return c.int_elements(i);
  };
  const auto starts = elements("starts", 1);
  const auto ends = elements("ends", 2);
  if (!starts || !ends || starts->size() != slices->size() || ends->size() != slices->size())
    return std::nullopt;
  Ex x = c.in(0);
  for (std::size_t i = 0; i < slices->size(); ++i) {
    const SliceAxis& s = (*slices)[i];
    const bool has_rank = c.rank(0).has_value();
    if (!has_rank && (s.axis < -1 || s.axis > 7)) return std::nullopt;
    const Dim size = has_rank ? c.shape(0)[static_cast<std::size_t>(s.axis)] : Dim();
    if (s.step < 0) {
      // torch turns round no wide unsigned integers.
      if (is_wide_unsigned(c.dtype(0)) || s.axis < 0) return std::nullopt;
      const auto reversed = reversed_slice(x, s, size);
      if (!reversed) return std::nullopt;
      x = *reversed;
      continue;
    }
    Ex start = (*starts)[i];
    Ex end = (*ends)[i];
    if (s.start.is_const() && s.start.value() <= -kFar) start = Ex(0);
    const bool whole = s.end.is_const() && (s.end.value() >= kFar ||
                                            (size.is_const() && s.end.value() >= size.value()));
    if (whole || (s.end.known() && s.end == size)) end = kNone;
    if (start.is_int() && start->integer == 0 && end.is_none() && s.step == 1) continue;
    x = aten("slice.Tensor", {x, s.axis, start, end, s.step});
  }
  return x;
}

void lower_slice(LowerContext& c) {
  c.carry_strings({0});
  if (const auto x = lower_slices(c)) return c.out(0, *x);
  Args args{c.in(0)};
  const auto starts = c.attr_ints("starts");
  const auto ends = c.attr_ints("ends");
  if (starts && ends) {
    args.emplace_back(*starts);
    args.emplace_back(*ends);
    const auto axes = c.attr_ints("axes");
    if (axes) args.emplace_back(*axes);
  } else {
    args.push_back(c.int_list(1));
    args.push_back(c.int_list(2));
    if (c.has_input(3) || c.has_input(4)) args.push_back(c.has_input(3) ? c.int_list(3) : kNone);
    if (c.has_input(4)) args.push_back(c.int_list(4));
  }
  c.out(0, helper("slice_tensor", args));
}

// ---------------------------------------------------------------- Split
// The sizes are an attribute before opset 13, then an input; without them the parts are equal. From
// opset 18 on `num_outputs` parts may end with a smaller one.

constexpr std::int64_t kSmallerLastPart = 18;

/// Sizes of the parts along the axis, as far as they are known.
std::optional<Dims> split_sizes(const NodeContext& c, const Dim& size) {
  const std::size_t n = c.output_count();
  if (const std::int64_t parts = c.attr_int("num_outputs", static_cast<std::int64_t>(n));
      parts != static_cast<std::int64_t>(n))
    c.fail("num_outputs is " + std::to_string(parts) + ", and there are " + std::to_string(n) +
           " outputs");
  if (n == 0) return std::nullopt;
  std::optional<Dims> sizes;
  if (const auto a = c.attr_ints("split")) {
    sizes = Dims(a->begin(), a->end());
  } else if (c.has_input(1)) {
    sizes = c.contents(1);
    if (!sizes) return std::nullopt;
  }
  if (sizes) {
    if (sizes->size() != n)
      c.fail("there are " + std::to_string(sizes->size()) + " sizes and " + std::to_string(n) +
             " outputs");
    for (const Dim& d : *sizes)
      if (d.is_const() && d.value() < 0) c.fail("a part has the size " + d.str());
    return sizes;
  }
  const auto count = static_cast<std::int64_t>(n);
  if (c.opset() < kSmallerLastPart) {
    if (size.is_const() && size.value() % count != 0)
      c.fail("the axis does not divide into " + std::to_string(n) + " equal parts");
    return Dims(n, Dim::floor_div(size, Dim(count)));
  }
  if (!size.is_const()) return std::nullopt;
  const std::int64_t part = size.value() / count + (size.value() % count != 0 ? 1 : 0);
  Dims out;
  for (std::int64_t rest = size.value(); out.size() < n; rest -= out.back().value())
    out.emplace_back(std::min(rest, part));
  return out;
}

void infer_split(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) {
    for (std::size_t i = 0; i < c.output_count(); ++i) c.set(i, c.dtype(0));
    return;
  }
  const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis", 0), s.rank()));
  const auto sizes = split_sizes(c, s[axis]);
  const auto contents = c.contents(0);
  std::size_t at = 0;
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    Dims dims = s.dims();
    dims[axis] = sizes ? (*sizes)[i] : Dim();
    const Dim size = dims[axis];
    c.set(i, c.dtype(0), Shape(std::move(dims)));
    if (!contents || s.rank() != 1 || !size.is_const() || size.value() < 0) continue;
    const auto count = static_cast<std::size_t>(size.value());
    if (at + count > contents->size()) c.fail("the parts are larger than the axis");
    c.set_contents(i, Dims(contents->begin() + static_cast<std::ptrdiff_t>(at),
                           contents->begin() + static_cast<std::ptrdiff_t>(at + count)));
    at += count;
  }
}

void lower_split(LowerContext& c) {
  c.carry_strings({0});
  c.ignore_attr("num_outputs");
  const std::size_t n = c.output_count();
  const std::int64_t given = c.attr_int("axis", 0);
  const std::int64_t axis = c.rank(0) ? c.axis(given, *c.rank(0)) : given;
  const Dim size = c.rank(0) ? c.shape(0)[static_cast<std::size_t>(axis)] : Dim();
  const auto sizes =
      c.attr_ints("split") || c.has_input(1) || size.known() || c.has_attr("num_outputs")
          ? split_sizes(c, size)
          : std::nullopt;
  const bool fixed =
      sizes && std::all_of(sizes->begin(), sizes->end(), [](const Dim& d) { return d.is_const(); });
  if (n == 1 && !c.has_input(1) && !c.attr_ints("split")) return c.out(0, c.in(0));
  Ex parts;
  if (fixed) {
    Ints all;
    for (const Dim& d : *sizes) all.push_back(d.value());
    const bool equal =
        std::all_of(all.begin(), all.end(), [&](std::int64_t v) { return v == all[0]; });
    if (equal && all[0] > 0 && n == 2 && size.is_const() && size.value() % 2 == 0 &&
        size.value() / 2 == all[0]) {
      parts = aten("chunk", {c.in(0), n, axis});
    } else if (equal && all[0] > 0) {
      parts = aten("split.Tensor", {c.in(0), all[0], axis});
    } else {
      parts = aten("split_with_sizes", {c.in(0), Ex(all), axis});
    }
  } else if (c.has_input(1)) {
    parts = aten("split_with_sizes", {c.in(0), c.int_list(1), axis});
  } else if (c.opset() >= kSmallerLastPart) {
    parts = helper("split_evenly", {c.in(0), n, axis});
  } else {
    parts = aten("chunk", {c.in(0), n, axis});
  }
  if (n == 1) return c.out(0, op("[]", {parts, 0}));
  c.outs(parts);
}

// ---------------------------------------------------------------- Expand

void infer_expand(InferContext& c) {
  const Shape& s = c.shape(0);
  const auto target = c.contents(1);
  if (!target) {
    const Shape& t = c.shape(1);
    const bool known = s.has_rank() && t.has_rank() && t.rank() == 1 && t[0].is_const() &&
                       t[0].value() >= 0 && t[0].value() < 64;
    return c.set(
        0, c.dtype(0),
        known ? Shape::unknown_dims(std::max(s.rank(), static_cast<std::size_t>(t[0].value())))
              : Shape());
  }
  Dims asked = *target;
  // torch's exporter leaves -1 where a size stays as it is.
  for (Dim& d : asked)
    if (d.is_const() && d.value() == -1) d = Dim(1);
  const Shape out = broadcast(s, Shape(asked));
  c.set(0, c.dtype(0), out);
  const auto v = c.contents(0);
  if (!v || v->size() != 1 || !out.has_rank() || out.rank() > 1) return;
  if (out.rank() == 0) return c.set_contents(0, *v);
  if (out[0].is_const() && out[0].value() >= 0 && out[0].value() <= kMaxContents)
    c.set_contents(0, Dims(static_cast<std::size_t>(out[0].value()), (*v)[0]));
}

/// The sizes for Tensor.expand, which lets -1, but not 1, stand for the tensor's own size.
std::optional<std::vector<Ex>> expand_sizes(LowerContext& c) {
  const Shape& s = c.shape(0);
  const auto target = c.contents(1);
  const auto elements = c.int_elements(1);
  if (!s.has_rank() || !target || !elements || elements->size() != target->size())
    return std::nullopt;
  std::vector<Ex> out;
  const std::size_t rank = std::max(s.rank(), target->size());
  for (std::size_t i = 0; i < rank; ++i) {
    if (i + s.rank() < rank) {
      out.push_back((*elements)[i]);
      if (out.back().is_int() && out.back()->integer == -1) out.back() = Ex(1);
      continue;
    }
    const Dim& own = s[i + s.rank() - rank];
    if (i + target->size() < rank) {
      out.emplace_back(-1);
      continue;
    }
    const std::size_t at = i + target->size() - rank;
    const Dim& asked = (*target)[at];
    const bool one = own.is_const() && own.value() == 1;
    if (asked == own || (asked.is_const() && (asked.value() == 1 || asked.value() == -1)) ||
        (own.is_const() && !one)) {
      out.emplace_back(-1);
    } else if (one || asked.is_const()) {
      out.push_back((*elements)[at]);
    } else {
      return std::nullopt;
    }
  }
  return out;
}

void lower_expand(LowerContext& c) {
  c.carry_strings({0});
  const auto sizes = expand_sizes(c);
  if (!sizes) return c.out(0, helper("expand_both", {c.in(0), c.int_list(1)}));
  const bool same = std::all_of(sizes->begin(), sizes->end(),
                                [](const Ex& e) { return e.is_int() && e->integer == -1; });
  c.out(0, same ? c.in(0) : aten("expand", {c.in(0), list(*sizes)}));
}

// ---------------------------------------------------------------- Tile
// Opset 1 repeats one axis: `tiles` and `axis` are scalars. From 6 on each axis has its number, and
// so it has in files that say an older opset and give no axis.

bool tiles_one_axis(const NodeContext& c) {
  return c.opset() < 6 && c.has_input(2);
}

/// A constant number, which opset 1 gives the type of the tensor: 2.0 means 2.
std::optional<std::int64_t> whole_number(const NodeContext& c, std::size_t i) {
  const ir::Tensor* t = c.constant(i);
  if (t == nullptr || t->size() != 1) return std::nullopt;
  const double v = t->double_at(0);
  constexpr double kLimit = 1e9;
  if (!(std::abs(v) < kLimit)) return std::nullopt;
  return static_cast<std::int64_t>(v);
}

std::optional<Dims> tile_repeats(const NodeContext& c) {
  if (!tiles_one_axis(c)) return c.contents(1);
  const auto tiles = whole_number(c, 1);
  const auto axis = whole_number(c, 2);
  if (!c.rank(0) || !tiles || !axis) return std::nullopt;
  Dims out(*c.rank(0), Dim(1));
  out[static_cast<std::size_t>(c.axis(*axis, out.size()))] = Dim(*tiles);
  return out;
}

void infer_tile(InferContext& c) {
  const Shape& s = c.shape(0);
  const auto repeats = tile_repeats(c);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  if (!repeats) return c.set(0, c.dtype(0), Shape::unknown_dims(s.rank()));
  if (repeats->size() != s.rank())
    c.fail("repeats has " + std::to_string(repeats->size()) + " elements for rank " +
           std::to_string(s.rank()));
  Dims out;
  for (std::size_t i = 0; i < s.rank(); ++i) out.push_back(s[i] * (*repeats)[i]);
  c.set(0, c.dtype(0), Shape(std::move(out)));
  const auto v = c.contents(0);
  if (!v || s.rank() != 1 || !(*repeats)[0].is_const()) return;
  const std::int64_t times = (*repeats)[0].value();
  const auto size = static_cast<std::int64_t>(v->size());
  if (size == 0) return c.set_contents(0, {});
  if (times < 0 || times > kMaxContents / size) return;
  Dims contents;
  for (std::int64_t i = 0; i < times; ++i) contents.insert(contents.end(), v->begin(), v->end());
  c.set_contents(0, std::move(contents));
}

void lower_tile(LowerContext& c) {
  c.carry_strings({0});
  if (tiles_one_axis(c)) {
    const auto number = [&](std::size_t i) {
      const auto known = whole_number(c, i);
      return known ? Ex(*known) : c.int_scalar(i);
    };
    const auto axis = whole_number(c, 2);
    if (!axis || !c.rank(0))
      return c.out(0, helper("tile_axis", {c.in(0), number(1), number(2)}));
    Args repeats(*c.rank(0), Ex(1));
    repeats[static_cast<std::size_t>(c.axis(*axis, repeats.size()))] = number(1);
    return c.out(0, aten("repeat", {c.in(0), list(repeats)}));
  }
  if (c.rank(0) == 0U) return c.out(0, c.in(0));
  c.out(0, aten("repeat", {c.in(0), c.int_list(1)}));
}

// ---------------------------------------------------------------- ReverseSequence

void infer_same(InferContext& c) {
  c.set(0, c.type(0));
}

void lower_reverse_sequence(LowerContext& c) {
  c.carry_strings({0});
  Kwargs kw;
  if (const std::int64_t batch = c.attr_int("batch_axis", 1); batch != 1)
    kw.emplace_back("batch_axis", Ex(batch));
  if (const std::int64_t time = c.attr_int("time_axis", 0); time != 0)
    kw.emplace_back("time_axis", Ex(time));
  c.out(0, helper("reverse_sequence", {c.in(0), c.in(1)}, kw));
}

constexpr OpDef kSliceOps[] = {
    {.type = "Slice", .changed_at = {1, 10}, .infer = infer_slice, .lower = lower_slice},
    {.type = "DynamicSlice", .changed_at = {1}, .infer = infer_slice, .lower = lower_slice},
    {.type = "Split", .changed_at = {1, 2, 13, 18}, .infer = infer_split, .lower = lower_split},
    {.type = "Expand", .changed_at = {8}, .infer = infer_expand, .lower = lower_expand},
    {.type = "Tile", .changed_at = {1, 6}, .infer = infer_tile, .lower = lower_tile},
    {.type = "ReverseSequence",
     .changed_at = {10},
     .infer = infer_same,
     .lower = lower_reverse_sequence},
};

}  // namespace

std::span<const OpDef> slice_ops() {
  return kSliceOps;
}

}  // namespace onnx2nn::ops
