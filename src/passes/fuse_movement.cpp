// Operators that move elements, several of which are one.
#include <algorithm>
#include <limits>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

using Dim = ir::Dim;

bool shape_is(const ir::Value* v, const std::vector<Dim>& dims) {
  return v != nullptr && v->type.is_tensor() && v->type.shape.same(ir::Shape(dims));
}

/// Blocks of channels that become blocks of places, or the other way.
struct Blocks {
  std::string_view op_type;
  std::string_view mode;
  Dim size;
};

std::optional<Blocks> blocks_of(const ir::Value* x, const ir::Value* split, const ir::Value* out,
                                const Ints& perm) {
  const ir::Shape& s = x->type.shape;
  const ir::Shape& m = split->type.shape;
  if (!s.has_rank() || s.rank() != 4 || !m.has_rank() || m.rank() != 6) return std::nullopt;
  const bool crd = perm == Ints{0, 1, 4, 2, 5, 3};
  if (crd || perm == Ints{0, 3, 4, 1, 5, 2}) {
    const Dim& b = crd ? m[2] : m[1];
    const Dim& c = crd ? m[1] : m[3];
    const Dim& other = crd ? m[3] : m[2];
    if (b.is_const() && b.value() > 1 && b == other && m[0] == s[0] && m[4] == s[2] &&
        m[5] == s[3] && c * b * b == s[1] && shape_is(out, {s[0], c, s[2] * b, s[3] * b}))
      return Blocks{"DepthToSpace", crd ? "CRD" : "DCR", b};
  } else if (perm == Ints{0, 3, 5, 1, 2, 4}) {
    const Dim& b = m[3];
    if (b.is_const() && b.value() > 1 && b == m[5] && m[0] == s[0] && m[1] == s[1] &&
        m[2] * b == s[2] && m[4] * b == s[3] && shape_is(out, {s[0], s[1] * b * b, m[2], m[4]}))
      return Blocks{"SpaceToDepth", "", b};
  }
  return std::nullopt;
}

// Reshape(Transpose(Reshape(x, [n, c, 2, 2, h, w])), [n, c, 2 h, 2 w])   =>   DepthToSpace(x)
bool fuse_depth_to_space(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kModes = 11;
  const ir::Node* transpose = sole_producer(n.input(0), "Transpose");
  const ir::Node* split =
      transpose != nullptr ? sole_producer(transpose->input(0), "Reshape") : nullptr;
  if (split == nullptr || split->input(0) == nullptr || n.output(0) == nullptr) return false;
  ir::Value* x = split->input(0);
  const auto perm = ints_of(*transpose, "perm", transpose->input_count());
  const auto blocks = perm ? blocks_of(x, split->output(0), n.output(0), *perm) : std::nullopt;
  if (!blocks) return false;
  if (!x->type.is_tensor() || x->type.dtype != ir::DType::Float32)
    return w.miss(n, "runtimes move blocks of float32 only");
  if (blocks->mode == "CRD" && n.opset < kModes && !w.options().any_opset)
    return w.miss(n, "DepthToSpace had one order only before opset {}", kModes);
  // Torch has a function for this one order.
  if (w.options().any_opset && blocks->mode != "CRD") return false;
  ir::Value* const inputs[] = {x};
  ir::Node* made = w.add(blocks->op_type, inputs, *n.output(0), n);
  if (w.options().any_opset) made->opset = std::max(n.opset, kModes);
  set_attr(*made, "blocksize", blocks->size.value());
  if (blocks->mode == "CRD") set_attr(*made, "mode", std::string(blocks->mode));
  w.replace(n.output(0), made->output(0));
  return true;
}

/// The axis of a Concat or Split that says which, counted from the first.
std::optional<std::int64_t> joint_axis(const ir::Node& n) {
  constexpr std::int64_t kNone = -1000;
  const std::int64_t axis = attr_int(n, "axis", n.is("Split") && n.opset >= 2 ? 0 : kNone);
  if (axis == kNone || n.output(0) == nullptr) return std::nullopt;
  if (axis >= 0) return axis;
  const ir::Shape& s = n.output(0)->type.shape;
  return s.has_rank() ? std::optional(axis + static_cast<std::int64_t>(s.rank())) : std::nullopt;
}

// Concat(a, Concat(b, c))   =>   Concat(a, b, c) along one axis
bool collapse_concats(Rewriter& w, ir::Node& n) {
  constexpr std::size_t kMost = 256;  // a long chain would be copied again and again
  const auto axis = joint_axis(n);
  std::vector<ir::Value*> inputs;
  bool found = false;
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const ir::Node* inner = sole_producer(n.input(i), "Concat");
    if (axis && inner != nullptr && joint_axis(*inner) == axis) {
      for (std::size_t k = 0; k < inner->input_count(); ++k) inputs.push_back(inner->input(k));
      found = true;
    } else {
      inputs.push_back(n.input(i));
    }
  }
  if (!found) return false;
  if (inputs.size() > kMost) return w.miss(n, "it would have more than {} inputs", kMost);
  w.set_inputs(n, inputs);
  return true;
}

