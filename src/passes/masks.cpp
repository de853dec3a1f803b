#include "passes/masks.h"

#include <cmath>
#include <limits>
#include <unordered_set>

#include "passes/match.h"

namespace onnx2nn::passes {
namespace {

constexpr int kDeepest = 16;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Triangle opposite(Triangle t) {
  return t == Triangle::Seen ? Triangle::Hidden : t == Triangle::Hidden ? Triangle::Seen : t;
}

/// The last two axes of a constant, all others being ones.
Triangle triangle_of_constant(const ir::Tensor& t) {
  constexpr std::int64_t kMost = 1 << 22;
  const std::size_t rank = t.rank();
  if (rank < 2 || t.size() == 0 || t.size() > kMost) return Triangle::None;
  const std::int64_t rows = t.dims()[rank - 2];
  const std::int64_t columns = t.dims()[rank - 1];
  // One row or column says nothing of the others that a slice of it would have.
  if (rows * columns != t.size() || rows < 2 || columns < 2) return Triangle::None;
  bool seen = true;
  bool hidden = true;
  for (std::int64_t i = 0; i < rows && (seen || hidden); ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const bool on = t.double_at(i * columns + j) != 0.0;
      seen = seen && on == (j <= i);
      hidden = hidden && on == (j > i);
    }
  }
  return seen ? Triangle::Seen : hidden ? Triangle::Hidden : Triangle::None;
}

bool begins_at_zero(const ir::Node& n) {
  constexpr std::int64_t kInputs = 10;
  if (n.opset < kInputs) return false;
  const auto starts = const_ints(n.input(1));
  if (!starts) return false;
  for (const std::int64_t s : *starts)
    if (s != 0) return false;
  if (n.input(4) == nullptr) return true;
  const auto steps = const_ints(n.input(4));
  if (!steps) return false;
  for (const std::int64_t s : *steps)
    if (s != 1) return false;
  return true;
}

/// The number that all of `v` is, however large.
std::optional<double> filled_with(const ir::Value* v, int depth) {
  if (v == nullptr || depth > kDeepest) return std::nullopt;
  if (const auto number = splat(v)) return number;
  const ir::Node* n = v->producer();
  if (n == nullptr) return std::nullopt;
  if (n->is("Expand")) return filled_with(n->input(0), depth + 1);
  if (!n->is("ConstantOfShape")) return std::nullopt;
  const ir::Attribute* a = n->attribute("value");
  const auto* t = a != nullptr ? std::get_if<ir::TensorPtr>(&a->data) : nullptr;
  if (t == nullptr || *t == nullptr || (*t)->size() != 1) return std::nullopt;
  return (*t)->double_at(0);
}

/// What Trilu leaves of a tensor that is one number.
Triangle triangle_of_trilu(const ir::Node& n) {
  const std::optional<double> number = filled_with(n.input(0), 0);
  if (!number || *number == 0.0) return Triangle::None;
  std::int64_t k = 0;
  if (n.input(1) != nullptr) {
    const auto given = const_ints(n.input(1));
    if (!given || given->size() != 1) return Triangle::None;
    k = given->front();
  }
  const bool upper = attr_int(n, "upper", 1) != 0;
  if (upper) return k == 1 ? Triangle::Hidden : Triangle::None;
  return k == 0 ? Triangle::Seen : Triangle::None;
}

/// 0, 1, 2, ... along one axis, that many from the last; all other axes are ones.
std::optional<std::size_t> counts_along(const ir::Value* v, int depth) {
  if (v == nullptr || depth > kDeepest || !v->type.shape.has_rank()) return std::nullopt;
  const ir::Node* n = v->producer();
  if (n == nullptr) return std::nullopt;
  if (n->is("Range")) {
    if (splat(n->input(0)) == 0.0 && splat(n->input(2)) == 1.0) return 0;
    return std::nullopt;
  }
  if (n->is("Cast")) return counts_along(n->input(0), depth + 1);
  if (!n->is("Unsqueeze") && !n->is("Reshape")) return std::nullopt;
  const auto before = counts_along(n->input(0), depth + 1);
  if (!before) return std::nullopt;
  const ir::Shape& from = n->input(0)->type.shape;
  const ir::Dim& length = from[from.rank() - 1 - *before];
  const ir::Shape& to = v->type.shape;
  // The only axis that is not one has to be found again.
  std::optional<std::size_t> at;
  for (std::size_t i = 0; i < to.rank(); ++i) {
    if (to[i].is_const() && to[i].value() == 1) continue;
    if (at || !(to[i] == length)) return std::nullopt;
    at = to.rank() - 1 - i;
  }
  return at;
}

/// keys <= queries and the like, of counted places.
Triangle triangle_of_comparison(const ir::Node& n) {
  const auto a = counts_along(n.input(0), 0);
  const auto b = counts_along(n.input(1), 0);
  if (!a || !b || *a > 1 || *b > 1 || *a == *b) return Triangle::None;
  const bool keys_first = *a == 0;
  if (n.is(keys_first ? "LessOrEqual" : "GreaterOrEqual")) return Triangle::Seen;
  if (n.is(keys_first ? "Greater" : "Less")) return Triangle::Hidden;
  return Triangle::None;
}

Triangle triangle(const ir::Value* v, int depth) {
  if (v == nullptr || depth > kDeepest) return Triangle::None;
  if (v->constant) return triangle_of_constant(*v->constant);
  const ir::Node* n = v->producer();
  if (n == nullptr || !n->domain.empty()) return Triangle::None;
  if (n->is("Trilu")) return triangle_of_trilu(*n);
  if (n->is("Not")) return opposite(triangle(n->input(0), depth + 1));
  if (n->is("Cast")) {
    // Whole numbers and truth values stay what they are; fractions may become 0.
    const ir::Type& from = n->input(0)->type;
    const bool whole = from.is_tensor() && !ir::is_float(from.dtype);
    if (whole || v->type.dtype == ir::DType::Bool) return triangle(n->input(0), depth + 1);
    return Triangle::None;
  }
  if (n->is("Equal")) {
    for (std::size_t i = 0; i < 2; ++i)
      if (splat(n->input(i)) == 0.0) return opposite(triangle(n->input(1 - i), depth + 1));
    return Triangle::None;
  }
  if (n->is("Slice"))
    return begins_at_zero(*n) ? triangle(n->input(0), depth + 1) : Triangle::None;
  if (n->is("Unsqueeze") || n->is("Squeeze") || n->is("Expand")) {
    // The last two axes stay the last two.
    const ir::Value* x = n->input(0);
    const ir::Shape& from = x->type.shape;
    const ir::Shape& to = v->type.shape;
    if (!from.has_rank() || !to.has_rank() || from.rank() < 2 || to.rank() < 2)
      return Triangle::None;
    for (std::size_t i = 1; i <= 2; ++i)
      if (!(from[from.rank() - i] == to[to.rank() - i])) return Triangle::None;
    return triangle(x, depth + 1);
  }
  return triangle_of_comparison(*n);
}

bool hides(const std::optional<double>& number) {
  constexpr double kFar = -1e4;
  return number && *number <= kFar;
}

bool hides_later(const ir::Value* v, int depth) {
  if (v == nullptr || depth > kDeepest) return false;
  if (v->constant) {
    const ir::Tensor& t = *v->constant;
    if (triangle_of_constant(t) != Triangle::Hidden) return false;
    for (std::int64_t i = 0; i < t.size(); ++i)
      if (const double number = t.double_at(i); number != 0.0 && !hides(number)) return false;
    return true;
  }
  const ir::Node* n = v->producer();
  if (n == nullptr || !n->domain.empty()) return false;
  if (n->is("Where")) {
    const auto yes = splat(n->input(1));
    const auto no = splat(n->input(2));
    const Triangle t = triangle_of(n->input(0));
    return (t == Triangle::Seen && yes == 0.0 && hides(no)) ||
           (t == Triangle::Hidden && no == 0.0 && hides(yes));
  }
  if (n->is("Trilu")) {
    return triangle_of_trilu(*n) == Triangle::Hidden && hides(filled_with(n->input(0), 0));
  }
  if (n->is("Unsqueeze") || n->is("Expand")) {
    const ir::Shape& from = n->input(0)->type.shape;
    const ir::Shape& to = v->type.shape;
    if (!from.has_rank() || !to.has_rank() || from.rank() < 2) return false;
    for (std::size_t i = 1; i <= 2; ++i)
      if (!(from[from.rank() - i] == to[to.rank() - i])) return false;
    return hides_later(n->input(0), depth + 1);
  }
  if (n->is("Slice")) return begins_at_zero(*n) && hides_later(n->input(0), depth + 1);
  return false;
}

/// Whether a row of the constant, its last axis, is minus infinity throughout.
bool has_row_of_infinities(const ir::Tensor& t) {
  if (!ir::is_float(t.dtype()) || t.size() == 0) return false;
  constexpr std::int64_t kMost = 1 << 24;
  if (t.size() > kMost) return true;
  const std::int64_t columns = t.rank() == 0 ? 1 : t.dims().back();
  std::int64_t of_row = 0;
  for (std::int64_t i = 0; i < t.size(); ++i) {
    if (i % columns == 0) of_row = 0;
    if (t.double_at(i) == -kInfinity && ++of_row == columns) return true;
  }
  return false;
}

bool reaches(const ir::Value* v, std::size_t from_last, const ir::Dim& length, int depth) {
  if (v == nullptr || depth > kDeepest || !v->type.shape.has_rank() ||
      v->type.shape.rank() < from_last)
    return false;
  const std::size_t axis = v->type.shape.rank() - from_last;
  const ir::Dim& own = v->type.shape[axis];
  if (own == length) return true;
  const ir::Node* n = v->producer();
  if (own.is_const() || n == nullptr) return false;
  if (n->is("Cast") || n->is("Not")) return reaches(n->input(0), from_last, length, depth + 1);
  if (n->is("Equal"))
    return splat(n->input(1)) && reaches(n->input(0), from_last, length, depth + 1);
  if (!n->is("Slice") || !begins_at_zero(*n) || n->input(2) == nullptr) return false;
  const auto& ends = n->input(2)->contents;
  const auto axes = n->input(3) != nullptr ? const_ints(n->input(3)) : std::nullopt;
  const auto counted = axes ? counted_axes(*axes, v, false) : std::nullopt;
  if (!ends || !counted || counted->size() != ends->size()) return false;
  for (std::size_t i = 0; i < counted->size(); ++i)
    if ((*counted)[i] == static_cast<std::int64_t>(axis)) {
      const ir::Dim& whole = n->input(0)->type.shape[axis];
      return (*ends)[i] == length && whole.is_const() && whole.value() > 1;
    }
  return reaches(n->input(0), from_last, length, depth + 1);
}

}  // namespace

