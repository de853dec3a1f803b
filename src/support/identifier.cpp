#include "support/identifier.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>

#include "support/text.h"
#include "support/unicode_tables.h"

namespace onnx2nn {
namespace {

using unicode::Class;
using unicode::Decomposition;
using unicode::Pair;
using unicode::Range;

// Hangul is composed by arithmetic (the Unicode standard, 3.12).
constexpr char32_t kSyllables = 0xAC00;
constexpr char32_t kLeads = 0x1100;
constexpr char32_t kVowels = 0x1161;
constexpr char32_t kTails = 0x11A7;
constexpr char32_t kLeadCount = 19;
constexpr char32_t kVowelCount = 21;
constexpr char32_t kTailCount = 28;
constexpr char32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

/// The entry of a sorted table of ranges that holds `code`.
template <typename Entry, std::size_t n>
const Entry* find(const Entry (&table)[n], char32_t code) {
  const Entry* at = std::lower_bound(std::begin(table), std::end(table), code,
                                     [](const Entry& e, char32_t c) { return e.last < c; });
  return at != std::end(table) && at->first <= code ? at : nullptr;
}

bool is_start(char32_t code) {
  return find(unicode::kStarts, code) != nullptr;
}
bool is_part(char32_t code) {
  return find(unicode::kParts, code) != nullptr;
}
int combining_class(char32_t code) {
  const Class* c = find(unicode::kClasses, code);
  return c == nullptr ? 0 : c->value;
}

void decompose(char32_t code, std::u32string& out) {
  if (code >= kSyllables && code < kSyllables + kSyllableCount) {
    const char32_t index = code - kSyllables;
    out += kLeads + index / (kVowelCount * kTailCount);
    out += kVowels + index / kTailCount % kVowelCount;
    if (index % kTailCount != 0) out += kTails + index % kTailCount;
    return;
  }
  const Decomposition* at = std::lower_bound(
      std::begin(unicode::kDecompositions), std::end(unicode::kDecompositions), code,
      [](const Decomposition& d, char32_t c) { return d.code < c; });
  if (at == std::end(unicode::kDecompositions) || at->code != code) {
    out += code;
    return;
  }
  out.append(unicode::kDecomposed + at->at, at->length);
}

std::optional<char32_t> compose(char32_t first, char32_t second) {
  if (first >= kLeads && first < kLeads + kLeadCount && second >= kVowels &&
      second < kVowels + kVowelCount)
    return kSyllables + ((first - kLeads) * kVowelCount + second - kVowels) * kTailCount;
  if (first >= kSyllables && first < kSyllables + kSyllableCount &&
      (first - kSyllables) % kTailCount == 0 && second > kTails && second < kTails + kTailCount)
    return first + second - kTails;
  const auto before = [](const Pair& a, const Pair& b) {
    return a.first != b.first ? a.first < b.first : a.second < b.second;
  };
  const Pair wanted{first, second, 0};
  const Pair* at =
      std::lower_bound(std::begin(unicode::kPairs), std::end(unicode::kPairs), wanted, before);
  if (at == std::end(unicode::kPairs) || before(wanted, *at)) return std::nullopt;
  return at->composed;
}

std::u32string nfkc(std::u32string_view text) {
  std::u32string parts;
  for (const char32_t c : text) decompose(c, parts);
  for (std::size_t i = 0; i < parts.size();) {
    std::size_t end = i;
    while (end < parts.size() && combining_class(parts[end]) != 0) ++end;
    std::stable_sort(parts.begin() + static_cast<std::ptrdiff_t>(i),
                     parts.begin() + static_cast<std::ptrdiff_t>(end),
                     [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    i = end + 1;
  }
  std::u32string out;
  std::optional<std::size_t> starter;
  int last_class = 0;  // of what stands between the starter and the character at hand
  for (const char32_t c : parts) {
    const int its_class = combining_class(c);
    const bool is_next = starter && *starter + 1 == out.size();
    if (starter && (is_next || last_class < its_class)) {
      if (const auto composed = compose(out[*starter], c)) {
        out[*starter] = *composed;
        continue;
      }
    }
    if (its_class == 0) starter = out.size();
    last_class = its_class;
    out += c;
  }
  return out;
}

/// Invalid bytes become U+FFFD, which no identifier holds.
std::u32string code_points(std::string_view text) {
  std::u32string out;
  const std::string valid = to_utf8(text);
  for (std::size_t i = 0; i < valid.size();) {
    const auto lead = static_cast<unsigned char>(valid[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t code = length == 1 ? lead : lead & (0x7FU >> length);
    for (std::size_t k = 1; k < length; ++k)
      code = code << 6U | (static_cast<unsigned char>(valid[i + k]) & 0x3FU);
    out += code;
    i += length;
  }
  return out;
}

void append_utf8(char32_t code, std::string& out) {
  const auto byte = [&](char32_t value) { out += static_cast<char>(value); };
  if (code < 0x80) return byte(code);
  if (code < 0x800) {
    byte(0xC0 | code >> 6U);
  } else if (code < 0x10000) {
    byte(0xE0 | code >> 12U);
    byte(0x80 | (code >> 6U & 0x3FU));
  } else {
    byte(0xF0 | code >> 18U);
    byte(0x80 | (code >> 12U & 0x3FU));
    byte(0x80 | (code >> 6U & 0x3FU));
  }
  byte(0x80 | (code & 0x3FU));
}

}  // namespace

bool is_identifier(std::string_view text) {
  const std::u32string codes = code_points(text);
  return !codes.empty() && is_start(codes[0]) && std::all_of(codes.begin(), codes.end(), is_part) &&
         nfkc(codes) == codes;
}

std::vector<std::string> identifier_words(std::string_view text, char also_at) {
  std::vector<std::string> out;
  bool inside = false;
  for (const char32_t c : nfkc(code_points(text))) {
    if (!is_part(c) || (also_at != '\0' && c == static_cast<char32_t>(also_at))) {
      inside = false;
      continue;
    }
    if (!inside) out.emplace_back();
    append_utf8(c, out.back());
    inside = true;
  }
  return out;
}

}  // namespace onnx2nn
