// Operators about shapes: Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand,
// Tile, Concat, Split, Slice, Identity. Shape arithmetic is said as contents, so that it comes out
// as Python integers and not as tensors.
#include <algorithm>
#include <numeric>

#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- Shape, Size
// From opset 15 on `start` and `end` choose some of the dimensions.

std::pair<std::size_t, std::size_t> shape_range(const NodeContext& c, std::size_t rank) {
  const auto r = static_cast<std::int64_t>(rank);
  const auto clamp = [&](std::int64_t v) {
    return std::clamp<std::int64_t>(v < 0 ? v + r : v, 0, r);
  };
  const std::int64_t start = clamp(c.attr_int("start", 0));
  const std::int64_t end = clamp(c.attr_int("end", r));
  return {static_cast<std::size_t>(start), static_cast<std::size_t>(std::max(start, end))};
}

void infer_shape(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, DType::Int64, Shape::unknown_dims(1));
  const auto [start, end] = shape_range(c, s.rank());
  c.set(0, DType::Int64, Shape::of({static_cast<std::int64_t>(end - start)}));
  c.set_contents(0, Dims(s.dims().begin() + static_cast<std::ptrdiff_t>(start),
                         s.dims().begin() + static_cast<std::ptrdiff_t>(end)));
}

void lower_shape(LowerContext& c) {
  Ex shape = torch::shape_of(c.in(0));
  if (c.has_attr("start") || c.has_attr("end")) {
    const std::int64_t end = c.attr_int("end", INT64_MAX);
    shape =
        op("[]",
           {shape, op("slice", {Ex(c.attr_int("start", 0)), end == INT64_MAX ? kNone : Ex(end)})});
  }
  Kwargs kw;
  if (const Ex d = c.device(); !d.is_none()) kw.emplace_back("device", d);
  // That of a scalar is empty, from which torch would make floats.
  if (c.rank(0).value_or(0) == 0 || c.has_attr("start") || c.has_attr("end"))
    kw.insert(kw.begin(), {"dtype", Ex(DType::Int64)});
  c.out(0, aten("tensor", {shape}, kw));
}

void infer_size(InferContext& c) {
  c.set(0, DType::Int64, Shape::of({}));
  const Dim n = c.shape(0).element_count();
  if (n.known()) c.set_contents(0, {n});
}

void lower_size(LowerContext& c) {
  Kwargs kw;
  if (const Ex d = c.device(); !d.is_none()) kw.emplace_back("device", d);
  const bool strings = c.dtype(0) == DType::String;
  const Ex x = strings ? helper("string_places", {c.in(0)}) : c.in(0);
  c.out(0, aten("tensor", {op(".numel", {x})}, kw));
}

// ---------------------------------------------------------------- Reshape
// Opset 1 has the shape as an attribute; from 14 on `allowzero` makes a zero a zero.

/// The shape asked for; -1 where it is to be computed, and 0 that of the input unless `allowzero`.
std::optional<Dims> reshape_asked(const NodeContext& c) {
  if (const auto a = c.attr_ints("shape")) return Dims(a->begin(), a->end());
  return c.contents(1);
}

bool copies(const NodeContext& c, const Dim& d) {
  return d.is_const() && d.value() == 0 && c.attr_int("allowzero", 0) == 0;
}

/// The shape asked for, with zeros replaced; -1 where it is to be computed.
std::optional<Dims> reshape_target(const NodeContext& c) {
  std::optional<Dims> target = reshape_asked(c);
  if (!target) return std::nullopt;
  const Shape& s = c.shape(0);
  for (std::size_t i = 0; i < target->size(); ++i)
    if (Dim& d = (*target)[i]; copies(c, d)) d = s.has_rank() && i < s.rank() ? s[i] : Dim();
  return target;
}