bool has_length(const ir::Value* v, std::size_t from_last, const ir::Dim& length) {
  return reaches(v, from_last, length, 0);
}

bool is_masked_again(const ir::Node& trilu, const ir::Value* mask) {
  if (mask == nullptr || trilu.output(0) == nullptr) return false;
  const std::optional<double> number = filled_with(trilu.input(0), 0);
  const ir::Shape& a = trilu.output(0)->type.shape;
  const ir::Shape& b = mask->type.shape;
  if (!number || !std::isfinite(*number) || !a.has_rank() || !b.has_rank() || b.rank() < 2)
    return false;
  for (std::size_t i = 1; i <= 2; ++i)
    if (!(a[a.rank() - i] == b[b.rank() - i])) return false;
  const Triangle left = triangle_of_trilu(trilu);
  return left != Triangle::None && triangle(mask, 0) == left;
}

Triangle triangle_of(const ir::Value* v) {
  return triangle(v, 0);
}

bool hides_later_keys(const ir::Value* v) {
  return hides_later(v, 0);
}

bool may_hide_all_keys(const ir::Value* v) {
  constexpr std::size_t kMost = 256;
  std::vector<const ir::Value*> work{v};
  std::unordered_set<const ir::Value*> met;
  while (!work.empty()) {
    const ir::Value* at = work.back();
    work.pop_back();
    if (at == nullptr || !met.insert(at).second) continue;
    if (met.size() > kMost) return true;
    if (!at->type.is_tensor() || !ir::is_float(at->type.dtype)) continue;
    if (at->constant) {
      if (has_row_of_infinities(*at->constant)) return true;
      continue;
    }
    const ir::Node* n = at->producer();
    if (n == nullptr || hides_later_keys(at)) continue;
    if (n->is("Log") || !n->subgraphs().empty()) return true;
    if (n->is("ConstantOfShape")) {
      const ir::Attribute* a = n->attribute("value");
      const auto* t = a != nullptr ? std::get_if<ir::TensorPtr>(&a->data) : nullptr;
      if (t != nullptr && *t != nullptr && has_row_of_infinities(**t)) return true;
      continue;
    }
    for (std::size_t i = 0; i < n->input_count(); ++i) work.push_back(n->input(i));
  }
  return false;
}

}  // namespace onnx2nn::passes
