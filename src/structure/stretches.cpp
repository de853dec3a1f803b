#include "structure/stretches.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace onnx2nn::structure {
namespace {

using Tokens = std::span<const std::uint64_t>;

// Periods that are looked at, at most, for each length of the stretches that suggest them.
constexpr std::size_t kMaxPeriods = 16;
constexpr std::size_t kLongestGram = 256;
constexpr std::uint64_t kBase = 0x9e3779b97f4a7c15;  // odd

/// Calls `see(start, hash)` for each stretch of the length.
template <typename See>
void each_hash(Tokens tokens, std::size_t length, See&& see) {
  if (length == 0 || tokens.size() < length) return;
  std::uint64_t out = 1;  // the factor of what goes
  for (std::size_t i = 1; i < length; ++i) out *= kBase;
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i >= length) hash -= tokens[i - length] * out;
    hash = hash * kBase + tokens[i];
    if (i + 1 >= length) see(i + 1 - length, hash);
  }
}

/// The distances at which stretches of the length come again most often.
void add_periods(Tokens tokens, std::size_t length, std::vector<std::size_t>& periods) {
  std::unordered_map<std::uint64_t, std::size_t> last;
  std::unordered_map<std::size_t, std::size_t> counts;
  each_hash(tokens, length, [&](std::size_t start, std::uint64_t hash) {
    const auto [it, is_new] = last.emplace(hash, start);
    if (is_new) return;
    ++counts[start - it->second];
    it->second = start;
  });
  std::vector<std::pair<std::size_t, std::size_t>> order;
  for (const auto& [period, count] : counts) order.emplace_back(count * period, period);
  std::sort(order.rbegin(), order.rend());
  for (std::size_t i = 0; i < std::min(order.size(), kMaxPeriods); ++i)
    periods.push_back(order[i].second);
}

}  // namespace

std::vector<Run> runs_of(Tokens tokens, std::size_t min_period) {
  std::vector<std::size_t> periods;
  for (std::size_t gram = 1; gram <= kLongestGram && gram <= tokens.size(); gram *= 2)
    add_periods(tokens, gram, periods);
  std::sort(periods.begin(), periods.end());
  periods.erase(std::unique(periods.begin(), periods.end()), periods.end());
  std::vector<Run> out;
  for (const std::size_t period : periods) {
    if (period < min_period) continue;
    for (std::size_t i = 0; i + period < tokens.size();) {
      std::size_t n = 0;
      while (i + n + period < tokens.size() && tokens[i + n] == tokens[i + n + period]) ++n;
      if (n >= period) out.push_back({i, period, n + period});
      i += n + 1;
    }
  }
  std::sort(out.begin(), out.end(), [](const Run& a, const Run& b) {
    if (a.covered() != b.covered()) return a.covered() > b.covered();
    if (a.period != b.period) return a.period < b.period;
    return a.start < b.start;
  });
  return out;
}

std::vector<std::size_t> occurrences_of(Tokens pattern, Tokens tokens) {
  std::uint64_t wanted = 0;
  each_hash(pattern, pattern.size(), [&](std::size_t, std::uint64_t hash) { wanted = hash; });
  std::vector<std::size_t> out;
  each_hash(tokens, pattern.size(), [&](std::size_t start, std::uint64_t hash) {
    if (hash != wanted || (!out.empty() && start < out.back() + pattern.size())) return;
    if (std::equal(pattern.begin(), pattern.end(),
                   tokens.begin() + static_cast<std::ptrdiff_t>(start)))
      out.push_back(start);
  });
  return out;
}

std::vector<Repeat> repeats_of(Tokens tokens, std::size_t length) {
  std::unordered_map<std::uint64_t, Repeat> found;
  each_hash(tokens, length, [&](std::size_t start, std::uint64_t hash) {
    Repeat& r = found[hash];
    if (!r.starts.empty() && start < r.starts.back() + length) return;
    r.starts.push_back(start);
  });
  std::vector<Repeat> out;
  for (auto& [_, r] : found) {
    if (r.starts.size() < 2) continue;
    r.length = length;
    out.push_back(std::move(r));
  }
  std::sort(out.begin(), out.end(), [](const Repeat& a, const Repeat& b) {
    if (a.starts.size() != b.starts.size()) return a.starts.size() > b.starts.size();
    return a.starts[0] < b.starts[0];
  });
  return out;
}

}  // namespace onnx2nn::structure
