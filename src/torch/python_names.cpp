#include "torch/python_names.h"

#include <algorithm>
#include <array>
#include <set>

#include "support/text.h"
#include "torch/reserved_names.h"

namespace onnx2nn::torch {

bool is_ascii_identifier(std::string_view s) {
  return !s.empty() && !is_digit(s[0]) &&
         std::all_of(s.begin(), s.end(), [](char c) { return is_alphanumeric(c) || c == '_'; });
}

bool is_python_keyword(std::string_view s) {
  static const std::set<std::string_view> kWords = {
      "False",   "None",     "True",     "and",    "as",   "assert", "async",  "await",
      "break",   "class",    "continue", "def",    "del",  "elif",   "else",   "except",
      "finally", "for",      "from",     "global", "if",   "import", "in",     "is",
      "lambda",  "nonlocal", "not",      "or",     "pass", "raise",  "return", "try",
      "while",   "with",     "yield",    "match",  "case"};
  return kWords.count(s) != 0;
}

bool is_argument_name(std::string_view s) {
  // Inside a class Python changes __a to _Class__a; __debug__ may not be set at all.
  return is_ascii_identifier(s) && !s.starts_with("__") && !is_python_keyword(s);
}

bool is_attribute_name(std::string_view s) {
  const bool special = s.starts_with("__") && s.ends_with("__");  // these Python leaves alone
  return is_argument_name(s) || s == "match" || s == "case" || (special && is_ascii_identifier(s));
}

bool is_source_name(std::string_view s) {
  static const std::set<std::string_view> kNames = {
      "Any",    "Callable", "F",          "Image",      "NotImplementedError", "OrderedDict",
      "Path",   "Sequence", "Tensor",     "ValueError", "_trace",
      "abs",    "all",      "any",        "bisect",     "bool",
      "cast",   "dict",     "enumerate",  "filter",     "float",
      "int",    "io",       "isinstance", "iter",       "len",
      "list",   "load",     "locale",     "map",        "math",
      "max",    "min",      "next",       "nn",         "np",
      "object", "print",    "range",      "re",         "reversed",
      "round",  "self",     "set",        "slice",      "sorted",
      "str",    "sum",      "super",      "torch",      "tuple",
      "type",   "zip"};
  return kNames.count(s) != 0;
}

bool is_module_member(std::string_view s) {
  return std::binary_search(kModuleNames.begin(), kModuleNames.end(), s);
}

bool is_container_member(std::string_view s) {
  return std::binary_search(kContainerNames.begin(), kContainerNames.end(), s);
}

}  // namespace onnx2nn::torch
