// Elements that are taken by the places which they have anyway, as masks of attention are that are
// written as a function of a batch, a head, a query and a key.
#include <algorithm>
#include <cmath>

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

/// Unsqueeze in the place of `n`.
void add_axes(Rewriter& w, ir::Node& n, ir::Value* x, const Ints& axes) {
  constexpr std::int64_t kAxesInput = 13;
  ir::Value* const inputs[] = {x, w.constant(*n.graph(), "axes", ir::Tensor::ints(axes))};
  ir::Node* made = w.add("Unsqueeze", inputs, *n.output(0), n);
  made->opset = std::max(n.opset, kAxesInput);
  w.replace(n.output(0), made->output(0));
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
  add_axes(w, n, x, added);
  return true;
}

/// Places that are a sum over the axes: steps[i] for each element along axis i, from `start` on.
struct Strides {
  std::int64_t start = 0;
  Ints steps;
};

/// A constant's, where it is such a sum.
std::optional<Strides> strides_of(const ir::Tensor& t) {
  constexpr std::int64_t kMost = 1 << 20;
  constexpr std::int64_t kFarthest = 1 << 30;
  if (!ir::is_integer(t.dtype()) || t.size() == 0 || t.size() > kMost) return std::nullopt;
  for (std::int64_t k = 0; k < t.size(); ++k)
    if (t.int_at(k) < -kFarthest || t.int_at(k) > kFarthest) return std::nullopt;
  Strides out{t.int_at(0), Ints(t.rank())};
  std::int64_t inner = 1;
  for (std::size_t i = t.rank(); i-- > 0; inner *= t.dims()[i])
    if (t.dims()[i] > 1) out.steps[i] = t.int_at(inner) - out.start;
  for (std::int64_t k = 0; k < t.size(); ++k) {
    std::int64_t place = out.start;
    std::int64_t rest = k;
    for (std::size_t i = t.rank(); i-- > 0; rest /= t.dims()[i])
      place += rest % t.dims()[i] * out.steps[i];
    if (t.int_at(k) != place) return std::nullopt;
  }
  return out;
}

/// The strides of `x`, as it broadcasts to `shape`: what has steps along an axis is as long there.
std::optional<Strides> broadcast(std::optional<Strides> x, const ir::Shape& from,
                                 const ir::Shape& shape) {
  if (!x || from.rank() > shape.rank()) return std::nullopt;
  const std::size_t before = shape.rank() - from.rank();
  for (std::size_t i = 0; i < from.rank(); ++i)
    if (x->steps[i] != 0 && !(from[i] == shape[before + i])) return std::nullopt;
  x->steps.insert(x->steps.begin(), before, 0);
  return x;
}

/// Of sums, products with a number and counts along an axis.
std::optional<Strides> strides_of(const ir::Value* v, int depth = 0) {
  constexpr int kDeepest = 8;
  if (v == nullptr || depth > kDeepest || !v->type.shape.has_rank()) return std::nullopt;
  if (v->constant) return strides_of(*v->constant);
  const ir::Node* n = v->producer();
  if (n == nullptr) return std::nullopt;
  const ir::Shape& shape = v->type.shape;
  const auto inner = [&](const ir::Value* x) {
    return broadcast(strides_of(x, depth + 1), x->type.shape, shape);
  };
  if (n->is("Range")) {
    if (splat(n->input(0)) != 0.0 || splat(n->input(2)) != 1.0) return std::nullopt;
    return Strides{0, {1}};
  }
  if (n->is("Add")) {
    if (n->input(0) == nullptr || n->input(1) == nullptr) return std::nullopt;
    auto sum = inner(n->input(0));
    const auto other = inner(n->input(1));
    if (!sum || !other) return std::nullopt;
    sum->start += other->start;
    for (std::size_t i = 0; i < shape.rank(); ++i) sum->steps[i] += other->steps[i];
    return sum;
  }
  if (const auto product = with_number(n, "Mul")) {
    constexpr double kFarthest = 1 << 30;
    const double number = product->number;
    auto out = inner(product->x);
    if (!out || out->start != 0 || number != std::floor(number) || std::abs(number) > kFarthest)
      return std::nullopt;
    for (std::int64_t& step : out->steps) {
      if (step != 0 && step != 1) return std::nullopt;
      step *= static_cast<std::int64_t>(number);
    }
    return out;
  }
  if (!n->is("Unsqueeze")) return std::nullopt;
  const auto axes = ints_of(*n, "axes", 1);
  const auto counted = axes ? counted_axes(*axes, v) : std::nullopt;
  auto out = counted ? strides_of(n->input(0), depth + 1) : std::nullopt;
  if (!out || out->steps.size() + counted->size() != shape.rank()) return std::nullopt;
  Ints in_order = *counted;
  std::sort(in_order.begin(), in_order.end());
  for (const std::int64_t axis : in_order) out->steps.insert(out->steps.begin() + axis, 0);
  return out;
}