void infer_reshape(InferContext& c) {
  auto target = reshape_target(c);
  if (!target) {
    const Shape& s = c.shape(1);
    const bool known =
        s.has_rank() && s.rank() == 1 && s[0].is_const() && s[0].value() >= 0 && s[0].value() < 64;
    return c.set(0, c.dtype(0),
                 known ? Shape::unknown_dims(static_cast<std::size_t>(s[0].value())) : Shape());
  }
  Dim rest(1);
  std::optional<std::size_t> free;
  for (std::size_t i = 0; i < target->size(); ++i) {
    Dim& d = (*target)[i];
    if (d.is_const() && d.value() == -1) {
      if (free) c.fail("the shape has more than one -1");
      free = i;
    } else {
      rest = rest * d;
    }
  }
  const Dim count = c.shape(0).element_count();
  // A branch that is never taken may hold any shape.
  if (c.node().graph()->parent() == nullptr && count.is_const() && count.value() > 0 &&
      rest.is_const() && rest.value() > 0 &&
      (free ? count.value() % rest.value() != 0 : count.value() != rest.value()))
    c.fail(c.shape(0).str() + " has " + count.str() + " elements, which do not make " +
           Shape(*target).str());
  if (free) {
    Dim& d = (*target)[*free];
    d = Dim();
    if (count.known() && rest.known() && !(rest.is_const() && rest.value() == 0)) {
      const Dim q = Dim::floor_div(count, rest);
      if (q * rest == count) d = q;
    }
  }
  c.set(0, c.dtype(0), Shape(*target));
  if (const auto v = c.contents(0); v && target->size() <= 1) c.set_contents(0, *v);
}

/// Whether `a` from `i` on is `b` from `j` on, provably.
bool same_tail(const Dims& a, std::size_t i, const Dims& b, std::size_t j) {
  return a.size() - i == b.size() - j &&
         std::equal(a.begin() + static_cast<std::ptrdiff_t>(i), a.end(),
                    b.begin() + static_cast<std::ptrdiff_t>(j));
}

/// Neighbouring axes as one, or one as several: said without the sizes of the others, which stay
/// free so. Nothing where more than that happens.
std::optional<Ex> as_flatten(LowerContext& c) {
  const Shape& from = c.shape(0);
  const Shape& to = c.node().output(0)->type.shape;
  if (!from.has_rank() || !to.has_rank() || from.rank() == to.rank() || from.rank() == 0 ||
      to.rank() == 0)
    return std::nullopt;
  const bool joins = from.rank() > to.rank();
  const Dims& many = joins ? from.dims() : to.dims();
  const Dims& few = joins ? to.dims() : from.dims();
  const std::size_t count = many.size() - few.size() + 1;
  std::size_t at = 0;
  while (at + 1 < few.size() && many[at] == few[at]) ++at;
  // A one before the axes may have been taken for one of them.
  for (;; --at) {
    const Dims parts(many.begin() + static_cast<std::ptrdiff_t>(at),
                     many.begin() + static_cast<std::ptrdiff_t>(at + count));
    if (same_tail(many, at + count, few, at + 1) && Shape(parts).element_count() == few[at]) {
      const auto axis = static_cast<std::int64_t>(at);
      if (joins) {
        Args args{c.in(0), axis};
        if (at + count < many.size()) args.emplace_back(axis + static_cast<std::int64_t>(count) - 1);
        return aten("flatten.using_ints", args);
      }
      Args sizes;
      std::size_t open = 0;
      for (const Dim& d : parts) {
        if (d.is_const() && d.value() <= 1) return std::nullopt;
        open += d.is_const() ? 0 : 1;
        sizes.push_back(d.is_const() ? Ex(d.value()) : Ex(-1));
      }
      if (open > 1) return std::nullopt;
      return aten("unflatten.int", {c.in(0), at + 1 == few.size() ? Ex(-1) : Ex(axis), list(sizes)});
    }
    if (at == 0) return std::nullopt;
  }
}