// Concat(all parts of Split(x), in order) -> y   =>   x for y
bool rejoin_split(Rewriter& w, ir::Node& n) {
  const ir::Node* split = n.input(0) != nullptr ? producer_of(n.input(0), "Split") : nullptr;
  if (split == nullptr || n.output(0) == nullptr || !n.output(0)->has_uses() ||
      split->output_count() != n.input_count())
    return false;
  const auto axis = joint_axis(n);
  if (!axis || joint_axis(*split) != axis) return w.miss(n, "it joins along another axis");
  for (std::size_t i = 0; i < n.input_count(); ++i)
    if (n.input(i) == nullptr || n.input(i) != split->output(i))
      return w.miss(n, "the parts are in another order");
  ir::Value* x = split->input(0);
  if (!compatible(n.output(0), x)) return false;
  // The sum of the parts says more of the shape than the file does of an input, and would be lost.
  if (x->producer() == nullptr && !same_type(n.output(0), x))
    return w.miss(n, "the size of {} is not given", x->name);
  w.replace(n.output(0), x);
  return true;
}

/// Where a Slice of constants begins, ends, and in which steps.
struct Slices {
  Ints starts, ends, axes, steps;
};

std::optional<Slices> slices_of(const ir::Node& n) {
  constexpr std::int64_t kInputs = 10;
  if (n.opset < kInputs || n.input(0) == nullptr) return std::nullopt;
  const auto starts = const_ints(n.input(1));
  const auto ends = const_ints(n.input(2));
  if (!starts || !ends || starts->size() != ends->size()) return std::nullopt;
  Slices s{*starts, *ends, {}, Ints(starts->size(), 1)};
  if (n.input(3) != nullptr) {
    const auto axes = const_ints(n.input(3));
    if (!axes) return std::nullopt;
    s.axes = *axes;
  } else {
    for (std::size_t i = 0; i < starts->size(); ++i)
      s.axes.push_back(static_cast<std::int64_t>(i));
  }
  if (n.input(4) != nullptr) {
    const auto steps = const_ints(n.input(4));
    if (!steps) return std::nullopt;
    s.steps = *steps;
  }
  const auto counted = counted_axes(s.axes, n.input(0), false);
  if (!counted || counted->size() != starts->size() || s.steps.size() != starts->size())
    return std::nullopt;
  s.axes = *counted;
  return s;
}

/// `second` after `first` along one axis, into `first`: both count up from the beginning by ones.
bool cut_again(Slices& first, std::size_t i, const Slices& second, std::size_t k) {
  std::int64_t& start = first.starts[i];
  std::int64_t& end = first.ends[i];
  if (first.steps[i] != 1 || second.steps[k] != 1 || start < 0 || end < 0 ||
      second.starts[k] < 0 || second.ends[k] < 0)
    return false;
  constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();
  const auto from_start = [&](std::int64_t at) { return at > kEnd - start ? kEnd : start + at; };
  end = std::min(end, from_start(second.ends[k]));
  start = from_start(second.starts[k]);
  return true;
}

/// `v` as what is between two places of `x` along an axis; nothing where it has other users.
struct Piece {
  ir::Value* x;
  std::int64_t begin, end;
};

std::optional<Piece> piece_of(const ir::Value* v, std::int64_t axis) {
  if (const ir::Node* slice = sole_producer(v, "Slice")) {
    const auto s = slices_of(*slice);
    if (!s || s->axes != Ints{axis} || s->steps != Ints{1} || s->starts[0] < 0 ||
        s->ends[0] < s->starts[0])
      return std::nullopt;
    return Piece{slice->input(0), s->starts[0], s->ends[0]};
  }
  constexpr std::size_t kMostParts = 256;  // each part looks at all before it
  const ir::Node* split = sole_producer(v, "Split");
  if (split == nullptr || split->input(0) == nullptr || split->output_count() > kMostParts ||
      joint_axis(*split) != axis)
    return std::nullopt;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i <= v->output_index(); ++i) {
    const ir::Value* part = split->output(i);
    if (part == nullptr || !part->type.shape.has_rank()) return std::nullopt;
    const ir::Dim& size = part->type.shape[static_cast<std::size_t>(axis)];
    if (!size.is_const()) return std::nullopt;
    std::int64_t end = 0;
    if (__builtin_add_overflow(begin, size.value(), &end)) return std::nullopt;
    if (part == v) return Piece{split->input(0), begin, end};
    begin = end;
  }
  return std::nullopt;
}

/// Whether the parts of a Split from the `first` on are all that is used of it.
bool are_all_used(const ir::Value* first, std::size_t count) {
  const ir::Node* split = producer_of(first, "Split");
  if (split == nullptr) return true;
  for (const ir::Value* v : split->outputs())
    if (v != nullptr && v->has_uses() &&
        (v->output_index() < first->output_index() ||
         v->output_index() >= first->output_index() + count))
      return false;
  return true;
}

