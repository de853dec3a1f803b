// Text: UTF-8, literals for Python and JSON, and small string helpers.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace onnx2nn {

/// Strict UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);
/// `text` with each invalid byte as an escape (\xff); what is valid stays as it is.
std::string to_utf8(std::string_view text);
/// `text` with U+FFFD for each invalid byte.
std::string replace_invalid(std::string_view text);

/// For a terminal or a comment: control, invisible and direction characters and invalid bytes
/// become escapes, so that the result is one line.
std::string printable(std::string_view text);

/// A JSON string, ASCII only, with the quotes; invalid bytes become escapes as to_utf8 writes them.
std::string json_quote(std::string_view text);
/// The same for what may name a file: invalid bytes become what Python reads them from the file system
/// as, \udc80 to \udcff.
std::string json_quote_path(std::string_view text);

/// A Python str literal as `ruff format` leaves it: double quotes, unless single ones save
/// escapes. Anything but plain letters, digits and signs is escaped; invalid bytes become what
/// Python reads them from the file system as, \udc80 to \udcff.
std::string python_quote(std::string_view text);
/// A Python bytes literal, in the same style.
std::string python_bytes(std::string_view bytes);
/// Columns that `text` takes, as formatters count them: 2 for wide East Asian characters.
std::size_t display_width(std::string_view text);

/// Fields between separators; an empty text is one empty field.
std::vector<std::string_view> split(std::string_view text, char separator);
std::string_view strip(std::string_view text);  // ASCII blanks at both ends
std::string to_lower(std::string_view text);    // ASCII only

// Of ASCII alone: those of <cctype> follow the locale, which the caller of a library chooses.
constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
constexpr bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
constexpr bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}
constexpr bool is_letter(char c) {
  return is_lower(c) || is_upper(c);
}
constexpr bool is_alphanumeric(char c) {
  return is_letter(c) || is_digit(c);
}
constexpr char to_lower(char c) {
  return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c;
}
constexpr char to_upper(char c) {
  return is_lower(c) ? static_cast<char>(c - 'a' + 'A') : c;
}

/// A number of few digits, as the 0 of layer1.0.conv1.
bool is_number(std::string_view text);

template <typename Range>
std::string join(const Range& parts, std::string_view separator) {
  std::string out;
  bool first = true;
  for (const auto& part : parts) {
    if (!first) out += separator;
    out += part;
    first = false;
  }
  return out;
}

}  // namespace onnx2nn
