#include "torch/schema.h"

#include <unordered_map>

#include "torch/runtime_files.h"

namespace onnx2nn::torch {
namespace {

struct Signature {
  std::string_view arguments;
  std::string_view results;
};

std::unordered_map<std::string_view, Signature> index_schemas() {
  std::unordered_map<std::string_view, Signature> out;
  std::string_view text = aten_schemas();
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const std::size_t open = line.find('(');
    const std::size_t close = line.rfind(") ->");
    if (open == std::string_view::npos || close == std::string_view::npos) continue;
    out.emplace(line.substr(0, open),
                Signature{line.substr(open + 1, close - open - 1), line.substr(close + 5)});
  }
  return out;
}

const Signature* find_signature(std::string_view overload) {
  static const auto kSchemas = index_schemas();
  const auto it = kSchemas.find(overload);
  return it == kSchemas.end() ? nullptr : &it->second;
}

/// The first of several fields, which is taken off `rest`; commas inside brackets do not divide.
std::string_view next_field(std::string_view& rest) {
  int depth = 0;
  std::size_t end = 0;
  for (; end < rest.size(); ++end) {
    if (rest[end] == '[' || rest[end] == '(') ++depth;
    if (rest[end] == ']' || rest[end] == ')') --depth;
    if (rest[end] == ',' && depth == 0) break;
  }
  const std::string_view field = rest.substr(0, end);
  rest = end < rest.size() ? rest.substr(end + 2) : std::string_view();
  return field;
}

}  // namespace

std::vector<SchemaArg> schema_of(std::string_view overload, bool* known) {
  const Signature* signature = find_signature(overload);
  if (known != nullptr) *known = signature != nullptr;
  std::vector<SchemaArg> out;
  if (signature == nullptr) return out;
  std::string_view rest = signature->arguments;
  bool keyword_only = false;
  while (!rest.empty()) {
    std::string_view arg = next_field(rest);
    if (arg == "*") {
      keyword_only = true;
      continue;
    }
    SchemaArg a;
    a.keyword_only = keyword_only;
    if (const auto eq = arg.find('='); eq != std::string_view::npos) {
      a.default_text = arg.substr(eq + 1);
      arg = arg.substr(0, eq);
    }
    const auto space = arg.rfind(' ');
    a.type = arg.substr(0, space);
    a.name = arg.substr(space + 1);
    out.push_back(a);
  }
  return out;
}

std::vector<std::string_view> results_of(std::string_view overload) {
  const Signature* signature = find_signature(overload);
  std::vector<std::string_view> out;
  if (signature == nullptr) return out;
  std::string_view rest = signature->results;
  if (!rest.starts_with("(")) return {rest};
  rest = rest.substr(1, rest.size() - 2);
  while (!rest.empty()) {
    // "Tensor values": the type, and a name.
    std::string_view field = next_field(rest);
    out.push_back(field.substr(0, field.find(' ')));
  }
  return out;
}

}  // namespace onnx2nn::torch