// Concat(Slice(x)[1:3], Slice(x)[3:7]) along that axis   =>   Slice(x)[1:7]
// Concat(a, b) of a, b, c = Split(x), c unused   =>   Slice(x)
bool rejoin_slices(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kInputs = 10;
  const auto axis = joint_axis(n);
  if (!axis || n.opset < kInputs) return false;
  std::vector<ir::Value*> inputs;
  bool found = false;
  for (std::size_t i = 0; i < n.input_count();) {
    auto piece = piece_of(n.input(i), *axis);
    std::size_t next = i + 1;
    for (; piece && next < n.input_count(); ++next) {
      const auto more = piece_of(n.input(next), *axis);
      if (!more || more->x != piece->x || more->begin != piece->end ||
          n.input(next)->producer()->op_type != n.input(i)->producer()->op_type)
        break;
      piece->end = more->end;
    }
    if (next == i + 1 || !are_all_used(n.input(i), next - i)) {
      for (; i < next; ++i) inputs.push_back(n.input(i));
      continue;
    }
    ir::Graph& g = *n.graph();
    ir::Value* const slice_inputs[] = {piece->x,
                                       w.constant(g, "starts", ir::Tensor::ints({piece->begin})),
                                       w.constant(g, "ends", ir::Tensor::ints({piece->end})),
                                       w.constant(g, "axes", ir::Tensor::ints({*axis}))};
    ir::Node* slice = w.add("Slice", slice_inputs, *n.input(i), n);
    ir::Shape& shape = slice->output(0)->type.shape;
    if (shape.has_rank()) shape.dims()[static_cast<std::size_t>(*axis)] = Dim::unknown();
    slice->output(0)->contents.reset();
    slice->output(0)->declared.reset();
    inputs.push_back(slice->output(0));
    found = true;
    i = next;
  }
  if (!found) return false;
  w.set_inputs(n, inputs);
  return true;
}

// Slice(Slice(x) along axis 0) along axis 1   =>   Slice(x) along both
// Slice(Slice(x)[1:9])[2:4]   =>   Slice(x)[3:5]
bool collapse_slices(Rewriter& w, ir::Node& n) {
  const ir::Node* first = producer_of(n.input(0), "Slice");
  if (first == nullptr) return false;
  // Where all that read the first are slices, all of them can do without it. Each looks at all, so
  // that they must be few.
  constexpr std::size_t kMostUsers = 64;
  std::size_t users = 0;
  for (const ir::Use* u = n.input(0)->first_use(); u != nullptr; u = u->next)
    if (u->index != 0 || !u->user->is("Slice") || ++users > kMostUsers)
      return w.miss(n, "{} has other users", n.input(0)->name);
  auto both = slices_of(*first);
  const auto second = slices_of(n);
  if (!both || !second) return w.miss(n, "where a slice begins or ends is not known");
  for (std::size_t k = 0; k < second->axes.size(); ++k) {
    const std::int64_t axis = second->axes[k];
    const auto at = std::find(both->axes.begin(), both->axes.end(), axis);
    if (at != both->axes.end()) {
      if (!cut_again(*both, static_cast<std::size_t>(at - both->axes.begin()), *second, k))
        return w.miss(n, "both cut axis {}, from its end or in steps", axis);
      continue;
    }
    both->starts.push_back(second->starts[k]);
    both->ends.push_back(second->ends[k]);
    both->axes.push_back(axis);
    both->steps.push_back(second->steps[k]);
  }
  ir::Graph& g = *n.graph();
  std::vector<ir::Value*> inputs = {first->input(0),
                                    w.constant(g, "starts", ir::Tensor::ints(both->starts)),
                                    w.constant(g, "ends", ir::Tensor::ints(both->ends)),
                                    w.constant(g, "axes", ir::Tensor::ints(both->axes))};
  if (std::any_of(both->steps.begin(), both->steps.end(), [](std::int64_t s) { return s != 1; }))
    inputs.push_back(w.constant(g, "steps", ir::Tensor::ints(both->steps)));
  w.set_inputs(n, inputs);
  return true;
}

}  // namespace

std::span<const Rule> movement_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-depth-to-space",
       .what = "Reshape, Transpose, Reshape become DepthToSpace or SpaceToDepth",
       .apply = fuse_depth_to_space,
       .ops = {"Reshape"},
       .in_conversion = true},
      {.name = "collapse-concats",
       .what = "Concat of Concat along one axis",
       .apply = collapse_concats,
       .ops = {"Concat"},
       .in_conversion = true},
      {.name = "rejoin-split",
       .what = "Concat of all parts of a Split",
       .apply = rejoin_split,
       .ops = {"Concat"},
       .in_conversion = true},
      {.name = "rejoin-slices",
       .what = "Concat of neighbouring slices, or parts of a Split",
       .apply = rejoin_slices,
       .ops = {"Concat"}},
      {.name = "collapse-slices",
       .what = "Slice of Slice",
       .apply = collapse_slices,
       .ops = {"Slice"},
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