// Gather(Reshape(x: [n, 5, 1], [-1]), 5 * i + j for i along axis 0, j along axis 1)   =>   x
// torch.as_strided with the strides that the tensor has, as torch's exporter writes it.
bool gather_by_strides(Rewriter& w, ir::Node& n) {
  const ir::Node* flat = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  if (flat == nullptr || !flat->is("Reshape") || n.output(0) == nullptr ||
      !n.input(0)->type.shape.has_rank() || n.input(0)->type.shape.rank() != 1 ||
      attr_int(n, "axis", 0) != 0)
    return false;
  ir::Value* x = flat->input(0);
  if (x == nullptr || !same_type(x, n.output(0))) return false;
  const ir::Shape& shape = x->type.shape;
  const auto found = strides_of(n.input(1));
  if (!found || found->start != 0) return w.miss(n, "the places are no sum over its axes");
  ir::Dim step(1);
  for (std::size_t i = shape.rank(); i-- > 0; step = step * shape[i])
    if (!(shape[i] == ir::Dim(1)) && !(step == ir::Dim(found->steps[i])))
      return w.miss(n, "it takes elements by other places than their own");
  w.replace(n.output(0), x);
  return true;
}

/// What is multiplied by the number of columns.
std::optional<WithNumber> flat_row(const ir::Value* v, std::int64_t columns) {
  const auto row = with_number(v->producer(), "Mul");
  return row && row->number == static_cast<double>(columns) ? row : std::nullopt;
}

// Gather(Reshape(x: [n, 5], [-1]), 5 * i + j for i along axis 0, j along axis 3)   =>   Unsqueeze(x, [1, 2])
bool gather_flat_by_place(Rewriter& w, ir::Node& n) {
  const ir::Value* flat = n.input(0);
  const ir::Node* flattened = flat == nullptr ? nullptr : flat->producer();
  const ir::Node* sum = producer_of(n.input(1), "Add");
  if (flattened == nullptr || sum == nullptr || !(flattened->is("Reshape") || flattened->is("Flatten")) ||
      attr_int(n, "axis", 0) != 0 || n.output(0) == nullptr || !flat->type.shape.has_rank())
    return false;
  ir::Value* x = flattened->input(0);
  const ir::Shape& places = n.input(1)->type.shape;
  const ir::Shape& rows = flat->type.shape;
  if (x == nullptr || !x->type.is_tensor() || !x->type.shape.has_rank() || x->type.shape.rank() != 2 ||
      !x->type.shape[1].is_const() || !places.has_rank() || rows.rank() < 1 || rows.rank() > 2 ||
      (rows.rank() == 2 && !(rows[1] == ir::Dim(1))))
    return false;
  for (const std::size_t i : {0, 1}) {
    const ir::Value* column = sum->input(i);
    const ir::Value* row = sum->input(1 - i);
    if (column == nullptr || row == nullptr || !row->type.shape.has_rank() || !column->type.shape.has_rank())
      continue;
    const auto scaled = flat_row(row, x->type.shape[1].value());
    const auto at_row = scaled ? place_axis(scaled->x) : std::nullopt;
    const auto at_column = place_axis(column);
    if (!at_row || !at_column) continue;
    // Counted from the last axis, which both share.
    const std::size_t first = places.rank() - row->type.shape.rank() + *at_row;
    const std::size_t second = places.rank() - column->type.shape.rank() + *at_column;
    if (first >= second || !(places[first] == x->type.shape[0]) || !(places[second] == x->type.shape[1]))
      continue;
    Ints added;
    const std::size_t rank = places.rank() + rows.rank() - 1;
    for (std::size_t a = 0; a < rank; ++a) {
      if (a == first || a == second) continue;
      if (a < places.rank() && !(places[a] == ir::Dim(1))) return w.miss(n, "it takes elements several times");
      added.push_back(static_cast<std::int64_t>(a));
    }
    add_axes(w, n, x, added);
    return true;
  }
  return false;
}

/// The axes of `to` at which ones are put into `from`; nothing where that is not all.
std::optional<Ints> added_ones(const ir::Shape& from, const ir::Shape& to) {
  if (!from.has_rank() || !to.has_rank() || from.rank() >= to.rank()) return std::nullopt;
  Ints added;
  std::size_t at = 0;
  for (std::size_t i = 0; i < to.rank(); ++i) {
    if (at < from.rank() && from[at] == to[i]) {
      ++at;
    } else if (to[i] == ir::Dim(1)) {
      added.push_back(static_cast<std::int64_t>(i));
    } else {
      return std::nullopt;
    }
  }
  return at == from.rank() ? std::optional(added) : std::nullopt;
}

