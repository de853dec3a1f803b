#include "torch/python_names.h"

#include <set>

namespace onnx2nn::torch {

bool is_python_keyword(std::string_view s) {
  static const std::set<std::string_view> kWords = {
      "False",   "None",     "True",     "and",    "as",   "assert", "async",  "await",
      "break",   "class",    "continue", "def",    "del",  "elif",   "else",   "except",
      "finally", "for",      "from",     "global", "if",   "import", "in",     "is",
      "lambda",  "nonlocal", "not",      "or",     "pass", "raise",  "return", "try",
      "while",   "with",     "yield",    "match",  "case"};
  return kWords.count(s) != 0;
}

}  // namespace onnx2nn::torch