void lower_reshape(LowerContext& c) {
  c.carry_strings({0});
  c.ignore_attr("consumed_inputs");
  const bool allow_zero = c.attr_int("allowzero", 0) != 0;
  const auto target = reshape_target(c);
  if (!target) {
    if (const auto elements = c.int_elements(1); elements && allow_zero)
      return c.out(0, aten("reshape", {c.in(0), list(*elements)}));
    return c.out(0, helper("reshape_copy_zeros", {c.in(0), c.int_list(1)},
                           {{"allowzero", Ex(allow_zero ? 1 : 0)}}));
  }
  if (const auto flat = as_flatten(c)) return c.out(0, *flat);
  const Shape& in = c.shape(0);
  const Dims asked = *reshape_asked(c);
  std::vector<Ex> sizes;
  std::size_t unknown = 0;
  bool free = false;
  for (const Dim& d : *target) free = free || (d.is_const() && d.value() == -1);
  for (std::size_t i = 0; i < target->size(); ++i) {
    const Dim& d = (*target)[i];
    // A sum that is a size of the input is not spelt out again.
    if (d.terms().size() > 1 && in.has_rank() && i < in.rank() && in[i] == d) {
      sizes.push_back(torch::size(c.in(0), static_cast<std::int64_t>(i)));
    } else if (const auto e = c.integer(d)) {
      sizes.push_back(*e);
    } else if (copies(c, asked[i]) && in.has_rank() && i < in.rank()) {
      sizes.push_back(torch::size(c.in(0), static_cast<std::int64_t>(i)));
    } else {
      sizes.emplace_back(-1);
      ++unknown;
    }
  }
  if (unknown > (free ? 0U : 1U))
    return c.out(0, helper("reshape_copy_zeros", {c.in(0), c.int_list(1)},
                           {{"allowzero", Ex(allow_zero ? 1 : 0)}}));
  c.out(0, aten("reshape", {c.in(0), list(sizes)}));
}

// ---------------------------------------------------------------- Flatten

/// Where the axes of a tensor of this rank are cut in two; before the first and after the last one,
/// too.
std::int64_t flatten_axis(const NodeContext& c, std::size_t rank) {
  const std::int64_t given = c.attr_int("axis", 1);
  return c.axis(given, given < 0 ? rank : rank + 1);
}

void infer_flatten(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0), Shape::unknown_dims(2));
  const std::ptrdiff_t axis = flatten_axis(c, s.rank());
  const Dims& d = s.dims();
  c.set(0, c.dtype(0),
        Shape({Shape(Dims(d.begin(), d.begin() + axis)).element_count(),
               Shape(Dims(d.begin() + axis, d.end())).element_count()}));
}

void lower_flatten(LowerContext& c) {
  c.carry_strings({0});
  const std::int64_t given = c.attr_int("axis", 1);
  const auto rank = c.rank(0);
  if (rank && *rank > 0) {
    const std::int64_t axis = flatten_axis(c, *rank);
    if (axis == static_cast<std::int64_t>(*rank))
      return c.out(0, aten("reshape", {c.in(0), list({-1, 1})}));
    if (axis == 1 && *rank > 1)
      return c.out(0, *rank == 2 ? c.in(0) : aten("flatten.using_ints", {c.in(0), 1}));
    if (axis == 0) return c.out(0, aten("reshape", {c.in(0), list({1, -1})}));
    if (const auto sizes = c.sizes(c.node().output(0)->type.shape))
      return c.out(0, aten("reshape", {c.in(0), list(*sizes)}));
  }
  if (rank && *rank == 0) return c.out(0, aten("reshape", {c.in(0), list({1, 1})}));
  c.out(0, helper("flatten_to_matrix", {c.in(0)}, {{"axis", Ex(given)}}));
}

// ---------------------------------------------------------------- Squeeze, Unsqueeze
// Axes were an attribute before opset 13. To ONNX Runtime an empty list of them is none at all.

void infer_squeeze(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  Dims out;
  const auto axes = c.ints("axes", 1);
  if (!axes && c.has_ints("axes", 1)) return c.set(0, c.dtype(0));
  if (axes && !axes->empty()) {
    const std::vector<bool> dropped = c.axis_mask(*axes, s.rank());
    for (std::size_t i = 0; i < s.rank(); ++i)
      if (!dropped[i]) out.push_back(s[i]);
  } else {
    for (const Dim& d : s.dims()) {
      if (!d.is_const()) return c.set(0, c.dtype(0));
      if (d.value() != 1) out.push_back(d);
    }
  }
  const std::size_t rank = out.size();
  c.set(0, c.dtype(0), Shape(std::move(out)));
  if (const auto v = c.contents(0); v && rank <= 1) c.set_contents(0, *v);
}

