#include "structure/relations.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::ExprKind;

constexpr std::int64_t kTimes = 16, kOver = 256, kSide = 4096;

bool has_name(const Quantity& q, const std::set<std::string>& names) {
  return std::any_of(q.names.begin(), q.names.end(),
                     [&](const std::string& n) { return names.count(n) != 0; });
}

/// What an author chooses by itself, though it may be a multiple of something.
bool is_chosen(const Quantity& q) {
  static const std::set<std::string> kChosen = {
      "kernel_size", "stride",     "padding",        "dilation",    "groups", "output_padding",
      "num_layers",  "num_groups", "num_embeddings", "output_size", "depth"};
  return has_name(q, kChosen);
}

/// Positive integers in all modules.
std::optional<std::vector<std::int64_t>> integers_of(const Quantity& q) {
  std::vector<std::int64_t> out;
  for (const auto& v : q.values) {
    if (!v || v->kind != ExprKind::Int || v->integer < 0) return std::nullopt;
    out.push_back(v->integer);
  }
  return out;
}

class Finder {
 public:
  explicit Finder(const std::vector<Quantity>& quantities) : quantities_(quantities), out_(quantities.size()) {
    for (const Quantity& q : quantities) integers_.push_back(integers_of(q));
  }

  std::vector<std::optional<Relation>> run() {
    // Widths in the order in which the constructor has them, then the rest by size.
    std::vector<std::size_t> order(quantities_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::erase_if(order, [&](std::size_t i) { return !integers_[i] || is_chosen(quantities_[i]); });
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      if (quantities_[a].width != quantities_[b].width) return quantities_[a].width;
      if (quantities_[a].width) return false;
      return integers_[a]->front() < integers_[b]->front();
    });
    std::vector<std::size_t> bases;
    for (const std::size_t i : order) {
      for (const std::size_t base : bases)
        if (!out_[i]) out_[i] = relation(i, base);
      if (!out_[i]) bases.push_back(i);
    }
    halve_kernels();
    return std::move(out_);
  }

 private:
  std::optional<Relation> relation(std::size_t i, std::size_t base) const {
    const Quantity& q = quantities_[i];
    const Quantity& b = quantities_[base];
    const auto& values = *integers_[i];
    const auto& of = *integers_[base];
    if (q.width && !b.width) return std::nullopt;
    // A convolution from 16 to 32 channels and one from 32 to 64 say nothing yet.
    const std::size_t distinct = std::set<std::int64_t>(of.begin(), of.end()).size();
    if (distinct < (q.both_sides && b.both_sides ? 3U : 2U)) return std::nullopt;
    if (of[0] <= 0) return std::nullopt;
    const std::int64_t times = values[0] / of[0];
    const std::int64_t over = values[0] > 0 ? of[0] / values[0] : 0;
    const auto all = [&](auto&& is) {
      for (std::size_t m = 0; m < values.size(); ++m)
        if (!is(values[m], of[m])) return false;
      return true;
    };
    if (times >= 2 && times <= kTimes &&
        all([&](std::int64_t v, std::int64_t w) { return w <= INT64_MAX / kTimes && v == w * times; }))
      return Relation{base, Relation::Kind::Times, times};
    if (b.width && over >= 2 && over <= (q.width ? kTimes : kOver) &&
        all([&](std::int64_t v, std::int64_t w) { return w % over == 0 && v == w / over; }))
      return Relation{base, Relation::Kind::Over, over};
    if (!q.width && !b.width &&
        all([](std::int64_t v, std::int64_t w) { return w > 1 && w <= kSide && v == w * w; }))
      return Relation{base, Relation::Kind::Square, 1};
    return std::nullopt;
  }

  /// `padding=kernel_size // 2`.
  void halve_kernels() {
    for (std::size_t i = 0; i < quantities_.size(); ++i) {
      if (!integers_[i] || !has_name(quantities_[i], {"padding"})) continue;
      for (std::size_t k = 0; k < quantities_.size() && !out_[i]; ++k) {
        if (k == i || !integers_[k] || !has_name(quantities_[k], {"kernel_size"})) continue;
        bool all = true;
        for (std::size_t m = 0; m < integers_[i]->size(); ++m)
          all = all && (*integers_[i])[m] == (*integers_[k])[m] / 2;
        if (all) out_[i] = Relation{k, Relation::Kind::Over, 2};
      }
    }
  }

  const std::vector<Quantity>& quantities_;
  std::vector<std::optional<std::vector<std::int64_t>>> integers_;
  std::vector<std::optional<Relation>> out_;
};

}  // namespace

Ex Relation::of(const Ex& quantity) const {
  switch (kind) {
    case Kind::Times: return torch::op("*", {Ex(factor), quantity});
    case Kind::Square: return torch::op("*", {quantity, quantity});
    case Kind::Over: return torch::op("//", {quantity, Ex(factor)});
  }
  return quantity;
}

std::vector<std::optional<Relation>> find_relations(const std::vector<Quantity>& quantities) {
  return Finder(quantities).run();
}

}  // namespace onnx2nn::structure
