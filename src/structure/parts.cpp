// Blocks inside of blocks: attention and what follows it, long bodies, and what is cut at bottlenecks.
#include <algorithm>
#include <optional>
#include <string_view>

#include "structure/patterns.h"
#include "structure/walk.h"

namespace onnx2nn::structure {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::Stmt;

// Lines of a function that nobody minds, and what parts of a longer one are to have.
constexpr std::size_t kLong = 50;
constexpr std::size_t kFewest = 10;
constexpr std::size_t kMost = 44;
constexpr std::size_t kMaxCrossing = 6;

bool calls(const Stmt& s, std::string_view type) {
  return s.kind == Stmt::Kind::Assign && s.value->kind == ExprKind::Module &&
         s.value->module->type == type;
}

bool is_attention(const Stmt& s) {
  return s.kind == Stmt::Kind::Assign && s.value->kind == ExprKind::Aten &&
         torch::function_of(*s.value) == "scaled_dot_product_attention";
}

bool is_softmax(const Stmt& s) {
  return s.kind == Stmt::Kind::Assign && s.value->kind == ExprKind::Aten &&
         torch::function_of(*s.value) == "softmax";
}

}  // namespace

int Patterns::copied(int i, const std::unordered_map<int, int>& by) {
  if (const auto it = by.find(i); it != by.end()) return it->second;
  Node n = node(i);
  for (int& c : n.children) c = copied(c, by);
  n.statements = 0;
  for (const int c : n.children) n.statements += node(c).statements;
  const int unit = n.kind == Node::Kind::Block ? n.unit : -1;
  const int out = add_node(std::move(n));
  if (unit >= 0) units_[static_cast<std::size_t>(unit)].blocks.push_back(out);
  return out;
}

/// Gives all blocks of the unit what its first one has now.
void Patterns::replicate(int unit, const std::vector<int>& before, const std::vector<int>& after) {
  const std::vector<int> blocks = units_[static_cast<std::size_t>(unit)].blocks;
  for (std::size_t k = 1; k < blocks.size(); ++k) {
    const std::vector<int> mine = node(blocks[k]).children;
    std::unordered_map<int, int> by;
    for (std::size_t i = 0; i < before.size(); ++i) by[before[i]] = mine[i];
    std::vector<int> children;
    for (const int n : after) children.push_back(copied(n, by));
    nodes_[static_cast<std::size_t>(blocks[k])].children = std::move(children);
  }
  nodes_[static_cast<std::size_t>(blocks[0])].children = after;
}

void Patterns::refine() {
  for (std::size_t u = 0; u < units_.size(); ++u) {
    const int unit = static_cast<int>(u);
    const std::vector<int> before = node(units_[u].blocks.at(0)).children;
    if (!units_[u].is_part) find_parts(unit);
    const std::vector<int> children = node(units_[u].blocks.at(0)).children;
    if (children.size() <= kLong) continue;
    std::vector<int> after = grouped(children);
    if (after.size() > kLong) after = cut(after);
    if (after != children) replicate(unit, children, after);
  }
}