void lower_squeeze(LowerContext& c) {
  c.carry_strings({0});
  const auto axes = c.ints("axes", 1);
  if (axes ? axes->empty() : !c.has_ints("axes", 1)) return c.out(0, aten("squeeze", {c.in(0)}));
  if (!axes) return c.out(0, op(".squeeze", {c.in(0), op("tuple", {c.int_list(1)})}));
  Ints a = c.rank(0) ? c.axes(*axes, *c.rank(0)) : *axes;
  if (a.size() == 1) return c.out(0, aten("squeeze.dim", {c.in(0), a[0]}));
  std::sort(a.begin(), a.end());
  c.out(0, aten("squeeze.dims", {c.in(0), Ex(a)}));
}

void infer_unsqueeze(InferContext& c) {
  const Shape& s = c.shape(0);
  const auto axes = c.ints("axes", 1);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  if (!axes) {
    // How many there are says the rank.
    if (!c.has_input(1)) return c.set(0, c.dtype(0));
    const Shape& n = c.shape(1);
    constexpr std::int64_t kMost = 64;
    const bool counted = n.has_rank() && n.rank() == 1 && n[0].is_const() && n[0].value() >= 0 &&
                         n[0].value() <= kMost;
    if (!counted) return c.set(0, c.dtype(0));
    return c.set(0, c.dtype(0),
                 Shape::unknown_dims(s.rank() + static_cast<std::size_t>(n[0].value())));
  }
  const std::size_t rank = s.rank() + axes->size();
  if (rank > ir::kMaxRank) c.fail("the output would have " + std::to_string(rank) + " dimensions");
  const std::vector<bool> inserted = c.axis_mask(*axes, rank);
  Dims out;
  std::size_t from = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    if (inserted[i]) {
      out.emplace_back(1);
    } else {
      if (from >= s.rank()) c.fail("an axis is there twice");
      out.push_back(s[from++]);
    }
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
  if (const auto v = c.contents(0); v && rank <= 1) c.set_contents(0, *v);
}

void lower_unsqueeze(LowerContext& c) {
  c.carry_strings({0});
  const auto axes = c.ints("axes", 1);
  if (!axes) return c.out(0, helper("insert_axes", {c.in(0), c.int_list(1)}));
  Ints a = *axes;
  if (c.rank(0)) {
    a = c.axes(a, *c.rank(0) + a.size());
  } else if (a.size() > 1 &&
             std::any_of(a.begin(), a.end(), [](std::int64_t v) { return v < 0; })) {
    return c.out(0, helper("insert_axes", {c.in(0), Ex(a)}));
  }
  std::sort(a.begin(), a.end());
  Ex x = c.in(0);
  for (const std::int64_t axis : a) x = aten("unsqueeze", {x, axis});
  c.out(0, x);
}

// ---------------------------------------------------------------- Transpose

Ints permutation(const NodeContext& c, std::size_t rank) {
  Ints perm(rank);
  if (const auto given = c.attr_ints("perm"); given && !given->empty()) {
    perm = c.axes(*given, rank);
    Ints sorted = perm;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < sorted.size(); ++i)
      if (sorted.size() != rank || sorted[i] != static_cast<std::int64_t>(i))
        c.fail("perm is no permutation of the axes");
    return perm;
  }
  std::iota(perm.rbegin(), perm.rend(), 0);
  return perm;
}

