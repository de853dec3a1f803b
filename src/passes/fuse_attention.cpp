// Attention in its matrix products, for torch's own function.
//
// The forms differ in where they scale (the queries, the keys, both by the root, or the scores), in
// how they transpose the keys, in how they say what is hidden (a number that is added, or chosen
// instead of the score), and in whether they turn what is not a number into zeros: the function
// does that for a query all of whose keys are hidden, where arithmetic alone gives no number.
#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "passes/masks.h"
#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

using ir::Dim;
using ir::Dims;
using ir::Shape;

bool has_rank(const ir::Value* v) {
  return v != nullptr && v->type.is_tensor() && v->type.shape.has_rank();
}

/// A dimension counted from the last, which is 1.
const Dim& from_last(const ir::Value* v, std::size_t i) {
  return v->type.shape[v->type.shape.rank() - i];
}

/// `v` as a scale and what it scales.
WithNumber unscaled(ir::Value* v) {
  if (v->producer() != nullptr && v->has_one_use()) {
    const auto p = product_of(*v->producer());
    if (p && p->count == 1 && same_type(p->factors[0], v)) return {p->factors[0], p->scale};
  }
  return {v, 1.0};
}

/// What softmax's probabilities are, with what is not a number as zeros or not.
struct Probabilities {
  ir::Node* softmax = nullptr;
  bool guarded = false;
};

// Where(IsNaN(p), 0, p)
Probabilities probabilities(const ir::Value* v) {
  if (ir::Node* softmax = sole_producer(v, "Softmax")) return {softmax, false};
  const ir::Node* where = sole_producer(v, "Where");
  if (where == nullptr || splat(where->input(1)) != 0.0) return {};
  const ir::Value* p = where->input(2);
  const ir::Node* is_nan = sole_producer(where->input(0), "IsNaN");
  if (p == nullptr || is_nan == nullptr || is_nan->input(0) != p || p->uses().size() != 2)
    return {};
  ir::Node* softmax = producer_of(p, "Softmax");
  return softmax != nullptr && same_type(p, v) ? Probabilities{softmax, true} : Probabilities{};
}

/// What the scores go through before softmax, the last first.
struct Mask {
  ir::Value* added = nullptr;  // numbers that are added
  // Or a number that is there instead, where `condition` is as `hidden` says.
  ir::Value* condition = nullptr;
  bool hidden = false;
  double number = 0.0;
  ir::Value* fill = nullptr;
};

struct Scores {
  ir::Value* product = nullptr;  // scaled
  std::array<Mask, 3> masks;
  std::size_t mask_count = 0;
};

bool leads_to_product(const ir::Value* v, int depth = 0) {
  constexpr int kDeepest = 6;
  const ir::Node* n = v != nullptr ? v->producer() : nullptr;
  if (n == nullptr || !v->has_one_use() || depth > kDeepest) return false;
  if (n->is("MatMul")) return true;
  if (n->is("Mul") || n->is("Add"))
    return leads_to_product(n->input(0), depth + 1) || leads_to_product(n->input(1), depth + 1);
  if (n->is("Div")) return leads_to_product(n->input(0), depth + 1);
  return n->is("Where") && (leads_to_product(n->input(1), depth + 1) ||
                            leads_to_product(n->input(2), depth + 1));
}

/// Whether the mask is the beginning of a larger one, of the scores' own size wherever it fits.
bool is_sliced_for(const ir::Value* mask, const ir::Value* scores) {
  if (!has_rank(mask) || !has_rank(scores) || mask->type.shape.rank() < 2 ||
      mask->type.shape.rank() > scores->type.shape.rank())
    return false;
  for (std::size_t i = 3; i <= mask->type.shape.rank(); ++i)
    if (!(from_last(mask, i) == Dim(1)) && !(from_last(mask, i) == from_last(scores, i)))
      return false;
  return has_length(mask, 1, from_last(scores, 1)) && has_length(mask, 2, from_last(scores, 2));
}

/// Whether scores keep all their axes with `v`, but for that of the keys perhaps: with another number of
/// keys they have no product with the values, of which there are as many as keys.
bool widens_keys_at_most(const ir::Value* v, const ir::Value* scores) {
  if (!has_rank(v) || !has_rank(scores) || v->type.shape.rank() > scores->type.shape.rank())
    return false;
  for (std::size_t i = 2; i <= v->type.shape.rank(); ++i)
    if (!(from_last(v, i) == Dim(1)) && !(from_last(v, i) == from_last(scores, i))) return false;
  return true;
}

