#include "structure/patterns.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "structure/steps.h"
#include "structure/walk.h"
#include "support/interrupt.h"

namespace onnx2nn::structure {
namespace {

// A block of fewer statements is none, and one that takes or gives more is no block.
constexpr std::size_t kFewest = 4;
constexpr std::size_t kMaxInputs = 8;
constexpr std::size_t kMaxResults = 4;
constexpr std::size_t kRounds = 4;
// Numbers that differ from block to block; without weights, what has more has only its form in common.
constexpr std::size_t kMaxNumbers = 12;
constexpr std::size_t kFewNumbers = 4;
// Statements looked at, at most, for each of the sequence: what is found by then is what there is.
constexpr std::size_t kMaxWork = 400;

std::uint64_t mixed(std::uint64_t seed, std::uint64_t value) {
  std::uint64_t x = seed * 0xff51afd7ed558ccd + value + 0x9e3779b97f4a7c15;
  x ^= x >> 32;
  x *= 0xc4ceb9fe1a85ec53;
  x ^= x >> 29;
  return x;
}

}  // namespace

int Patterns::add_node(Node node) {
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

int Patterns::add_unit() {
  units_.emplace_back();
  return static_cast<int>(units_.size()) - 1;
}

int Patterns::add_block(int unit, std::vector<int> children) {
  Node n;
  n.kind = Node::Kind::Block;
  n.unit = unit;
  n.token = mixed(7, static_cast<std::uint64_t>(unit));
  n.statements = 0;
  for (const int c : children) n.statements += node(c).statements;
  n.children = std::move(children);
  const int out = add_node(std::move(n));
  units_[static_cast<std::size_t>(unit)].blocks.push_back(out);
  return out;
}

void Patterns::add_statements(int i, std::vector<int>& out) const {
  const Node& n = node(i);
  out.insert(out.end(), n.own.begin(), n.own.end());
  for (const int c : n.children) add_statements(c, out);
}

std::vector<int> Patterns::statements_of(int i) const {
  std::vector<int> out;
  add_statements(i, out);
  return out;
}

std::vector<int> Patterns::sequence(const std::vector<int>& statements) {
  const std::unordered_set<int> here(statements.begin(), statements.end());
  std::unordered_map<int, std::vector<int>> with;
  // Those of shortcuts have their sources with them.
  const auto goes_to = [&](int i) {
    for (;;) {
      const Fact& f = facts_[static_cast<std::size_t>(i)];
      const int to = f.joins >= 0 ? f.joins : f.source_of;
      if (to < 0 || here.count(to) == 0) return i;
      i = to;
    }
  };
  std::vector<int> out;
  for (const int i : statements) {
    const int to = goes_to(i);
    with[to].push_back(i);
    if (to != i) continue;
    const Fact& f = facts_[static_cast<std::size_t>(i)];
    Node n;
    // One that stays where it is equals no other.
    n.token = f.fixed ? mixed(11, static_cast<std::uint64_t>(i)) : f.token;
    n.own = std::move(with[i]);
    for (const int other : n.own)
      if (const Fact& o = facts_[static_cast<std::size_t>(other)]; o.source_of == i) n.token = mixed(n.token, o.token);
    n.statements = n.own.size();
    out.push_back(add_node(std::move(n)));
  }
  return out;
}

Patterns::Border Patterns::border_of(const std::vector<int>& nodes) const {
  Border out;
  std::vector<int> all;
  for (const int n : nodes) add_statements(n, all);
  const std::unordered_set<int> inside(all.begin(), all.end());
  std::unordered_map<int, std::uint64_t> local;
  std::unordered_map<int, std::uint64_t> outer;
  out.statements = all.size();
  std::vector<int> made;
  for (const int i : all) {
    const Fact& f = facts_[static_cast<std::size_t>(i)];
    out.fixed = out.fixed || f.fixed;
    out.weights += f.weights.size();
    // With a shortcut or without, it is the same block.
    if (f.joins >= 0 && inside.count(f.joins) != 0) continue;
    out.signature = mixed(out.signature, f.token);
    for (const int read : f.reads) {
      const int maker = facts_.maker(read);
      const bool is_shortcut = maker >= 0 && inside.count(maker) != 0;
      const int v = is_shortcut ? facts_.behind_shortcut(read) : read;
      if (const auto it = local.find(v); it != local.end()) {
        out.signature = mixed(out.signature, 2 * it->second);
        continue;
      }
      const auto [it, is_new] = outer.emplace(v, outer.size());
      if (is_new) out.inputs.push_back(v);
      out.signature = mixed(out.signature, 2 * it->second + 1);
    }
    for (const int v : f.writes) {
      local.emplace(v, local.size());
      made.push_back(v);
    }
  }
  for (const int v : made) {
    const auto& readers = facts_.readers(v);
    if (std::all_of(readers.begin(), readers.end(), [&](int r) { return inside.count(r) != 0; }))
      continue;
    out.results.push_back(v);
    out.signature = mixed(out.signature, local.at(v));
  }
  return out;
}

Patterns::Sharing Patterns::sharing_of(const std::vector<std::vector<int>>& blocks) const {
  std::vector<std::vector<const void*>> weights;
  bool alone = true;
  for (const auto& nodes : blocks) {
    std::vector<int> all;
    for (const int n : nodes) add_statements(n, all);
    const std::unordered_set<int> inside(all.begin(), all.end());
    weights.emplace_back();
    for (const int i : all) {
      const Fact& f = facts_[static_cast<std::size_t>(i)];
      weights.back().insert(weights.back().end(), f.weights.begin(), f.weights.end());
      for (const void* layer : f.layers)
        for (const int user : facts_.users(layer)) alone = alone && inside.count(user) != 0;
    }
  }
  if (alone) return Sharing::None;
  const bool all = std::all_of(weights.begin(), weights.end(), [&](const auto& w) {
    return w == weights[0];
  });
  return all ? Sharing::All : Sharing::Mixed;
}

std::size_t Patterns::differing_numbers(const std::vector<std::vector<int>>& blocks) const {
  std::vector<std::vector<double>> rows;
  for (const auto& nodes : blocks) {
    std::vector<int> all;
    for (const int n : nodes) add_statements(n, all);
    rows.emplace_back();
    for (const int i : all) {
      // Those of a shortcut are not everywhere.
      if (facts_[static_cast<std::size_t>(i)].joins >= 0) continue;
      each_expr(program_.forward[static_cast<std::size_t>(i)], [&](const torch::Expr& e) {
        // Steps of quantised activations are no arguments.
        if (e.kind == torch::ExprKind::Helper && is_fake_quantize(e.text)) return;
        for (const auto& a : e.args) {
          if (a->kind == torch::ExprKind::Float) rows.back().push_back(a->number);
          if (a->kind == torch::ExprKind::Int || a->kind == torch::ExprKind::Bool)
            rows.back().push_back(static_cast<double>(a->integer));
        }
      });
    }
    if (rows.back().size() != rows[0].size()) return SIZE_MAX;
  }
  std::set<std::vector<double>> columns;
  for (std::size_t k = 0; k < rows[0].size(); ++k) {
    std::vector<double> column;
    for (const auto& row : rows) column.push_back(row[k]);
    if (std::any_of(column.begin(), column.end(), [&](double x) { return x != column[0]; }))
      columns.insert(std::move(column));
  }
  return columns.size();
}

// ---- a level

std::vector<std::uint64_t> Patterns::tokens_of(const std::vector<int>& sequence) const {
  std::vector<std::uint64_t> out;
  for (const int n : sequence) out.push_back(node(n).token);
  return out;
}

Patterns::Level Patterns::level_of(std::vector<int> sequence) const {
  Level out;
  out.tokens = tokens_of(sequence);
  const std::size_t n = sequence.size();
  out.taken.assign(n, false);
  out.fresh.assign(n + 1, 0);
  std::unordered_map<int, std::pair<int, int>> lives;  // where it is made, where it is read last
  std::vector<int> all;
  for (std::size_t i = 0; i < n; ++i) {
    all.clear();
    add_statements(sequence[i], all);
    for (const int s : all) {
      const Fact& f = facts_[static_cast<std::size_t>(s)];
      // What the model returns goes nowhere else.
      const bool returns = program_.forward[static_cast<std::size_t>(s)].kind == torch::Stmt::Kind::Return;
      for (const int v : f.reads) {
        auto& life = lives.emplace(v, std::pair(-1, -1)).first->second;
        if (returns) continue;
        life.second = static_cast<int>(i);
        if (life.first >= 0) ++out.fresh[static_cast<std::size_t>(life.first) + 1];
      }
      for (const int v : f.writes) lives.emplace(v, std::pair(static_cast<int>(i), -1));
    }
  }
  out.crossing.assign(n + 1, 0);
  std::vector<int> change(n + 2, 0);
  for (const auto& [_, life] : lives) {
    if (life.second <= life.first) continue;
    ++change[static_cast<std::size_t>(life.first + 1)];
    --change[static_cast<std::size_t>(life.second + 1)];
  }
  int now = 0;
  for (std::size_t i = 0; i <= n; ++i) out.crossing[i] = now += change[i];
  out.sequence = std::move(sequence);
  return out;
}

std::vector<int> Patterns::part(const Level& level, std::size_t start, std::size_t length) {
  const auto at = level.sequence.begin() + static_cast<std::ptrdiff_t>(start);
  return {at, at + static_cast<std::ptrdiff_t>(length)};
}

std::vector<int> Patterns::changed(Level& level) const {
  std::sort(level.changes.begin(), level.changes.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<int> out;
  std::size_t at = 0;
  for (const auto& [start, change] : level.changes) {
    for (; at < start; ++at) out.push_back(level.sequence[at]);
    out.push_back(change.node);
    at = change.end;
  }
  for (; at < level.sequence.size(); ++at) out.push_back(level.sequence[at]);
  return out;
}

std::vector<int> Patterns::grouped(std::vector<int> sequence) {
  work_ = 0;
  most_work_ = 10000;
  for (const int n : sequence) most_work_ += kMaxWork * node(n).statements;
  for (std::size_t round = 0; round < kRounds; ++round) {
    Level level = level_of(sequence);
    if (!find_runs(level)) break;
    sequence = changed(level);
  }
  Level level = level_of(sequence);
  if (!find_repeats(level)) return sequence;
  level = level_of(changed(level));
  find_runs(level);
  return changed(level);
}

// ---- runs

bool Patterns::find_runs(Level& level) {
  bool found = false;
  for (const Run& run : runs_of(level.tokens, 1)) {
    check_interrupt();
    if (work_ > most_work_) break;
    found = take_run(level, run) || found;
  }
  return found;
}

bool Patterns::take_run(Level& level, Run run) {
  // The longest part of it that is still free.
  std::size_t start = run.start;
  std::size_t length = 0;
  for (std::size_t i = run.start; i < run.start + run.length;) {
    std::size_t n = 0;
    while (i + n < run.start + run.length && !level.taken[i + n]) ++n;
    if (n > length) {
      start = i;
      length = n;
    }
    i += n + 1;
  }
  work_ += run.length;
  if (length < 2 * run.period) return false;
  struct Phase {
    double cost;
    std::size_t offset, turns;
  };
  std::vector<Phase> phases;
  const std::size_t most = length / run.period;
  for (std::size_t offset = 0; offset < run.period; ++offset) {
    const std::size_t turns = (length - offset) / run.period;
    if (turns < 2) break;
    double crossing = 0;
    double fresh = 0;
    for (std::size_t j = 0; j <= turns; ++j) {
      const std::size_t at = start + offset + j * run.period;
      crossing += level.crossing[at];
      if (j > 0 && j < turns) fresh += level.fresh[at];
    }
    const auto borders = static_cast<double>(turns + 1);
    constexpr double kTurn = 0.75;    // a turn less is worth a value that does not cross
    constexpr double kFresh = 0.125;  // a block begins where a value goes several ways
    phases.push_back({crossing / borders + kTurn * static_cast<double>(most - turns) -
                          kFresh * std::min(fresh / std::max(borders - 2, 1.0), 4.0),
                      offset, turns});
  }
  std::stable_sort(phases.begin(), phases.end(),
                   [](const Phase& a, const Phase& b) { return a.cost < b.cost; });
  constexpr std::size_t kTried = 3;
  for (std::size_t i = 0; i < std::min(phases.size(), kTried); ++i)
    if (take_turns(level, start + phases[i].offset, run.period, phases[i].turns)) return true;
  return false;
}

bool Patterns::take_turns(Level& level, std::size_t start, std::size_t period, std::size_t turns) {
  // What differs from turn to turn, such as ever longer lists, may stand between the blocks.
  static constexpr std::array<std::pair<std::size_t, std::size_t>, 6> kLeft = {
      {{0, 0}, {1, 0}, {0, 1}, {2, 0}, {0, 2}, {1, 1}}};
  for (const auto& [before, after] : kLeft) {
    if (3 * (before + after) > period) continue;
    if (work_ > most_work_) return false;
    if (make_turns(level, start, period, turns, before, after)) return true;
  }
  return false;
}

bool Patterns::make_turns(Level& level, std::size_t start, std::size_t period, std::size_t turns,
                          std::size_t before, std::size_t after) {
  std::vector<std::vector<int>> blocks;
  std::vector<Border> borders;
  std::map<std::uint64_t, std::size_t> counts;
  std::size_t most = 0;
  for (std::size_t j = 0; j < turns; ++j) {
    blocks.push_back(part(level, start + j * period + before, period - before - after));
    borders.push_back(border_of(blocks.back()));
    const Border& b = borders.back();
    work_ += b.statements;
    if (b.fixed || b.statements < kFewest || b.inputs.size() > kMaxInputs ||
        b.results.size() > kMaxResults || b.results.empty() ||
        (b.weights == 0 && (facts_.named() || b.statements < 2 * kFewest)))
      return false;
    most = std::max(most, ++counts[b.signature]);
  }
  if (most < 2 || 3 * most < 2 * turns) return false;
  const Sharing sharing = sharing_of(blocks);
  if (sharing == Sharing::Mixed ||
      differing_numbers(blocks) > (borders[0].weights > 0 ? kMaxNumbers : kFewNumbers))
    return false;

  const int unit = add_unit();
  Node list;
  list.kind = Node::Kind::List;
  list.token = mixed(7, static_cast<std::uint64_t>(unit));
  list.statements = 0;
  bool chain = before + after == 0;
  for (std::size_t j = 0; j < turns; ++j) {
    for (std::size_t k = 0; k < before; ++k)
      list.children.push_back(level.sequence[start + j * period + k]);
    list.children.push_back(add_block(unit, blocks[j]));
    for (std::size_t k = period - after; k < period; ++k)
      list.children.push_back(level.sequence[start + j * period + k]);
    const Border& b = borders[j];
    chain = chain && b.inputs.size() == 1 && b.results.size() == 1;
    if (chain && j > 0) chain = borders[j - 1].results[0] == b.inputs[0];
    if (chain && j + 1 < turns) {
      std::vector<int> next;
      for (const int n : blocks[j + 1]) add_statements(n, next);
      const std::unordered_set<int> inside(next.begin(), next.end());
      for (const int r : facts_.readers(b.results[0])) chain = chain && inside.count(r) != 0;
    }
  }
  Unit& u = units_[static_cast<std::size_t>(unit)];
  u.shared = sharing == Sharing::All;
  u.chain = chain && !u.shared;
  for (const Border& b : borders) u.signatures.insert(b.signature);
  for (const int c : list.children) list.statements += node(c).statements;
  const std::size_t end = start + turns * period;
  level.changes.push_back({start, {end, add_node(std::move(list))}});
  std::fill(level.taken.begin() + static_cast<std::ptrdiff_t>(start),
            level.taken.begin() + static_cast<std::ptrdiff_t>(end), true);
  if (!units_[static_cast<std::size_t>(unit)].shared) {
    const auto at = level.tokens.begin() + static_cast<std::ptrdiff_t>(start + before);
    take_others(level, unit, {at, at + static_cast<std::ptrdiff_t>(period - before - after)});
  }
  return true;
}

/// The same block elsewhere, alone or several in a row.
void Patterns::take_others(Level& level, int unit, const std::vector<std::uint64_t>& tokens) {
  std::vector<std::pair<std::size_t, int>> found;  // where it ends, the block
  const auto flush = [&] {
    if (found.empty()) return;
    const std::size_t start = found[0].first - tokens.size();
    int at = found[0].second;
    if (found.size() > 1) {
      Node list;
      list.kind = Node::Kind::List;
      list.token = node(at).token;
      list.statements = 0;
      for (const auto& [_, block] : found) {
        list.children.push_back(block);
        list.statements += node(block).statements;
      }
      at = add_node(std::move(list));
    }
    level.changes.push_back({start, {found.back().first, at}});
    found.clear();
  };
  for (const std::size_t start : occurrences_of(tokens, level.tokens)) {
    const auto first = level.taken.begin() + static_cast<std::ptrdiff_t>(start);
    const auto last = first + static_cast<std::ptrdiff_t>(tokens.size());
    if (std::find(first, last, true) != last) continue;
    std::vector<int> nodes = part(level, start, tokens.size());
    const Border b = border_of(nodes);
    const Unit& u = units_[static_cast<std::size_t>(unit)];
    if (b.fixed || u.signatures.count(b.signature) == 0 || sharing_of({nodes}) != Sharing::None)
      continue;
    if (!found.empty() && found.back().first != start) flush();
    found.emplace_back(start + tokens.size(), add_block(unit, std::move(nodes)));
    std::fill(first, last, true);
  }
  flush();
}

// ---- repeats that do not stand in a row

bool Patterns::find_repeats(Level& level) {
  bool found = false;
  std::size_t length = std::min<std::size_t>(level.sequence.size() / 2, 4096);
  for (; length >= 2; length -= std::max<std::size_t>(1, length / 5)) {
    check_interrupt();
    if (work_ > most_work_) break;
    work_ += level.sequence.size() / 4;
    std::vector<std::uint64_t> tokens = level.tokens;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (level.taken[i]) tokens[i] = mixed(13, i);
    std::vector<bool> tried(tokens.size(), false);
    for (Repeat& r : repeats_of(tokens, length)) {
      if (tried[r.starts[0]]) continue;
      for (const std::size_t s : r.starts)
        std::fill(tried.begin() + static_cast<std::ptrdiff_t>(s),
                  tried.begin() + static_cast<std::ptrdiff_t>(s + length), true);
      found = take_repeat(level, std::move(r)) || found;
      if (work_ > most_work_) break;
    }
  }
  return found;
}

bool Patterns::take_repeat(Level& level, Repeat r) {
  const auto equal = [&](std::size_t a, std::size_t b) {
    for (std::size_t i = 0; i < r.length; ++i)
      if (level.taken[b + i] || level.tokens[a + i] != level.tokens[b + i]) return false;
    return true;
  };
  work_ += r.covered();
  const std::size_t first = r.starts[0];
  std::erase_if(r.starts, [&](std::size_t s) { return !equal(first, s); });
  if (r.starts.size() < 2) return false;
  // As far as all of them go on alike.
  for (bool more = true; more;) {
    const std::size_t next = r.starts[0] + r.length;
    for (std::size_t k = 0; more && k < r.starts.size(); ++k) {
      const std::size_t at = r.starts[k] + r.length;
      const std::size_t limit = k + 1 < r.starts.size() ? r.starts[k + 1] : level.tokens.size();
      more = at < limit && !level.taken[at] && level.tokens[at] == level.tokens[next];
    }
    if (more) ++r.length;
  }
  for (bool more = true; more;) {
    for (std::size_t k = 0; more && k < r.starts.size(); ++k) {
      const std::size_t limit = k > 0 ? r.starts[k - 1] + r.length : 0;
      more = r.starts[k] > limit && !level.taken[r.starts[k] - 1] &&
             level.tokens[r.starts[k] - 1] == level.tokens[r.starts[0] - 1];
    }
    if (!more) break;
    for (std::size_t& s : r.starts) --s;
    ++r.length;
  }
  // With the borders that the fewest values cross.
  constexpr std::size_t kMoved = 3;
  constexpr std::size_t kFewInputs = 3;
  constexpr std::size_t kFewResults = 2;
  std::optional<std::pair<double, std::pair<std::size_t, std::size_t>>> best;
  std::uint64_t signature = 0;
  for (std::size_t left = 0; left < kMoved; ++left) {
    for (std::size_t right = 0; right < kMoved; ++right) {
      if (left + right >= r.length || work_ > most_work_) continue;
      std::map<std::uint64_t, std::size_t> counts;
      std::optional<Border> sample;
      std::size_t most = 0;
      for (const std::size_t s : r.starts) {
        Border b = border_of(part(level, s + left, r.length - left - right));
        work_ += b.statements;
        if (b.fixed) return false;
        const std::size_t n = ++counts[b.signature];
        if (n > most) {
          most = n;
          sample = std::move(b);
        }
      }
      if (most < 2 || sample->inputs.size() > kFewInputs || sample->results.empty() ||
          sample->results.size() > kFewResults)
        continue;
      constexpr std::size_t kSaved = 8;  // statements
      const bool worth = (most - 1) * (sample->statements - 1) >= kSaved &&
                         sample->statements >= 3 &&
                         (sample->weights > 0 ||
                          (!facts_.named() && sample->statements >= 2 * kFewest));
      if (!worth) continue;
      const double cost = static_cast<double>(sample->inputs.size() + 2 * sample->results.size()) +
                          0.3 * static_cast<double>(left + right);
      if (best && best->first <= cost) continue;
      best = {cost, {left, right}};
      signature = sample->signature;
    }
  }
  if (!best) return false;
  const auto [left, right] = best->second;
  const std::size_t length = r.length - left - right;
  std::vector<std::vector<int>> blocks;
  std::vector<std::size_t> starts;
  for (const std::size_t s : r.starts) {
    blocks.push_back(part(level, s + left, length));
    starts.push_back(s + left);
    if (border_of(blocks.back()).signature == signature) continue;
    blocks.pop_back();
    starts.pop_back();
  }
  const Sharing sharing = sharing_of(blocks);
  if (sharing == Sharing::Mixed ||
      differing_numbers(blocks) > (border_of(blocks[0]).weights > 0 ? kMaxNumbers : kFewNumbers))
    return false;
  const int unit = add_unit();
  units_[static_cast<std::size_t>(unit)].shared = sharing == Sharing::All;
  units_[static_cast<std::size_t>(unit)].signatures.insert(signature);
  for (std::size_t k = 0; k < blocks.size(); ++k) {
    level.changes.push_back({starts[k], {starts[k] + length, add_block(unit, std::move(blocks[k]))}});
    std::fill(level.taken.begin() + static_cast<std::ptrdiff_t>(starts[k]),
              level.taken.begin() + static_cast<std::ptrdiff_t>(starts[k] + length), true);
  }
  return true;
}

}  // namespace onnx2nn::structure
