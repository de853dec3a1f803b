// One element taken out of a dimension.
#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// An axis counted from the first, of `v`'s rank; nothing where that is needed and not known.
std::optional<std::int64_t> axis_of(std::int64_t axis, const ir::Value* v) {
  if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank())
    return axis >= 0 ? std::optional(axis) : std::nullopt;
  const auto rank = static_cast<std::int64_t>(v->type.shape.rank());
  // A node of its neighbours may be unsound, and mean an axis that is not there.
  if (axis < -rank || axis >= rank) return std::nullopt;
  return axis < 0 ? axis + rank : axis;
}

/// The index of the only element that a Slice takes along one axis, all others being whole, and that
/// axis.
struct Taken {
  std::int64_t index, axis;
};
std::optional<Taken> taken_by(const ir::Node& n) {
  const auto starts = ints_of(n, "starts", 1);
  const auto ends = ints_of(n, "ends", 2);
  const auto axes = ints_of(n, "axes", 3);
  if (!starts || !ends || starts->size() != ends->size()) return std::nullopt;
  if (axes ? axes->size() != starts->size() : n.input(3) != nullptr) return std::nullopt;
  if (n.input(4) != nullptr && const_ints(n.input(4)) != Ints(starts->size(), 1))
    return std::nullopt;
  constexpr std::int64_t kToTheEnd = INT32_MAX;  // exporters write this, or more
  std::optional<Taken> taken;
  for (std::size_t i = 0; i < starts->size(); ++i) {
    const std::int64_t start = (*starts)[i];
    const std::int64_t end = (*ends)[i];
    if (start == 0 && end >= kToTheEnd) continue;
    const auto axis = axis_of(axes ? (*axes)[i] : static_cast<std::int64_t>(i), n.input(0));
    if (taken || !axis || (end != start + 1 && !(start == -1 && end >= kToTheEnd)))
      return std::nullopt;
    if (start == -1 && end == 0) return std::nullopt;  // takes nothing
    // Negative indices have a meaning in Gather since opset 11.
    if (start < 0 && n.opset < 11) return std::nullopt;
    taken = Taken{start, *axis};
  }
  return taken;
}

/// Runtimes gather piece by piece: many small ones take longer than Slice does.
bool has_many_small_pieces(const ir::Value& x, std::int64_t axis) {
  constexpr std::int64_t kFew = 256;
  constexpr std::int64_t kLarge = 16;  // elements
  if (!x.type.shape.has_rank()) return true;
  const auto product = [&](std::size_t from, std::size_t to, std::int64_t most) {
    std::int64_t out = 1;
    for (std::size_t i = from; i < to && out <= most; ++i) {
      const ir::Dim& d = x.type.shape[i];
      if (!d.is_const()) return std::int64_t{-1};
      out *= std::min(d.value(), most + 1);
    }
    return out;
  };
  const auto at = static_cast<std::size_t>(axis);
  const std::int64_t count = product(0, at, kFew);
  return (count < 0 || count > kFew) && product(at + 1, x.type.shape.rank(), kLarge) < kLarge;
}

// Squeeze(Slice(x)[2:3])   =>   Gather(x, 2)
bool take_one(Rewriter& w, ir::Node& n) {
  const ir::Node* slice = sole_producer(n.input(0), "Slice");
  if (slice == nullptr || slice->input(0) == nullptr) return false;
  // A dimension that comes back is better left out of it.
  if (sole_user(n.output(0), "Unsqueeze") != nullptr) return false;
  const auto taken = taken_by(*slice);
  const auto axes = ints_of(n, "axes", 1);
  if (!taken || !axes || axes->size() != 1 ||
      axis_of(axes->front(), n.input(0)) != std::optional(taken->axis))
    return false;
  if (!w.options().any_opset && has_many_small_pieces(*slice->input(0), taken->axis))
    return w.miss(n, "runtimes slice faster than they gather many small pieces");
  ir::Value* index =
      w.constant(*n.graph(), n.output(0)->name + "_index", ir::Tensor::scalar(taken->index));
  const std::vector<ir::Value*> inputs = {slice->input(0), index};
  ir::Node* gather = w.add("Gather", inputs, *n.output(0), n);
  set_attr(*gather, "axis", taken->axis);
  w.replace(n.output(0), gather->output(0));
  return true;
}

// Unsqueeze(Gather(x, 2))   =>   Gather(x, {2})
bool take_one_kept(Rewriter& w, ir::Node& n) {
  ir::Node* gather = sole_producer(n.input(0), "Gather");
  if (gather == nullptr || gather->input(0) == nullptr || gather->graph() != n.graph())
    return false;
  // Runtimes know how shapes are computed by these three.
  if (producer_of(gather->input(0), "Shape") != nullptr) return false;
  const ir::Value* index = gather->input(1);
  if (index == nullptr || !index->constant || index->constant->rank() != 0) return false;
  const auto at = const_ints(index);
  const auto axes = ints_of(n, "axes", 1);
  const auto axis = axis_of(attr_int(*gather, "axis", 0), gather->input(0));
  if (!at || !axis || !axes || axes->size() != 1 ||
      axis_of(axes->front(), n.output(0)) != axis)
    return false;
  const std::vector<ir::Value*> inputs = {
      gather->input(0), w.constant(*n.graph(), index->name, ir::Tensor::ints(*at))};
  ir::Node* kept = w.add("Gather", inputs, *n.output(0), n);
  set_attr(*kept, "axis", *axis);
  w.replace(n.output(0), kept->output(0));
  return true;
}

}  // namespace

std::span<const Rule> indexing_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "take-one",
       .what = "Slice of one element and Squeeze as Gather",
       .apply = take_one,
       .ops = {"Squeeze"}},
      {.name = "take-one-kept",
       .what = "Gather of one element and Unsqueeze as Gather",
       .apply = take_one_kept,
       .ops = {"Unsqueeze"}},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