std::optional<Scores> scores_of(ir::Value* v) {
  Scores s;
  for (;;) {
    const ir::Node* n = v->has_one_use() ? v->producer() : nullptr;
    if (n == nullptr || (!n->is("Add") && !n->is("Where"))) break;
    if (s.mask_count == s.masks.size()) return std::nullopt;
    Mask mask;
    ir::Value* inner = nullptr;
    if (n->is("Add")) {
      const bool first = leads_to_product(n->input(0));
      if (first == leads_to_product(n->input(1))) return std::nullopt;
      inner = n->input(first ? 0 : 1);
      mask.added = n->input(first ? 1 : 0);
    } else {
      const std::size_t filled = splat(n->input(1)) ? 1 : 2;
      const auto number = splat(n->input(filled));
      inner = n->input(3 - filled);
      if (!number) return std::nullopt;
      mask = {.condition = n->input(0),
              .hidden = filled == 1,
              .number = *number,
              .fill = n->input(filled)};
    }
    // A mask that makes them more than they are is none.
    const ir::Value* with = mask.added != nullptr ? mask.added : mask.condition;
    if (inner == nullptr) return std::nullopt;
    const bool fits = widens_keys_at_most(with, inner) || is_sliced_for(with, inner);
    const bool is_filled = mask.fill == nullptr || widens_keys_at_most(mask.fill, inner);
    if (!same_type(inner, v) && !(fits && is_filled)) return std::nullopt;
    s.masks[s.mask_count++] = mask;
    v = inner;
  }
  s.product = v;
  return s;
}

/// Keys, of which products take the transpose: `x` with its axes moved so, or as it is.
struct Keys {
  ir::Value* x = nullptr;
  Ints perm;
  Dims dims;  // or reshaped so
  bool as_they_are() const { return perm.empty() && dims.empty(); }
};

Dims swapped(const ir::Value* v) {
  Dims dims = v->type.shape.dims();
  std::swap(dims[dims.size() - 2], dims[dims.size() - 1]);
  return dims;
}

/// What `v` has with the last two axes the other way round; null where it does not come from
/// transposing.
Keys untransposed(const ir::Value* v) {
  if (!v->has_one_use()) return {};
  const std::size_t rank = v->type.shape.rank();
  if (ir::Node* transpose = producer_of(v, "Transpose")) {
    auto perm = ints_of(*transpose, "perm", transpose->input_count());
    if (!perm || perm->size() != rank) return {};
    std::swap((*perm)[rank - 2], (*perm)[rank - 1]);
    if (std::is_sorted(perm->begin(), perm->end())) perm->clear();
    return {transpose->input(0), *perm, {}};
  }
  // Reshape(Transpose(Reshape(k, [-1, s, e]), [0, 2, 1]), [b, h, e, s])
  const ir::Node* outer = producer_of(v, "Reshape");
  const ir::Node* transpose = outer != nullptr ? sole_producer(outer->input(0), "Transpose") : nullptr;
  const ir::Node* inner =
      transpose != nullptr ? sole_producer(transpose->input(0), "Reshape") : nullptr;
  if (inner == nullptr || ints_of(*transpose, "perm", 1) != Ints{0, 2, 1}) return {};
  ir::Value* keys = inner->input(0);
  const ir::Value* matrices = inner->output(0);
  if (!has_rank(keys) || !has_rank(matrices) || matrices->type.shape.rank() != 3 ||
      keys->type.shape.rank() < rank || !(from_last(keys, 1) == from_last(matrices, 1)) ||
      !(from_last(keys, 2) == from_last(matrices, 2)) || !(from_last(keys, 1) == from_last(v, 2)) ||
      !(from_last(keys, 2) == from_last(v, 1)))
    return {};
  bool same = keys->type.shape.rank() == rank;
  for (std::size_t i = 0; same && i + 2 < rank; ++i)
    same = keys->type.shape[i] == v->type.shape[i];
  return same ? Keys{keys, {}, {}} : Keys{keys, {}, swapped(v)};
}

