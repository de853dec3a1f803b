#include "torch/schema.h"

#include <unordered_map>

#include "torch/runtime_files.h"

namespace onnx2nn::torch {
namespace {

std::unordered_map<std::string_view, std::string_view> index_schemas() {
  std::unordered_map<std::string_view, std::string_view> out;
  std::string_view text = aten_schemas();
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const std::size_t open = line.find('(');
    const std::size_t close = line.rfind(") ->");
    if (open == std::string_view::npos || close == std::string_view::npos) continue;
    out.emplace(line.substr(0, open), line.substr(open + 1, close - open - 1));
  }
  return out;
}

}  // namespace

std::vector<SchemaArg> schema_of(std::string_view overload, bool* known) {
  static const auto kSchemas = index_schemas();
  const auto it = kSchemas.find(overload);
  if (known != nullptr) *known = it != kSchemas.end();
  std::vector<SchemaArg> out;
  if (it == kSchemas.end()) return out;
  std::string_view rest = it->second;
  bool keyword_only = false;
  while (!rest.empty()) {
    int depth = 0;
    std::size_t end = 0;
    for (; end < rest.size(); ++end) {
      if (rest[end] == '[' || rest[end] == '(') ++depth;
      if (rest[end] == ']' || rest[end] == ')') --depth;
      if (rest[end] == ',' && depth == 0) break;
    }
    std::string_view arg = rest.substr(0, end);
    rest = end < rest.size() ? rest.substr(end + 2) : std::string_view();
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

}  // namespace onnx2nn::torch
