// Reshapes in a row, and shapes that need no arithmetic.
#include <algorithm>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

// Opset 5 made the shape an input.
constexpr std::int64_t kShapeIsInput = 5;

/// A Transpose past whose dimensions of one the others keep their order: no element moves.
bool moves_ones(const ir::Node& n) {
  const ir::Value* x = n.input(0);
  if (!n.is("Transpose") || x == nullptr || !x->type.is_tensor() || !x->type.shape.has_rank())
    return false;
  const ir::Shape& shape = x->type.shape;
  const auto perm = ints_of(n, "perm", n.input_count());
  std::int64_t last = -1;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    const std::size_t reversed = shape.rank() - 1 - i;
    const std::int64_t from =
        perm && i < perm->size() ? (*perm)[i] : static_cast<std::int64_t>(reversed);
    if (from < 0 || from >= static_cast<std::int64_t>(shape.rank())) return false;
    const ir::Dim& d = shape[static_cast<std::size_t>(from)];
    if (d.is_const() && d.value() == 1) continue;
    if (from < last) return false;
    last = from;
  }
  return !perm || perm->size() == shape.rank();
}

bool keeps_elements(const ir::Node& n) {
  return n.is("Reshape") || n.is("Flatten") || n.is("Squeeze") || n.is("Unsqueeze") ||
         moves_ones(n);
}

/// What Reshape's shape input must hold so that `from` becomes `to`: numbers, 0 for a dimension
/// that stays, and at most one -1.
std::optional<Ints> reshape_spec(const ir::Shape& from, const ir::Shape& to) {
  if (!from.has_rank() || !to.has_rank()) return std::nullopt;
  Ints spec;
  bool guessed = false;
  for (std::size_t i = 0; i < to.rank(); ++i) {
    if (to[i].is_const()) {
      if (to[i].value() <= 0) return std::nullopt;
      spec.push_back(to[i].value());
    } else if (i < from.rank() && from[i] == to[i]) {
      spec.push_back(0);
    } else if (!guessed) {
      spec.push_back(-1);
      guessed = true;
    } else {
      return std::nullopt;
    }
  }
  return spec;
}

/// Of an empty tensor no dimension can be guessed where another that is copied may be 0.
bool guesses_of_nothing(const Ints& spec) {
  return std::count(spec.begin(), spec.end(), -1) != 0 &&
         std::count(spec.begin(), spec.end(), 0) != 0;
}

/// A Reshape that fails on some empty tensors by itself.
bool fails_on_nothing(const ir::Node& n) {
  const auto spec = n.is("Reshape") ? ints_of(n, "shape", 1) : std::nullopt;
  return spec && guesses_of_nothing(*spec);
}

/// Whether the constant shape of `n` means the same for `from` as for its input: zeros copy a
/// dimension.
bool means_same(const ir::Node& n, const Ints& spec, const ir::Value& from) {
  if (attr_int(n, "allowzero", 0) != 0) return true;
  const ir::Shape& now = n.input(0)->type.shape;
  const ir::Shape& then = from.type.shape;
  for (std::size_t i = 0; i < spec.size(); ++i) {
    if (spec[i] != 0) continue;
    if (!now.has_rank() || !then.has_rank() || i >= now.rank() || i >= then.rank() ||
        !(now[i] == then[i]))
      return false;
  }
  return true;
}

/// The second Unsqueeze of an attention mask (1 - mask) * -10000, where runtimes look for two.
bool spells_mask(const ir::Node& n, const ir::Node& first) {
  if (!n.is("Unsqueeze") || !first.is("Unsqueeze")) return false;
  const ir::Value* mask = n.output(0);
  if (const ir::Node* cast = sole_user(mask, "Cast")) mask = cast->output(0);
  const ir::Node* sub = sole_user(mask, "Sub");
  return sub != nullptr && sub->input(1) == mask && sole_user(sub->output(0), "Mul") != nullptr;
}

/// Where the dimensions of a tensor of `rank` go that has `axes` put in or taken out: those that are
/// not in `axes`, of `rank` in all.
Ints others(const Ints& axes, std::size_t rank) {
  Ints out;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(rank); ++i)
    if (std::find(axes.begin(), axes.end(), i) == axes.end()) out.push_back(i);
  return out;
}

// Unsqueeze(Unsqueeze(x, {1}), {0})   =>   Unsqueeze(x, {0, 2})
// Squeeze(Squeeze(x, {1}), {0})   =>   Squeeze(x, {0, 1})
bool collapse_squeezes(Rewriter& w, ir::Node& n) {
  ir::Node* first = sole_producer(n.input(0), n.op_type);
  if (first == nullptr || first->input(0) == nullptr || n.output(0) == nullptr) return false;
  if (spells_mask(n, *first)) return w.miss(n, "runtimes know an attention mask by both");
  const bool adds = n.is("Unsqueeze");
  // Axes are those of the larger of input and output.
  const auto axes_of = [&](const ir::Node& node) {
    const auto axes = ints_of(node, "axes", 1);
    return axes && !axes->empty() ? counted_axes(*axes, adds ? node.output(0) : node.input(0))
                                  : std::nullopt;
  };
  const auto inner = axes_of(*first);
  const auto outer = axes_of(n);
  if (!inner || !outer) return w.miss(n, "the axes are not known");
  const ir::Value* largest = adds ? n.output(0) : first->input(0);
  Ints both = adds ? *outer : *inner;
  const Ints left = others(both, largest->type.shape.rank());
  for (const std::int64_t a : adds ? *inner : *outer) {
    if (a >= static_cast<std::int64_t>(left.size())) return false;
    both.push_back(left[static_cast<std::size_t>(a)]);
  }
  std::sort(both.begin(), both.end());
  constexpr std::int64_t kAxesAreInput = 13;
  if (n.opset >= kAxesAreInput) {
    w.set_input(n, 1, w.constant(*n.graph(), "axes", ir::Tensor::ints(both)));
  } else {
    set_attr(n, "axes", std::move(both));
  }
  w.set_input(n, 0, first->input(0));
  return true;
}