/// The keys that `transposed` has the transpose of, by a node of their own.
ir::Value* moved(Rewriter& w, const Keys& keys, const ir::Value* transposed, ir::Node& before) {
  const ir::Type type = ir::Type::tensor(transposed->type.dtype, Shape(swapped(transposed)));
  if (const auto sizes = Shape(keys.dims).constant(); sizes && !keys.dims.empty()) {
    ir::Value* shape = w.constant(*before.graph(), "shape", ir::Tensor::ints(*sizes));
    ir::Value* const inputs[] = {keys.x, shape};
    return w.add_new("Reshape", inputs, "keys", type, before.opset, before)->output(0);
  }
  ir::Value* const source[] = {keys.x};
  ir::Node* made = w.add_new("Transpose", source, "keys", type, before.opset, before);
  set_attr(*made, "perm", keys.perm);
  return made->output(0);
}

/// [b, h, s, e], where `v` is [b, h * n, s, e] with each head n times in a row.
// Reshape(Expand(Unsqueeze(x, 2), [b, h, n, s, e]), [b, h * n, s, e])
ir::Value* unrepeated(const ir::Value* v) {
  const ir::Node* reshape = producer_of(v, "Reshape");
  const ir::Node* expand = reshape != nullptr ? producer_of(reshape->input(0), "Expand") : nullptr;
  const ir::Node* unsqueeze =
      expand != nullptr ? producer_of(expand->input(0), "Unsqueeze") : nullptr;
  if (unsqueeze == nullptr || ints_of(*unsqueeze, "axes", 1) != Ints{2}) return nullptr;
  ir::Value* x = unsqueeze->input(0);
  const ir::Value* many = expand->output(0);
  if (!has_rank(x) || x->type.shape.rank() != 4 || !has_rank(many) ||
      many->type.shape.rank() != 5 || v->type.shape.rank() != 4)
    return nullptr;
  const Shape& from = x->type.shape;
  const Shape& each = many->type.shape;
  const Shape& to = v->type.shape;
  const bool same = each[0] == from[0] && each[1] == from[1] && each[3] == from[2] &&
                    each[4] == from[3] && to[0] == from[0] && to[1] == from[1] * each[2] &&
                    to[2] == from[2] && to[3] == from[3];
  return same ? x : nullptr;
}

/// A place right behind what makes `v`: what is made there, all that use `v` find.
ir::Node* behind(const ir::Value* v, ir::Node& otherwise) {
  if (v->producer() != nullptr && v->producer()->graph() == otherwise.graph())
    return v->producer()->next() != nullptr ? v->producer()->next() : &otherwise;
  return otherwise.graph()->first();
}

/// A node that uses `v` first of all its inputs already and computes the same, or null.
template <typename Same>
ir::Value* found_behind(const ir::Value* v, const ir::Node& n, std::string_view op_type,
                        Same&& same) {
  for (const ir::Use* u = v->first_use(); u != nullptr; u = u->next)
    if (u->index == 0 && u->user->graph() == n.graph() && u->user->is(op_type) && same(*u->user))
      return u->user->output(0);
  return nullptr;
}

/// A mask of truth values the other way round, made once for all that need it.
ir::Value* negated(Rewriter& w, ir::Value* v, ir::Node& n) {
  if (const ir::Node* twice = producer_of(v, "Not")) return twice->input(0);
  if (ir::Value* there = found_behind(v, n, "Not", [](const ir::Node&) { return true; }))
    if (there->name.rfind("seen", 0) == 0) return there;
  ir::Value* const inputs[] = {v};
  return w.add_new("Not", inputs, "seen", v->type, n.opset, *behind(v, n))->output(0);
}

/// 0 where `condition` lets through, and its number elsewhere; once for all.
ir::Value* as_numbers(Rewriter& w, const Mask& mask, ir::DType t, ir::Node& n) {
  const std::size_t zero_at = mask.hidden ? 2 : 1;
  const auto same = [&](const ir::Node& where) {
    return splat(where.input(zero_at)) == 0.0 && splat(where.input(3 - zero_at)) == mask.number &&
           where.output(0)->type.dtype == t && where.output(0)->name.rfind("hidden", 0) == 0;
  };
  if (ir::Value* there = found_behind(mask.condition, n, "Where", same)) return there;
  ir::Graph& g = *n.graph();
  ir::Value* zero = w.constant(g, "zero", number_tensor(t, 0.0));
  ir::Value* number = w.constant(g, "hidden", number_tensor(t, mask.number));
  std::array<ir::Value*, 3> inputs = {mask.condition, zero, number};
  if (mask.hidden) std::swap(inputs[1], inputs[2]);
  constexpr std::int64_t kAnyType = 16;
  return w.add_new("Where", inputs, "hidden", ir::Type::tensor(t, mask.condition->type.shape),
                   std::max(n.opset, kAnyType), *behind(mask.condition, n))
      ->output(0);
}