/// Attention with its projections, and the layers after it, as modules of their own.
void Patterns::find_parts(int unit) {
  const std::vector<int> before = node(units_[static_cast<std::size_t>(unit)].blocks.at(0)).children;
  const auto statement = [&](int n) -> const Stmt* {
    const Node& x = node(n);
    return x.kind == Node::Kind::Statement ? &program_.forward[static_cast<std::size_t>(x.own.back())]
                                           : nullptr;
  };
  std::unordered_map<int, std::size_t> at;  // by statement
  for (std::size_t i = 0; i < before.size(); ++i)
    for (const int s : statements_of(before[i])) at[s] = i;
  struct Part {
    std::size_t first, last;
    bool attention;
  };
  std::vector<Part> parts;
  const auto is_linear = [&](std::size_t i) {
    const Stmt* s = statement(before[i]);
    return s != nullptr && calls(*s, "Linear");
  };
  const auto nodes = [&](std::size_t first, std::size_t last) {
    return std::vector<int>(before.begin() + static_cast<std::ptrdiff_t>(first),
                            before.begin() + static_cast<std::ptrdiff_t>(last) + 1);
  };
  const bool fused = std::any_of(before.begin(), before.end(), [&](int n) {
    const Stmt* s = statement(n);
    return s != nullptr && is_attention(*s);
  });
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Stmt* s = statement(before[i]);
    if (s == nullptr || !(fused ? is_attention(*s) : is_softmax(*s))) continue;
    if (!parts.empty() && parts.back().last >= i) continue;
    // Back to its projections.
    std::optional<std::size_t> first;
    std::vector<std::size_t> open{i};
    std::unordered_set<std::size_t> seen{i};
    while (!open.empty()) {
      const std::size_t now = open.back();
      open.pop_back();
      if (is_linear(now)) {
        first = std::min(first.value_or(now), now);
        continue;
      }
      for (const int inner : statements_of(before[now]))
        for (const int v : facts_[static_cast<std::size_t>(inner)].reads)
          if (const auto it = at.find(facts_.maker(v)); it != at.end() && seen.insert(it->second).second)
            open.push_back(it->second);
    }
    if (!first) continue;
    // On to the projection of what it gives.
    std::optional<std::size_t> last;
    for (std::size_t now = i; !last;) {
      const Node& n = node(before[now]);
      const Fact& f = facts_[static_cast<std::size_t>(n.own.empty() ? 0 : n.own.back())];
      if (n.own.empty() || f.writes.size() != 1) break;
      const auto& readers = facts_.readers(f.writes[0]);
      const auto it = readers.size() == 1 ? at.find(readers[0]) : at.end();
      if (it == at.end()) break;
      now = it->second;
      if (is_linear(now)) last = now;
    }
    if (!last || *last < i || (!parts.empty() && *first <= parts.back().last)) continue;
    const Border b = border_of(nodes(*first, *last));
    if (*last - *first + 1 < before.size() && b.results.size() <= 3 && b.inputs.size() <= 6)
      parts.push_back({*first, *last, true});
  }
  if (parts.empty()) return;
  for (std::size_t i = parts.back().last + 1; i < before.size(); ++i) {
    if (!is_linear(i)) continue;
    std::optional<std::size_t> last;
    for (std::size_t j = i + 1; j < before.size(); ++j) {
      const Stmt* s = statement(before[j]);
      if (s == nullptr || (s->value->kind == ExprKind::Module && !is_linear(j))) break;
      if (!is_linear(j)) continue;
      const Border b = border_of(nodes(i, j));
      if (b.inputs.size() == 1 && b.results.size() == 1) last = j;
    }
    if (last && *last + 1 - i < before.size()) parts.push_back({i, *last, false});
    break;
  }
  std::vector<int> after;
  std::size_t i = 0;
  for (const Part& p : parts) {
    for (; i < p.first; ++i) after.push_back(before[i]);
    const int inner = add_unit();
    Unit& u = units_.back();
    u.is_part = true;
    u.name = p.attention ? "attention" : "feed_forward";
    u.type = p.attention ? "Attention" : "FeedForward";
    after.push_back(add_block(inner, nodes(p.first, p.last)));
    i = p.last + 1;
  }
  for (; i < before.size(); ++i) after.push_back(before[i]);
  replicate(unit, before, after);
}

std::vector<int> Patterns::cut(const std::vector<int>& all) {
  std::vector<int> sequence = all;
  while (sequence.size() > kLong) {
    const Level level = level_of(sequence);
    std::vector<int> out;
    std::size_t start = 0;
    const auto fixed = [&](std::size_t i) {
      const Node& n = node(sequence[i]);
      return n.kind == Node::Kind::Statement && facts_[static_cast<std::size_t>(n.own.back())].fixed;
    };
    while (start < sequence.size()) {
      std::size_t limit = start;
      while (limit < sequence.size() && !fixed(limit)) ++limit;
      std::optional<std::size_t> end;
      for (std::size_t i = start + kFewest; i <= std::min(limit, start + kMost); ++i)
        if (!end || level.crossing[i] <= level.crossing[*end]) end = i;
      if (end) {
        std::vector<int> nodes = part(level, start, *end - start);
        const Border b = border_of(nodes);
        // What has no weights is a method rather than a module: the step `split` makes those.
        if (b.weights > 0 && b.inputs.size() <= kMaxCrossing && b.results.size() <= kMaxCrossing &&
            !b.results.empty()) {
          const int unit = add_unit();
          units_.back().is_part = true;
          out.push_back(add_block(unit, std::move(nodes)));
          start = *end;
          continue;
        }
      }
      out.push_back(sequence[start++]);
    }
    if (out.size() + out.size() / 4 >= sequence.size()) return out;
    sequence = std::move(out);
  }
  return sequence;
}

}  // namespace onnx2nn::structure
