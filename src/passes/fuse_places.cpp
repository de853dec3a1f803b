// Elements that are taken by the places which they have anyway, as masks of attention are that are
// written as a function of a batch, a head, a query and a key.
#include <algorithm>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// Whether a constant is 0, 1, 2, ... along an axis of its own, and the same along all others.
bool counts_along(const ir::Tensor& t, std::size_t axis) {
  constexpr std::int64_t kMost = 1 << 20;
  if (!ir::is_integer(t.dtype()) || t.size() > kMost) return false;
  std::int64_t inner = 1;
  for (std::size_t i = axis + 1; i < t.rank(); ++i) inner *= t.dims()[i];
  for (std::int64_t k = 0; k < t.size(); ++k)
    if (t.int_at(k) != k / inner % t.dims()[axis]) return false;
  return true;
}

/// The axis along which `v` says each element's place, whatever it is along the others.
std::optional<std::size_t> place_axis(const ir::Value* v, int depth = 0) {
  constexpr int kDeepest = 16;
  if (v == nullptr || depth > kDeepest || !v->type.shape.has_rank()) return std::nullopt;
  const ir::Shape& shape = v->type.shape;
  if (v->constant) {
    for (std::size_t i = 0; i < shape.rank(); ++i)
      if (v->constant->dims()[i] > 1 && counts_along(*v->constant, i)) return i;
    return std::nullopt;
  }
  const ir::Node* n = v->producer();
  if (n == nullptr) return std::nullopt;
  if (n->is("Range"))
    return splat(n->input(0)) == 0.0 && splat(n->input(2)) == 1.0 ? std::optional<std::size_t>(0)
                                                                  : std::nullopt;
  const ir::Value* x = n->input(0);
  const auto inner = place_axis(x, depth + 1);
  if (!inner) return std::nullopt;
  if (n->is("Cast")) return ir::is_integer(v->type.dtype) ? inner : std::nullopt;
  if (n->is("Expand")) {
    const std::size_t at = shape.rank() - x->type.shape.rank() + *inner;
    return shape[at] == x->type.shape[*inner] ? std::optional(at) : std::nullopt;
  }
  if (!n->is("Unsqueeze")) return std::nullopt;
  const auto axes = ints_of(*n, "axes", 1);
  const auto counted = axes ? counted_axes(*axes, v) : std::nullopt;
  if (!counted) return std::nullopt;
  std::size_t left = *inner;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    if (std::find(counted->begin(), counted->end(), static_cast<std::int64_t>(i)) != counted->end())
      continue;
    if (left-- == 0) return i;
  }
  return std::nullopt;
}

// GatherND(x, [i, j] for i along axis 0, j along axis 3)   =>   Unsqueeze(x, [1, 2])
bool gather_by_place(Rewriter& w, ir::Node& n) {
  ir::Value* x = n.input(0);
  const ir::Node* joined = producer_of(n.input(1), "Concat");
  if (x == nullptr || joined == nullptr || !x->type.is_tensor() || !x->type.shape.has_rank() ||
      attr_int(n, "batch_dims", 0) != 0 || n.output(0) == nullptr)
    return false;
  const ir::Shape& places = n.input(1)->type.shape;
  const ir::Shape& from = x->type.shape;
  const std::size_t count = joined->input_count();
  if (!places.has_rank() || places.rank() < 2 || count != from.rank() ||
      counted_axes({attr_int(*joined, "axis", 0)}, n.input(1)) !=
          Ints{static_cast<std::int64_t>(places.rank()) - 1})
    return false;
  const std::size_t rank = places.rank() - 1;
  Ints added;
  std::size_t at = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const ir::Value* column = joined->input(i);
    const auto axis = place_axis(column);
    if (!axis || *axis >= rank || !column->type.shape.has_rank() ||
        column->type.shape.rank() != places.rank() ||
        !(column->type.shape[rank] == ir::Dim(1)) || *axis < at || !(places[*axis] == from[i]))
      return w.miss(n, "it takes elements by other places than their own");
    for (; at < *axis; ++at) added.push_back(static_cast<std::int64_t>(at));
    ++at;
  }
  for (; at < rank; ++at) added.push_back(static_cast<std::int64_t>(at));
  for (const std::int64_t a : added)
    if (!(places[static_cast<std::size_t>(a)] == ir::Dim(1)))
      return w.miss(n, "it takes elements several times");
  constexpr std::int64_t kAxesInput = 13;
  ir::Value* const inputs[] = {x, w.constant(*n.graph(), "axes", ir::Tensor::ints(added))};
  ir::Node* made = w.add("Unsqueeze", inputs, *n.output(0), n);
  made->opset = std::max(n.opset, kAxesInput);
  w.replace(n.output(0), made->output(0));
  return true;
}

