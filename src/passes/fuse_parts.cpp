// Parts of a tensor that are taken one by one, for torch's functions that give all of them.
#include <algorithm>
#include <limits>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// Where one Slice with constants, along one axis and by ones, begins and ends; counted from the
/// first where the size is known, and else as given.
struct Cut {
  std::int64_t axis = 0;
  std::int64_t start = 0;
  std::optional<std::int64_t> end;  // none: all that is left
};

std::optional<Cut> cut_of(const ir::Node& n) {
  constexpr std::int64_t kInputs = 10;
  const ir::Value* x = n.input(0);
  if (!n.is("Slice") || n.opset < kInputs || x == nullptr || !x->type.shape.has_rank())
    return std::nullopt;
  const auto starts = const_ints(n.input(1));
  const auto ends = const_ints(n.input(2));
  const auto axes = n.input(3) != nullptr ? const_ints(n.input(3)) : std::optional(Ints{0});
  const auto steps = n.input(4) != nullptr ? const_ints(n.input(4)) : std::optional(Ints{1});
  if (!starts || !ends || !axes || !steps || starts->size() != 1 || ends->size() != 1 ||
      axes->size() != 1 || *steps != Ints{1})
    return std::nullopt;
  const auto counted = counted_axes(*axes, x);
  if (!counted) return std::nullopt;
  Cut cut{counted->front(), starts->front(), ends->front()};
  const ir::Dim& size = x->type.shape[static_cast<std::size_t>(cut.axis)];
  if (size.is_const()) {
    const auto count = [&](std::int64_t at) {
      return std::clamp<std::int64_t>(at < 0 ? at + size.value() : at, 0, size.value());
    };
    return Cut{cut.axis, count(cut.start), count(*cut.end)};
  }
  constexpr std::int64_t kFar = std::numeric_limits<std::int32_t>::max();
  if (*cut.end >= kFar) cut.end.reset();
  return cut;
}

// Slices of x that are all its parts along an axis, each used   =>   Split(x)
bool fuse_slices(Rewriter& w, ir::Node& n) {
  const auto first = cut_of(n);
  if (!first || first->start != 0 || !first->end) return false;
  ir::Value* x = n.input(0);
  const ir::Dim& size = x->type.shape[static_cast<std::size_t>(first->axis)];
  if (!size.is_const()) return false;
  constexpr std::size_t kMost = 16;
  std::vector<std::pair<Cut, ir::Node*>> cuts;
  std::size_t users = 0;
  for (const ir::Use* u = x->first_use(); u != nullptr; u = u->next) {
    if (++users > 2 * kMost) return false;
    if (u->index != 0 || u->user->graph() != n.graph()) continue;
    const auto cut = cut_of(*u->user);
    if (!cut || cut->axis != first->axis) continue;
    if (cut->start >= *cut->end || !u->user->output(0)->has_uses()) return false;
    cuts.emplace_back(*cut, u->user);
  }
  if (cuts.size() < 2 || cuts.size() > kMost) return false;
  std::sort(cuts.begin(), cuts.end(),
            [](const auto& a, const auto& b) { return a.first.start < b.first.start; });
  Ints sizes;
  std::int64_t at = 0;
  for (const auto& [cut, node] : cuts) {
    if (cut.start != at) return w.miss(n, "the slices leave something out, or overlap");
    at = *cut.end;
    sizes.push_back(at - cut.start);
  }
  if (at != size.value()) return w.miss(n, "the slices leave something out");
  // All are made where the first of them was, which is behind what they are taken from.
  ir::Node* before = nullptr;
  for (ir::Node* at_node = n.graph()->first(); at_node != nullptr && before == nullptr;
       at_node = at_node->next())
    for (const auto& [cut, node] : cuts)
      if (node == at_node) before = at_node;
  std::vector<ir::Value*> parts;
  for (const auto& [cut, node] : cuts) parts.push_back(node->output(0));
  ir::Value* const inputs[] = {
      x, w.constant(*n.graph(), "sizes", ir::Tensor::ints(sizes))};
  ir::Node* split = w.add_many("Split", inputs, parts, *before);
  set_attr(*split, "axis", first->axis);
  for (std::size_t i = 0; i < parts.size(); ++i) w.replace(parts[i], split->output(i));
  // Who looks at the users of x sees the Split alone.
  for (const auto& [cut, node] : cuts) w.erase(*node);
  return true;
}

/// Whether `n` drops just that axis of its input.
bool drops(const ir::Node& n, std::int64_t axis) {
  if (!n.is("Squeeze") || n.input(0) == nullptr) return false;
  const auto axes = ints_of(n, "axes", 1);
  return axes && axes->size() == 1 && counted_axes(*axes, n.input(0)) == Ints{axis};
}