void infer_transpose(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) {
    const auto perm = c.attr_ints("perm");
    return c.set(0, c.dtype(0), perm ? Shape::unknown_dims(perm->size()) : Shape());
  }
  Dims out;
  for (const std::int64_t p : permutation(c, s.rank()))
    out.push_back(s[static_cast<std::size_t>(p)]);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_transpose(LowerContext& c) {
  c.carry_strings({0});
  const auto rank = c.rank(0);
  const auto given = c.attr_ints("perm");
  if (!rank && !given)
    return c.out(0,
                 op(".permute",
                    {c.in(0), op("tuple", {op("reversed", {op("range", {op(".dim", {c.in(0)})})})})}));
  const Ints perm = permutation(c, rank ? *rank : given->size());
  Ints moved;
  for (std::size_t i = 0; i < perm.size(); ++i)
    if (perm[i] != static_cast<std::int64_t>(i)) moved.push_back(static_cast<std::int64_t>(i));
  if (moved.empty()) return c.out(0, c.in(0));
  if (moved.size() == 2) return c.out(0, aten("transpose.int", {c.in(0), moved[0], moved[1]}));
  c.out(0, aten("permute", {c.in(0), Ex(perm)}));
}

// ---------------------------------------------------------------- Concat

void infer_concat(InferContext& c) {
  std::size_t rank = 0;
  for (std::size_t i = 0; i < c.input_count(); ++i)
    if (c.rank(i)) rank = *c.rank(i);
  if (rank == 0) return c.set(0, c.dtype(0));
  const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis", 1), rank));
  Dims out(rank);
  Dim total(0);
  Dims contents;
  bool has_contents = rank == 1;
  for (std::size_t i = 0; i < c.input_count(); ++i) {
    const Shape& s = c.shape(i);
    if (!s.has_rank()) {
      total = Dim();
      has_contents = false;
      continue;
    }
    if (s.rank() != rank) c.fail("inputs have different ranks");
    total = total + s[axis];
    for (std::size_t d = 0; d < rank; ++d)
      if (d != axis && (!out[d].known() || s[d].is_const())) out[d] = s[d];
    const auto v = c.contents(i);
    if (v && has_contents) {
      contents.insert(contents.end(), v->begin(), v->end());
    } else {
      has_contents = false;
    }
  }
  out[axis] = total;
  c.set(0, c.dtype(0), Shape(std::move(out)));
  if (has_contents) c.set_contents(0, std::move(contents));
}

void lower_concat(LowerContext& c) {
  Args parts;
  for (std::size_t i = 0; i < c.input_count(); ++i) parts.push_back(c.in(i));
  const std::int64_t axis = c.attr_int("axis", 1);
  if (c.dtype(0) == DType::String)
    return c.out(0, call("np.concatenate", {list(parts)}, {{"axis", Ex(axis)}}));
  if (parts.size() == 1) return c.out(0, parts[0]);
  c.out(0, aten("cat", {list(parts), c.rank(0) ? c.axis(axis, *c.rank(0)) : axis}));
}

// ---------------------------------------------------------------- Identity

void infer_identity(InferContext& c) {
  c.set(0, c.type(0));
  if (const auto v = c.contents(0)) c.set_contents(0, *v);
}

bool fold_identity(FoldContext& c) {
  c.set(0, c.input(0));
  return true;
}

void lower_identity(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  c.out(0, c.in(0));
}

constexpr OpDef kShapeOps[] = {
    {.type = "Shape", .changed_at = {1, 15}, .infer = infer_shape, .lower = lower_shape},
    {.type = "Size", .changed_at = {1}, .infer = infer_size, .lower = lower_size},
    {.type = "Reshape", .changed_at = {1, 5, 14}, .infer = infer_reshape, .lower = lower_reshape},
    {.type = "Flatten", .changed_at = {1, 11}, .infer = infer_flatten, .lower = lower_flatten},
    {.type = "Squeeze", .changed_at = {1, 11, 13}, .infer = infer_squeeze, .lower = lower_squeeze},
    {.type = "Unsqueeze",
     .changed_at = {1, 11, 13},
     .infer = infer_unsqueeze,
     .lower = lower_unsqueeze},
    {.type = "Transpose", .changed_at = {1}, .infer = infer_transpose, .lower = lower_transpose},
    {.type = "Concat", .changed_at = {1, 4, 11}, .infer = infer_concat, .lower = lower_concat},
    {.type = "Identity",
     .changed_at = {1},
     .infer = infer_identity,
     .fold = fold_identity,
     .lower = lower_identity},
};

}  // namespace

std::span<const OpDef> shape_ops() {
  return kShapeOps;
}

}  // namespace onnx2nn::ops
