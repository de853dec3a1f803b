#include "support/suggest.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <vector>

namespace onnx2nn {
namespace {

constexpr std::size_t kLongest = 64;  // what is longer is no misspelt name

/// Letters and digits in lower case, and where words begin.
struct Letters {
  std::string text;
  std::vector<bool> begins;
};

Letters letters_of(std::string_view name) {
  Letters out;
  bool begins = true;
  for (const char c : name) {
    if (c == '-' || c == '_') {
      begins = true;
      continue;
    }
    out.text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    out.begins.push_back(begins);
    begins = false;
  }
  return out;
}

/// Letters put in, left out, changed or swapped with a neighbour to make one of the other.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      const bool same = a[i - 1] == b[j - 1];
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d.back().back();
}

/// Whether `text` is made of beginnings of words of `name`, in order and from the first word on.
bool shortens(const Letters& text, const Letters& name) {
  // reached[j]: the letters of `text` so far can end at letter j of `name`.
  std::vector<bool> reached(name.text.size(), false);
  for (std::size_t i = 0; i < text.text.size(); ++i) {
    std::vector<bool> next(name.text.size(), false);
    bool earlier = false;  // some letter before j was reached
    for (std::size_t j = 0; j < name.text.size(); ++j) {
      const bool continues = j > 0 && reached[j - 1];
      if (text.text[i] == name.text[j])
        next[j] = i == 0 ? j == 0 : continues || (name.begins[j] && earlier);
      earlier = earlier || reached[j];
    }
    reached = std::move(next);
  }
  return std::find(reached.begin(), reached.end(), true) != reached.end();
}

}  // namespace

std::string_view closest(std::string_view text, std::span<const std::string_view> names) {
  const Letters given = letters_of(text);
  if (given.text.empty() || given.text.size() > kLongest) return {};
  std::string_view best;
  std::size_t best_cost = 0;
  for (const std::string_view name : names) {
    const Letters known = letters_of(name);
    std::size_t cost = 2 * distance(given.text, known.text);
    // A third of the letters may be wrong; of a short name, one.
    bool near = cost <= 2 * std::max<std::size_t>(1, std::max(given.text.size(), known.text.size()) / 3);
    if (given.text.size() > 1 && shortens(given, known)) {
      near = true;
      cost = std::min<std::size_t>(cost, 3);
    }
    if (near && (best.empty() || cost < best_cost)) {
      best = name;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace onnx2nn