// Reshape(Flatten(Unsqueeze(x: [n, 5])), [n, 1, 1, 5])   =>   Unsqueeze(x, [1, 2])
bool add_ones(Rewriter& w, ir::Node& n) {
  constexpr int kSteps = 8;
  if (n.output(0) == nullptr) return false;
  ir::Value* x = n.input(0);
  ir::Value* best = nullptr;
  Ints axes;
  for (int step = 0; step < kSteps && x != nullptr && x->type.is_tensor(); ++step) {
    const ir::Node* made = x->producer();
    if (auto added = added_ones(x->type.shape, n.output(0)->type.shape); added && step > 0) {
      best = x;
      axes = std::move(*added);
    }
    if (made == nullptr || !(made->is("Reshape") || made->is("Flatten") || made->is("Unsqueeze") || made->is("Squeeze")))
      break;
    x = made->input(0);
  }
  if (best == nullptr) return false;
  add_axes(w, n, best, axes);
  return true;
}

/// Whether each dim of `out` is that of one of the others, which are broadcast to it.
bool has_dims(const ir::Value* out, std::initializer_list<const ir::Value*> others) {
  if (out == nullptr || !out->type.shape.has_rank()) return false;
  const ir::Shape& shape = out->type.shape;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    const auto gives = [&](const ir::Value* v) {
      if (v == nullptr || !v->type.shape.has_rank() || v->type.shape.rank() > shape.rank()) return false;
      const std::size_t missing = shape.rank() - v->type.shape.rank();
      return i >= missing && v->type.shape[i - missing] == shape[i];
    };
    if (!(shape[i] == ir::Dim(1)) && std::none_of(others.begin(), others.end(), gives)) return false;
  }
  return true;
}

/// Whether all that use `v` broadcast it to what it is anyway: it may have the dims of `smaller` then.
/// Lists the choices between numbers on the way.
bool is_broadcast(const ir::Value& v, const ir::Value& smaller, std::vector<ir::Node*>& choices) {
  constexpr std::size_t kMost = 256;
  std::size_t users = 0;
  for (const ir::Use* u = v.first_use(); u != nullptr; u = u->next) {
    ir::Node& user = *u->user;
    if (++users > kMost) return false;
    if (user.is("Where") && u->index == 0 && splat(user.input(1)) && splat(user.input(2)) &&
        v.type.shape.same(user.output(0)->type.shape)) {
      choices.push_back(&user);
      if (!is_broadcast(*user.output(0), smaller, choices)) return false;
    } else if (user.is("Where") && u->index == 0) {
      if (user.input(1) == &v || user.input(2) == &v ||
          !has_dims(user.output(0), {&smaller, user.input(1), user.input(2)}))
        return false;
    } else if (user.is("Add") || user.is("And")) {
      const ir::Value* other = other_input(user, &v);
      if (other == nullptr || other == &v || !has_dims(user.output(0), {&smaller, other})) return false;
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
    if (!(m->type.shape[last] == out->type.shape[last]) || !is_broadcast(*out, *m, choices))
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

// Where(mask: [n, 1, 1, 5], {0}: [1, 4, 5, 5], {-inf}), which is broadcast to more anyway
//   =>   Where(mask, 0, -inf)
bool shrink_choice(Rewriter& w, ir::Node& n) {
  ir::Value* mask = n.input(0);
  ir::Value* out = n.output(0);
  if (mask == nullptr || out == nullptr || mask->constant || !mask->type.shape.has_rank() ||
      !out->type.shape.has_rank() || mask->type.shape.rank() != out->type.shape.rank() ||
      mask->type.shape.rank() < 2 || mask->type.shape.same(out->type.shape) || !splat(n.input(1)) || !splat(n.input(2)))
    return false;
  const std::size_t last = mask->type.shape.rank() - 1;
  std::vector<ir::Node*> choices;
  if (!(mask->type.shape[last] == out->type.shape[last]) || !is_broadcast(*out, *mask, choices) || !choices.empty())
    return w.miss(n, "what it chooses makes it larger");
  ir::Value* inputs[] = {mask, nullptr, nullptr};
  for (const std::size_t i : {1, 2})
    inputs[i] = w.constant(*n.graph(), n.input(i)->name,
                           number_tensor(n.input(i)->constant->dtype(), *splat(n.input(i))));
  ir::Node* made = w.add("Where", inputs, *out, n);
  made->output(0)->name = w.model().new_name("mask");
  made->output(0)->type.shape = mask->type.shape;
  made->output(0)->declared.reset();
  for (const ir::Use* u : out->uses()) w.set_input(*u->user, u->index, made->output(0));
  return true;
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
      {.name = "gather-flat-by-place",
       .what = "the same in a row, by one number each",
       .apply = gather_flat_by_place,
       .ops = {"Gather"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "gather-by-strides",
       .what = "all elements, taken by the strides that they have anyway",
       .apply = gather_by_strides,
       .ops = {"Gather"},
       .in_conversion = true},
      {.name = "add-ones",
       .what = "Reshapes in a row that only put in dimensions of 1",
       .apply = add_ones,
       .ops = {"Reshape"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "shrink-choice",
       .what = "Where of two numbers as large as its mask, in masks of attention",
       .apply = shrink_choice,
       .ops = {"Where"},
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
