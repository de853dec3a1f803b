#include "emit/script_helpers.h"

#include <map>
#include <utility>

#include "support/text.h"
#include "torch/runtime_files.h"

namespace onnx2nn::emit {
namespace {

struct Entry {
  std::string_view text;
  ScriptHelper signature;
};

/// "x: Tensor,\n    n: int=3" by its commas outside of brackets and quotes.
std::vector<ScriptParameter> parameters_of(std::string_view text) {
  std::vector<ScriptParameter> out;
  int depth = 0;
  bool quoted = false;
  std::size_t begin = 0;
  const auto flush = [&](std::size_t end) {
    const std::string_view field = strip(text.substr(begin, end - begin));
    begin = end + 1;
    if (field.empty()) return;
    const std::size_t colon = field.find(':');
    const std::string_view rest = strip(field.substr(colon + 1));
    const std::size_t equals = rest.find('=');
    ScriptParameter p;
    p.name = std::string(field.substr(0, colon));
    p.type = std::string(rest.substr(0, equals));
    if (equals != std::string_view::npos) p.otherwise = std::string(rest.substr(equals + 1));
    out.push_back(std::move(p));
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '[' || c == '(') ++depth;
    if (c == ']' || c == ')') --depth;
    if (c == ',' && depth == 0) flush(i);
  }
  flush(text.size());
  return out;
}

/// Functions begin at the start of a line: "def name(...) -> type:".
std::map<std::string_view, Entry> index_helpers() {
  std::map<std::string_view, Entry> out;
  std::string_view all = torch::script_helpers();
  while (!all.empty()) {
    const std::size_t next = all.find("\ndef ");
    const std::string_view text = all.substr(0, next == std::string_view::npos ? next : next + 1);
    all.remove_prefix(text.size());
    const std::size_t open = text.find('(');
    const std::size_t arrow = text.find(") -> ");
    const std::size_t end = text.find(":\n", arrow);
    if (open == std::string_view::npos || end == std::string_view::npos) continue;
    Entry entry;
    entry.text = text;
    std::string_view params = text.substr(open + 1, arrow - open - 1);
    constexpr std::string_view kSelf = "self,";
    entry.signature.is_method = params.starts_with(kSelf);
    if (entry.signature.is_method) params.remove_prefix(kSelf.size());
    entry.signature.params = parameters_of(params);
    entry.signature.returns = std::string(text.substr(arrow + 5, end - arrow - 5));
    out.emplace(text.substr(4, open - 4), std::move(entry));
  }
  return out;
}

const std::map<std::string_view, Entry>& helpers() {
  static const auto kHelpers = index_helpers();
  return kHelpers;
}

}  // namespace

const ScriptHelper* script_helper(std::string_view name) {
  const auto it = helpers().find(name);
  return it == helpers().end() ? nullptr : &it->second.signature;
}

std::string_view script_helper_source(std::string_view name) { return helpers().at(name).text; }

std::string script_helper_text(const std::set<std::string>& names) {
  std::set<std::string> wanted;
  std::vector<std::string> open(names.begin(), names.end());
  const std::string prefix = std::string(kScriptHelpers) + ".";
  while (!open.empty()) {
    const std::string name = std::move(open.back());
    open.pop_back();
    const auto it = helpers().find(name);
    if (it == helpers().end() || !wanted.insert(name).second) continue;
    const std::string_view text = it->second.text;
    for (std::size_t at = text.find(prefix); at != std::string_view::npos;
         at = text.find(prefix, at + 1)) {
      const std::size_t begin = at + prefix.size();
      std::size_t end = begin;
      while (end < text.size() && (is_alphanumeric(text[end]) || text[end] == '_')) ++end;
      open.emplace_back(text.substr(begin, end - begin));
    }
  }
  std::string out;
  for (const std::string& name : wanted) {
    const Entry& helper = helpers().at(name);
    if (!helper.signature.is_method) out += helper.text;
  }
  return out;
}

}  // namespace onnx2nn::emit