/// What the function gets for the masks.
struct Masking {
  ir::Value* mask = nullptr;
  bool is_causal = false;
};

/// Whether the mask has a place for each score of a query, or a number of places that is not known, which
/// is right then or 1; for all heads, perhaps.
bool fits(const ir::Value* mask, const ir::Value* scores, bool each_query) {
  return has_rank(mask) && mask->type.shape.rank() >= 2 &&
         mask->type.shape.rank() <= scores->type.shape.rank() &&
         (has_length(mask, 1, from_last(scores, 1)) ||
          (!each_query && !from_last(mask, 1).is_const())) &&
         (!each_query || has_length(mask, 2, from_last(scores, 2)));
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool is_causal(const Mask& m, const ir::Value* scores) {
  constexpr double kFar = -1e4;
  if (m.added != nullptr) return fits(m.added, scores, true) && hides_later_keys(m.added);
  const Triangle t = triangle_of(m.condition);
  return fits(m.condition, scores, true) && m.number <= kFar &&
         t == (m.hidden ? Triangle::Hidden : Triangle::Seen);
}

/// A mask of truth values that says the same as `m`, which hides by minus infinity.
std::optional<Mask> of_infinities(const Mask& m) {
  if (m.condition != nullptr) return m.number == -kInfinity ? std::optional(m) : std::nullopt;
  const ir::Node* where = producer_of(m.added, "Where");
  if (where == nullptr) return std::nullopt;
  for (const std::size_t hidden : {std::size_t{1}, std::size_t{2}})
    if (splat(where->input(hidden)) == -kInfinity && splat(where->input(3 - hidden)) == 0.0 &&
        has_rank(where->input(0)) && has_rank(m.added) &&
        where->input(0)->type.shape.same(m.added->type.shape))
      return Mask{.condition = where->input(0), .hidden = hidden == 1, .number = -kInfinity};
  return std::nullopt;
}

/// Says the masks in the function's own terms; nothing where they say more.
std::optional<Masking> masking(Rewriter& w, const Scores& s, bool guarded, ir::Node& n) {
  if (s.mask_count == 0) return Masking{};
  const ir::Value* scores = s.product;
  if (s.mask_count == 1 && is_causal(s.masks[0], scores)) return Masking{.is_causal = true};
  for (std::size_t i = 0; i < s.mask_count; ++i) {
    const Mask& m = s.masks[i];
    if (!fits(m.added != nullptr ? m.added : m.condition, scores, false)) {
      w.miss(n, "the mask has no place for each key");
      return std::nullopt;
    }
  }
  if (guarded && s.mask_count == 1)
    if (const auto hidden = of_infinities(s.masks[0]); hidden && fits(hidden->condition, scores, false))
      return Masking{.mask = hidden->hidden ? negated(w, hidden->condition, n) : hidden->condition};
  constexpr double kAbsorbs = -1e30;  // no score is left of what this is added to
  for (std::size_t i = 0; i < s.mask_count; ++i) {
    const Mask& m = s.masks[i];
    const bool infinite =
        m.added != nullptr ? may_hide_all_keys(m.added) : m.number == -kInfinity;
    if (infinite && !guarded && !is_causal(m, scores)) {
      w.miss(n, "a mask that takes away all keys would give zeros and not NaN");
      return std::nullopt;
    }
    if (m.condition != nullptr && m.number > kAbsorbs) {
      w.miss(n, "a mask of {} leaves something of the scores that it hides", m.number);
      return std::nullopt;
    }
  }
  const ir::DType t = scores->type.dtype;
  for (std::size_t i = 0; i < s.mask_count; ++i)
    if (s.masks[i].added != nullptr && s.masks[i].added->type.dtype != t) return std::nullopt;
  ir::Value* sum = nullptr;
  for (std::size_t i = s.mask_count; i-- > 0;) {
    const Mask& m = s.masks[i];
    ir::Value* numbers = m.added != nullptr ? m.added : as_numbers(w, m, t, n);
    if (sum == nullptr) {
      sum = numbers;
      continue;
    }
    ir::Value* const both[] = {sum, numbers};
    const Shape shape = ops::broadcast(sum->type.shape, numbers->type.shape);
    sum = w.add_new("Add", both, "mask", ir::Type::tensor(t, shape), n.opset, n)->output(0);
  }
  return Masking{.mask = sum};
}

// MatMul(Softmax(Mul(MatMul(q, Transpose(k)), 0.125) + mask), v)
//   =>   ScaledDotProductAttention(q, k, v, mask)
bool fuse_attention(Rewriter& w, ir::Node& n) {
  const Probabilities p = probabilities(n.input(0));
  ir::Value* v = n.input(1);
  if (p.softmax == nullptr || !has_rank(v) || !has_rank(p.softmax->input(0))) return false;
  const ir::DType t = v->type.dtype;
  if (t != ir::DType::Float32 && t != ir::DType::Float64) return false;
  const std::size_t rank = v->type.shape.rank();
  if (rank < 3 || rank > 4 || p.softmax->input(0)->type.shape.rank() != rank) return false;
  const std::int64_t axis = attr_int(*p.softmax, "axis", p.softmax->opset < 13 ? 1 : -1);
  if (axis != -1 && axis != static_cast<std::int64_t>(rank) - 1) return false;
  const auto found = scores_of(p.softmax->input(0));
  if (!found || !found->product->has_one_use()) return false;
  const WithNumber scores = unscaled(found->product);
  const ir::Node* product = sole_producer(scores.x, "MatMul");
  if (product == nullptr || !has_rank(product->input(0)) || !has_rank(product->input(1)) ||
      product->input(0)->type.shape.rank() != rank || product->input(1)->type.shape.rank() != rank)
    return false;
  const WithNumber q = unscaled(product->input(0));
  const WithNumber turned = unscaled(product->input(1));
  const Keys keys = untransposed(turned.x);
  if (keys.x == nullptr || (!keys.dims.empty() && !Shape(keys.dims).constant()))
    return w.miss(n, "the keys are not transposed");
  const WithNumber k = keys.as_they_are() ? unscaled(keys.x) : WithNumber{nullptr, 1.0};
  for (std::size_t i = 0; i + 2 < rank; ++i)
    if (!(q.x->type.shape[i] == turned.x->type.shape[i]) || !(q.x->type.shape[i] == v->type.shape[i]))
      return w.miss(n, "the numbers of heads or sizes are not known to agree");
  if (!(from_last(turned.x, 1) == from_last(v, 2)) ||
      !(from_last(q.x, 1) == from_last(turned.x, 2)))
    return w.miss(n, "the numbers of keys or sizes are not known to agree");
  const auto masks = masking(w, *found, p.guarded, n);
  if (!masks) return false;
  ir::Value* all_keys = k.x != nullptr ? k.x : moved(w, keys, turned.x, *turned.x->producer());
  ir::Value* few_keys = unrepeated(all_keys);
  ir::Value* few_values = few_keys != nullptr ? unrepeated(v) : nullptr;
  const bool grouped =
      few_values != nullptr && few_keys->type.shape[1] == few_values->type.shape[1];
  std::vector<ir::Value*> inputs = {q.x, grouped ? few_keys : all_keys, grouped ? few_values : v};
  if (masks->mask != nullptr) inputs.push_back(masks->mask);
  ir::Value* const like[] = {n.output(0)};
  ir::Node* made = w.add_torch("ScaledDotProductAttention", inputs, like, n);
  const double scale = scores.number * q.number * turned.number * k.number;
  const Dim& size = from_last(q.x, 1);
  if (!size.is_const() ||
      !is_about(scale * scale * static_cast<double>(size.value()), 1.0, ir::DType::Float32))
    set_attr(*made, "scale", scale);
  if (masks->is_causal) set_attr(*made, "is_causal", std::int64_t{1});
  if (grouped) set_attr(*made, "enable_gqa", std::int64_t{1});
  w.replace(n.output(0), made->output(0));
  return true;
}

}  // namespace

std::span<const Rule> attention_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-attention",
       .what = "attention, its masks and grouped heads, for torch",
       .apply = fuse_attention,
       .ops = {"MatMul"},
       .in_conversion = true,
       .conversion_only = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