/// The values of x at 0, 1, 2, ... along an axis, where each is there once and in no other way.
struct Elements {
  std::int64_t axis = 0;
  std::vector<ir::Value*> values;
};

/// Of a Split into ones, each of which is then squeezed.
std::optional<Elements> split_elements(const ir::Node& n) {
  const ir::Value* x = n.input(0);
  if (!n.is("Split") || x == nullptr || !x->type.shape.has_rank()) return std::nullopt;
  const auto axis = counted_axes({attr_int(n, "axis", 0)}, x);
  if (!axis) return std::nullopt;
  Elements out{axis->front(), {}};
  for (const ir::Value* part : n.outputs()) {
    if (part == nullptr || !part->has_one_use() || !part->type.shape.has_rank() ||
        !(part->type.shape[static_cast<std::size_t>(out.axis)] == ir::Dim(1)))
      return std::nullopt;
    const ir::Node* squeeze = part->first_use()->user;
    if (!drops(*squeeze, out.axis) || squeeze->graph() != n.graph()) return std::nullopt;
    out.values.push_back(squeeze->output(0));
  }
  return out;
}

/// Of several Gathers by one number each.
std::optional<Elements> gathered_elements(const ir::Node& n) {
  const ir::Value* x = n.input(0);
  if (!n.is("Gather") || x == nullptr || x->constant || !x->type.shape.has_rank())
    return std::nullopt;
  const auto axis = counted_axes({attr_int(n, "axis", 0)}, x);
  if (!axis) return std::nullopt;
  const ir::Dim& size = x->type.shape[static_cast<std::size_t>(axis->front())];
  constexpr std::int64_t kMost = 8;
  if (!size.is_const() || size.value() < 2 || size.value() > kMost) return std::nullopt;
  Elements out{axis->front(), std::vector<ir::Value*>(static_cast<std::size_t>(size.value()))};
  std::size_t users = 0;
  for (const ir::Use* u = x->first_use(); u != nullptr; u = u->next) {
    const ir::Node& user = *u->user;
    const ir::Value* index = user.input(1);
    if (++users > out.values.size() || u->index != 0 || !user.is("Gather") ||
        user.graph() != n.graph() || index == nullptr || !index->constant ||
        index->constant->rank() != 0 || counted_axes({attr_int(user, "axis", 0)}, x) != *axis)
      return std::nullopt;
    const auto at = const_ints(index);
    if (!at || at->front() < -size.value() || at->front() >= size.value()) return std::nullopt;
    const auto place =
        static_cast<std::size_t>(at->front() < 0 ? at->front() + size.value() : at->front());
    if (out.values[place] != nullptr) return std::nullopt;
    out.values[place] = user.output(0);
  }
  return users == out.values.size() ? std::optional(out) : std::nullopt;
}

// Squeeze of each part of Split(x); Gather(x, 0), Gather(x, 1), Gather(x, 2)   =>   Unbind(x)
bool fuse_unbind(Rewriter& w, ir::Node& n) {
  const auto found = n.is("Split") ? split_elements(n) : gathered_elements(n);
  if (!found || found->values.size() < 2) return false;
  const ir::Value* x = n.input(0);
  if (!x->type.is_tensor() || x->type.dtype == ir::DType::String) return false;
  if (x->contents || found->values.front()->contents) return false;  // sizes are Python's integers
  ir::Node* before = &n;
  if (n.is("Gather"))
    for (ir::Node* at = n.prev(); at != nullptr && at != x->producer(); at = at->prev())
      for (const ir::Value* v : found->values)
        if (v->producer() == at) before = at;
  ir::Value* const inputs[] = {n.input(0)};
  ir::Node* made = w.add_torch("Unbind", inputs, found->values, *before);
  set_attr(*made, "axis", found->axis);
  for (std::size_t i = 0; i < found->values.size(); ++i)
    w.replace(found->values[i], made->output(i));
  return true;
}

/// x and by how much it is turned along an axis, where `n` joins its end and its beginning.
struct Turn {
  ir::Value* x = nullptr;
  std::int64_t axis = 0;
  std::int64_t shift = 0;
};

/// `begin` elements of `size` go to the end: backwards, or forwards where that is the shorter way,
/// which is how it will have been said.
std::int64_t shorter(std::int64_t begin, std::int64_t size) {
  return begin <= size - begin ? -begin : size - begin;
}