/// Whether all that use `v` broadcast it to what it is anyway: `v` may be smaller then. Lists the
/// choices between numbers on the way.
bool is_broadcast(const ir::Value& v, std::vector<ir::Node*>& choices) {
  constexpr std::size_t kMost = 256;
  std::size_t users = 0;
  for (const ir::Use* u = v.first_use(); u != nullptr; u = u->next) {
    ir::Node& user = *u->user;
    if (++users > kMost) return false;
    if (user.is("Where") && u->index == 0 && splat(user.input(1)) && splat(user.input(2)) &&
        v.type.shape.same(user.output(0)->type.shape)) {
      choices.push_back(&user);
      if (!is_broadcast(*user.output(0), choices)) return false;
    } else if (user.is("Add")) {
      const ir::Value* other = other_input(user, &v);
      if (other == nullptr || other == &v || !same_type(other, user.output(0))) return false;
    } else if (!user.is("ScaledDotProductAttention", ops::kTorchDomain) || u->index != 3) {
      return false;
    }
  }
  return users > 0;
}

// And({true}: [1, 1, 5, 1], m: [n, 1, 1, 5]), which is broadcast to more anyway   =>   m
bool drop_true(Rewriter& w, ir::Node& n) {
  ir::Value* out = n.output(0);
  if (out == nullptr || n.input_count() != 2 || !out->type.shape.has_rank()) return false;
  for (std::size_t i = 0; i < 2; ++i) {
    if (splat(n.input(i)) != 1.0) continue;
    ir::Value* m = n.input(1 - i);
    if (m == nullptr || m->constant || !m->type.shape.has_rank() || m->type.shape.rank() < 2 ||
        m->type.shape.rank() != out->type.shape.rank())
      return false;
    if (same_type(m, out)) {
      w.replace(out, m);
      return true;
    }
    // A mask has a place for each key.
    const std::size_t last = m->type.shape.rank() - 1;
    std::vector<ir::Node*> choices;
    if (!(m->type.shape[last] == out->type.shape[last]) || !is_broadcast(*out, choices))
      return w.miss(n, "what is true makes it larger");
    for (ir::Node* choice : choices) {
      // It is another value than that of its name, which checks would compare.
      choice->output(0)->name = w.model().new_name("mask");
      choice->output(0)->type.shape = m->type.shape;
      choice->output(0)->declared.reset();
    }
    for (const ir::Use* u : out->uses()) w.set_input(*u->user, u->index, m);
    return true;
  }
  return false;
}

// Expand({2}, shape)   =>   ConstantOfShape(shape), which torch has a call for
bool expand_number(Rewriter& w, ir::Node& n) {
  const ir::Value* number = n.input(0);
  const ir::Value* shape = n.input(1);
  if (number == nullptr || !number->constant || number->constant->size() != 1 ||
      number->constant->dtype() == ir::DType::String || shape == nullptr || !shape->contents ||
      shape->constant || shape->contents->size() < number->constant->rank() ||
      shape->contents->empty())
    return false;
  // What has axes may be a weight; a number has none.
  if (number->constant->rank() > 0 && ir::is_float(number->constant->dtype())) return false;
  for (const ir::Dim& d : *shape->contents)  // -1 would be no size
    if (!d.never_negative() && !(d.is_const() && d.value() >= 0)) return false;
  ir::Value* const inputs[] = {n.input(1)};
  ir::Node* made = w.add("ConstantOfShape", inputs, *n.output(0), n);
  constexpr std::int64_t kSince = 9;
  made->opset = std::max(n.opset, kSince);
  set_attr(*made, "value", number->constant->reshaped({1}));
  w.replace(n.output(0), made->output(0));
  return true;
}

}  // namespace

std::span<const Rule> places_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "gather-by-place",
       .what = "elements taken by their own places, in as many axes more",
       .apply = gather_by_place,
       .ops = {"GatherND"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "expand-number",
       .what = "one number as a tensor of a shape, for torch",
       .apply = expand_number,
       .ops = {"Expand"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "drop-true",
       .what = "And with what is true, in masks of attention",
       .apply = drop_true,
       .ops = {"And"},
       .in_conversion = true,
       .conversion_only = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
