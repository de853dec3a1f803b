#include "support/text.h"

#include <algorithm>
#include <cstdint>

#include <fmt/core.h>

namespace onnx2nn {
namespace {

constexpr char32_t kInvalid = 0xFFFFFFFF;

/// Takes one character off the front of `rest`; a byte that starts none is taken alone.
char32_t take(std::string_view& rest) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(rest[i]); };
  const std::uint8_t lead = byte(0);
  std::size_t length = 1;
  char32_t c = lead;
  char32_t least = 0;
  if (lead >= 0x80) {
    if (lead >= 0xC2 && lead <= 0xDF) {
      length = 2, c = lead & 0x1F, least = 0x80;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      length = 3, c = lead & 0x0F, least = 0x800;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      length = 4, c = lead & 0x07, least = 0x10000;
    } else {
      c = kInvalid;
    }
    if (length > rest.size()) c = kInvalid;
    for (std::size_t i = 1; c != kInvalid && i < length; ++i) {
      if ((byte(i) & 0xC0) != 0x80) {
        c = kInvalid;
      } else {
        c = (c << 6) | (byte(i) & 0x3F);
      }
    }
    if (c < least || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) c = kInvalid;
  }
  rest.remove_prefix(c == kInvalid ? 1 : length);
  return c;
}

struct CharRange {
  char32_t first;
  char32_t last;
};

bool within(char32_t c, const CharRange& r) {
  return c >= r.first && c <= r.last;
}

/// Letters that are safe to show as they are: no blanks, marks, controls or right-to-left scripts.
bool is_plain(char32_t c) {
  constexpr CharRange kPlain[] = {{0x20, 0x7E},     {0xC0, 0x24F},    {0x391, 0x3A1},
                                  {0x3A3, 0x3C9},   {0x400, 0x45F},   {0x3041, 0x3096},
                                  {0x30A1, 0x30FA}, {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}};
  return std::any_of(std::begin(kPlain), std::end(kPlain),
                     [&](const CharRange& r) { return within(c, r); });
}

bool is_wide(char32_t c) {
  constexpr CharRange kWide[] = {{0x1100, 0x115F}, {0x2E80, 0x303E},   {0x3041, 0xA4CF},
                                 {0xAC00, 0xD7A3}, {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},
                                 {0xFF00, 0xFF60}, {0x1F300, 0x1FAFF}, {0x20000, 0x3FFFD}};
  return std::any_of(std::begin(kWide), std::end(kWide),
                     [&](const CharRange& r) { return within(c, r); });
}

void append_escape(std::string& out, char32_t c) {
  switch (c) {
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  const auto code = static_cast<std::uint32_t>(c);
  if (code < 0x100) {
    out += fmt::format("\\x{:02x}", code);
  } else if (code < 0x10000) {
    out += fmt::format("\\u{:04x}", code);
  } else {
    out += fmt::format("\\U{:08x}", code);
  }
}

std::string byte_escape(char byte) {
  return fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<std::uint8_t>(byte)));
}

/// What an invalid byte is in Python's names of files.
char32_t lone_surrogate(char byte) { return 0xDC00 + static_cast<std::uint8_t>(byte); }

/// A JSON string of ASCII; `invalid` says what stands for a byte that is no UTF-8.
template <typename Invalid>
std::string json_string(std::string_view text, Invalid&& invalid) {
  std::string out = "\"";
  while (!text.empty()) {
    const char first = text[0];
    const char32_t c = take(text);
    const auto code = static_cast<std::uint32_t>(c);
    if (c == kInvalid) {
      out += invalid(first);
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c >= 0x20 && c < 0x7F) {
      out += static_cast<char>(c);
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", code);
    } else {
      const std::uint32_t rest = code - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    }
  }
  return out + '"';
}

char python_quote_char(std::string_view text) {
  const auto singles = std::count(text.begin(), text.end(), '\'');
  const auto doubles = std::count(text.begin(), text.end(), '"');
  return doubles > singles ? '\'' : '"';
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    if (take(text) == kInvalid) return false;
  }
  return true;
}

std::string to_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::string_view before = text;
    if (take(text) == kInvalid) {
      out += byte_escape(before[0]);
    } else {
      out += before.substr(0, before.size() - text.size());
    }
  }
  return out;
}

std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::string_view before = text;
    if (take(text) == kInvalid) {
      out += "\xEF\xBF\xBD";
    } else {
      out += before.substr(0, before.size() - text.size());
    }
  }
  return out;
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::string_view before = text;
    const char32_t c = take(text);
    if (c == kInvalid) {
      out += byte_escape(before[0]);
    } else if (is_plain(c)) {
      out += before.substr(0, before.size() - text.size());
    } else {
      append_escape(out, c);
    }
  }
  return out;
}

std::string json_quote(std::string_view text) {
  return json_string(text, [](char byte) { return '\\' + byte_escape(byte); });
}

std::string json_quote_path(std::string_view text) {
  return json_string(text, [](char byte) {
    return fmt::format("\\u{:04x}", static_cast<std::uint32_t>(lone_surrogate(byte)));
  });
}

std::string python_quote(std::string_view text) {
  const char quote = python_quote_char(text);
  std::string out(1, quote);
  while (!text.empty()) {
    const std::string_view before = text;
    char32_t c = take(text);
    if (c == kInvalid) c = lone_surrogate(before[0]);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (is_plain(c)) {
      out += before.substr(0, before.size() - text.size());
    } else {
      append_escape(out, c);
    }
  }
  return out + quote;
}

std::string python_bytes(std::string_view bytes) {
  const char quote = python_quote_char(bytes);
  std::string out = "b";
  out += quote;
  for (const char c : bytes) {
    const auto code = static_cast<std::uint8_t>(c);
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (code >= 0x20 && code < 0x7F) {
      out += c;
    } else {
      append_escape(out, code);
    }
  }
  return out + quote;
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) width += is_wide(take(text)) ? 2 : 1;
  return width;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> fields;
  for (;;) {
    const std::size_t end = text.find(separator);
    fields.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return fields;
    text.remove_prefix(end + 1);
  }
}

std::string_view strip(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\f\v";
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::string to_lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = to_lower(c);
  return out;
}

bool is_number(std::string_view text) {
  return !text.empty() && text.size() < 8 && std::all_of(text.begin(), text.end(), is_digit);
}

}  // namespace onnx2nn