std::optional<Turn> turn_of(const ir::Node& n) {
  if (n.input_count() != 2 || n.output(0) == nullptr) return std::nullopt;
  const auto axis = counted_axes({attr_int(n, "axis", 0)}, n.output(0));
  if (!axis) return std::nullopt;
  ir::Value* x = nullptr;
  const ir::Value* a = n.input(0);
  const ir::Value* b = n.input(1);
  if (a == nullptr || b == nullptr || !a->has_one_use() || !b->has_one_use()) return std::nullopt;
  const ir::Node* split = producer_of(a, "Split");
  if (split != nullptr && split == b->producer()) {
    if (split->output_count() != 2 || a != split->output(1) || !a->type.shape.has_rank() ||
        counted_axes({attr_int(*split, "axis", 0)}, a) != *axis)
      return std::nullopt;
    const ir::Dim& size = a->type.shape[static_cast<std::size_t>(axis->front())];
    if (!size.is_const()) return std::nullopt;
    const ir::Dim& other = b->type.shape[static_cast<std::size_t>(axis->front())];
    if (!other.is_const()) return std::nullopt;
    return Turn{split->input(0), axis->front(),
                shorter(other.value(), other.value() + size.value())};
  }
  if (a->producer() == nullptr || b->producer() == nullptr) return std::nullopt;
  const auto last = cut_of(*a->producer());
  const auto first = cut_of(*b->producer());
  x = a->producer()->input(0);
  if (!last || !first || x != b->producer()->input(0) || last->axis != axis->front() ||
      first->axis != axis->front() || first->start != 0 || !first->end ||
      last->start != *first->end)
    return std::nullopt;
  const ir::Dim& size = x->type.shape[static_cast<std::size_t>(axis->front())];
  if (last->end && !(size == ir::Dim(*last->end))) return std::nullopt;
  if (!size.is_const()) return Turn{x, axis->front(), -last->start};
  return Turn{x, axis->front(), shorter(last->start, size.value())};
}

/// The Concat that joins what `v` is cut into, where one does.
const ir::Node* turned_next(const ir::Value& v) {
  const ir::Node* cut = v.has_uses() ? v.first_use()->user : nullptr;
  if (cut == nullptr || cut->output(0) == nullptr || !cut->output(0)->has_one_use()) return nullptr;
  const ir::Node* next = cut->output(0)->first_use()->user;
  return next->is("Concat") ? next : nullptr;
}

/// Whether a Concat made `v` for one turn: for a Split, or for two slices.
bool only_turned(const ir::Value* v) {
  if (producer_of(v, "Concat") == nullptr) return false;
  const ir::Use* u = v->first_use();
  if (u == nullptr) return false;
  if (u->next == nullptr) return u->user->is("Split");
  return u->next->next == nullptr && u->user->is("Slice") && u->next->user->is("Slice");
}

// Concat(Slice(x)[2:], Slice(x)[:2])   =>   Roll(x)
bool fuse_roll(Rewriter& w, ir::Node& n) {
  const auto turn = turn_of(n);
  if (!turn || turn->shift == 0 || !turn->x->type.is_tensor() || turn->x->contents) return false;
  if (turn->x->type.dtype == ir::DType::String) return false;
  // The last of several turns takes those before it along.
  if (const ir::Node* next = turned_next(*n.output(0)); next != nullptr && turn_of(*next))
    if (only_turned(n.output(0)) && turn_of(*next)->axis != turn->axis) return false;
  Ints shifts{turn->shift};
  Ints axes{turn->axis};
  ir::Value* x = turn->x;
  // Along one axis after another is one call.
  while (only_turned(x)) {
    const auto inner = turn_of(*x->producer());
    if (!inner || std::find(axes.begin(), axes.end(), inner->axis) != axes.end()) break;
    shifts.insert(shifts.begin(), inner->shift);
    axes.insert(axes.begin(), inner->axis);
    x = inner->x;
  }
  ir::Value* const inputs[] = {x};
  ir::Value* const like[] = {n.output(0)};
  ir::Node* made = w.add_torch("Roll", inputs, like, n);
  set_attr(*made, "shifts", shifts);
  set_attr(*made, "axes", axes);
  w.replace(n.output(0), made->output(0));
  return true;
}

}  // namespace

std::span<const Rule> parts_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-roll",
       .what = "the end of a tensor before its beginning, for torch",
       .apply = fuse_roll,
       .ops = {"Concat"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "fuse-unbind",
       .what = "each element of an axis by itself, for torch",
       .apply = fuse_unbind,
       .ops = {"Split", "Gather"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "fuse-slices",
       .what = "slices that are all parts of a tensor become Split, for torch",
       .apply = fuse_slices,
       .ops = {"Slice"},
       .in_conversion = true,
       .conversion_only = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