bool is_product(const ir::Value* v) {
  if (const ir::Node* add = producer_of(v, "Add"))
    return producer_of(add->input(0), "MatMul") != nullptr ||
           producer_of(add->input(1), "MatMul") != nullptr;
  return producer_of(v, "MatMul") != nullptr;
}

/// Reshape and Transpose to the heads of an attention, or Transpose and Reshape from them. Runtimes
/// know it by both, even where there is one head, so that one Reshape would do.
bool spells_heads(const ir::Node& n, const ir::Node& first) {
  constexpr std::size_t kRank = 4;
  const ir::Value* between = n.input(0);
  if (!between->type.shape.has_rank() || between->type.shape.rank() != kRank) return false;
  return is_product(first.input(0)) && ((n.is("Transpose") && first.is("Reshape")) ||
                                        (n.is("Reshape") && first.is("Transpose")));
}


// Reshape(Reshape(x, a), b)   =>   Reshape(x, b)
// Squeeze(Unsqueeze(x)) -> y: of x's shape   =>   x for y
// Reshape(Transpose(x: [n, 1, 8]) by (1, 0, 2), b)   =>   Reshape(x, b)
bool collapse_reshapes(Rewriter& w, ir::Node& n) {
  if (n.is("Transpose") && !moves_ones(n)) return false;
  ir::Node* first = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  ir::Value* out = n.output(0);
  if (first == nullptr || !keeps_elements(*first) || out == nullptr || !out->has_uses())
    return false;
  ir::Value* x = first->input(0);
  if (x == nullptr) return false;
  if (spells_mask(n, *first)) return w.miss(n, "runtimes know an attention mask by both");
  if (!w.options().any_opset && spells_heads(n, *first))
    return w.miss(n, "runtimes know an attention by both");
  if (same_type(x, out)) {
    w.replace(out, x);
    return true;
  }
  if (n.is("Reshape") && n.opset >= kShapeIsInput) {
    const auto spec = const_ints(n.input(1));
    if (spec && means_same(n, *spec, *x)) {
      w.set_input(n, 0, x);
      return true;
    }
  }
  if (!first->output(0)->has_one_use() || n.opset < kShapeIsInput || !x->type.is_tensor())
    return false;
  const auto spec = reshape_spec(x->type.shape, out->type.shape);
  if (!spec) return false;
  if (guesses_of_nothing(*spec) && !fails_on_nothing(n) && !fails_on_nothing(*first))
    return w.miss(n, "one Reshape could not do both of an empty tensor");
  ir::Value* shape = w.constant(*n.graph(), out->name + "_shape", ir::Tensor::ints(*spec));
  const std::vector<ir::Value*> inputs = {x, shape};
  w.replace(out, w.add("Reshape", inputs, *out, n)->output(0));
  return true;
}

// Reshape(x: [n, s, 768], Concat(Shape(x)[0], Shape(x)[1], {12}, {64}))   =>   Reshape(x, {0, 0,
// 12, 64})
bool constant_shape(Rewriter& w, ir::Node& n) {
  const ir::Value* shape = n.input(1);
  if (n.opset < kShapeIsInput || n.input(0) == nullptr || shape == nullptr || shape->constant ||
      !shape->contents)
    return false;
  if (attr_int(n, "allowzero", 0) != 0) return false;
  const ir::Shape& from = n.input(0)->type.shape;
  Ints spec;
  bool guessed = false;
  bool said = false;  // what is guessed now
  for (std::size_t i = 0; i < shape->contents->size(); ++i) {
    const ir::Dim& d = (*shape->contents)[i];
    std::int64_t v = -1;
    if (d.is_const()) {
      v = d.value();
    } else if (d.known() && from.has_rank() && i < from.rank() && from[i] == d) {
      v = 0;
    }
    if (v < -1 || (v == -1 && guessed)) return false;
    guessed = guessed || v == -1;
    said = said || (v == -1 && !d.is_const());
    spec.push_back(v);
  }
  if (said && guesses_of_nothing(spec))
    return w.miss(n, "of an empty tensor the size would have to be guessed that it says now");
  w.set_input(n, 1, w.constant(*n.graph(), shape->name, ir::Tensor::ints(spec)));
  return true;
}

}  // namespace

std::span<const Rule> reshape_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "collapse-squeezes",
       .what = "Unsqueeze of Unsqueeze, Squeeze of Squeeze",
       .apply = collapse_squeezes,
       .ops = {"Squeeze", "Unsqueeze"}},
      {.name = "collapse-reshapes",
       .what = "reshapes in a row, or transposes that move ones, become one, or none",
       .apply = collapse_reshapes,
       .ops = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}},
      {.name = "constant-shape",
       .what = "a Reshape's shape in numbers, 0 and -1",
       .apply = constant_shape,
       .ops = {"Reshape"}},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
