#include "emit/runtime_source.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>

#include "support/error.h"
#include "support/text.h"
#include "torch/runtime_files.h"

namespace onnx2nn::emit {
namespace {

struct Item {
  std::string_view text;
  std::size_t order = 0;
  std::string_view file;
  std::vector<std::string_view> words;  // identifiers in it
};

struct Index {
  std::unordered_map<std::string_view, Item> items;
  std::map<std::string_view, std::vector<std::string_view>> imports;  // file -> lines
};

bool word_char(char c) {
  return is_alphanumeric(c) || c == '_';
}

/// Identifiers of Python text that can name a top-level function: not those in strings and
/// comments, nor attributes (`x.gather` is not the helper `gather`).
std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
    } else if (text.substr(i).starts_with("\"\"\"")) {
      const std::size_t end = text.find("\"\"\"", i + 3);
      i = end == std::string_view::npos ? text.size() : end + 3;
    } else if (c == '"' || c == '\'') {
      for (++i; i < text.size() && text[i] != c; ++i)
        if (text[i] == '\\') ++i;
      ++i;
    } else if (word_char(c)) {
      std::size_t j = i;
      while (j < text.size() && word_char(text[j])) ++j;
      if (i == 0 || text[i - 1] != '.') out.push_back(text.substr(i, j - i));
      i = j;
    } else {
      ++i;
    }
  }
  return out;
}

/// Top-level items of the helper files: a line that begins in column one begins one.
Index build_index() {
  Index index;
  std::size_t order = 0;
  for (const torch::RuntimeFile& file : torch::runtime_files()) {
    const std::string_view text = file.text;
    std::string_view name;
    std::size_t start = 0;
    const auto close = [&](std::size_t end) {
      if (name.empty()) return;
      std::string_view body = text.substr(start, end - start);
      while (!body.empty() && (body.back() == '\n' || body.back() == ' ')) body.remove_suffix(1);
      // Comments between two items belong to the next one; they are not copied.
      while (true) {
        const std::size_t nl = body.rfind('\n');
        if (nl == std::string_view::npos || body.substr(nl + 1, 1) != "#") break;
        body = body.substr(0, nl);
        while (!body.empty() && body.back() == '\n') body.remove_suffix(1);
      }
      Item item;
      item.text = body;
      item.order = order++;
      item.file = file.name;
      item.words = words_of(body);
      index.items.emplace(name, std::move(item));
      name = {};
    };
    bool in_docstring = false;
    bool in_import = false;
    for (std::size_t i = 0; i < text.size();) {
      std::size_t end = text.find('\n', i);
      if (end == std::string_view::npos) end = text.size();
      const std::string_view line = text.substr(i, end - i);
      const bool top = !line.empty() && line[0] != ' ' && line[0] != ')' && line[0] != ']' &&
                       line[0] != '}' && line[0] != '#';
      if (in_import) {
        in_import = line.find(')') == std::string_view::npos;
      } else if (in_docstring) {
        in_docstring = line.find("\"\"\"") == std::string_view::npos;
      } else if (top) {
        if (line.starts_with("\"\"\"")) {
          in_docstring = line.find("\"\"\"", 3) == std::string_view::npos;
        } else if (line.starts_with("import ") || line.starts_with("from ")) {
          close(i);
          in_import =
              line.find('(') != std::string_view::npos && line.find(')') == std::string_view::npos;
          if (!line.starts_with("from onnx2nn") && !line.starts_with("import torch") &&
              !line.starts_with("from torch ") && !line.starts_with("from __future__"))
            index.imports[file.name].push_back(line);
        } else if (line.starts_with("def ")) {
          close(i);
          name = line.substr(4, line.find('(') - 4);
          start = i;
        } else if (const std::size_t stop = line.find_first_of(" :=");
                   stop != std::string_view::npos && word_char(line[0])) {
          close(i);
          name = line.substr(0, stop);
          start = i;
        }
      }
      i = end + 1;
    }
    close(text.size());
  }
  return index;
}

const Index& index() {
  static const Index kIndex = build_index();
  return kIndex;
}

}  // namespace

bool is_runtime_name(std::string_view name) {
  return index().items.count(name) != 0;
}

RuntimeSource runtime_source(const std::set<std::string>& functions) {
  if (functions.empty()) return {};
  std::map<std::size_t, std::pair<std::string_view, const Item*>> chosen;
  std::vector<std::string_view> todo(functions.begin(), functions.end());
  std::set<std::string_view> seen(todo.begin(), todo.end());
  while (!todo.empty()) {
    const std::string_view f = todo.back();
    todo.pop_back();
    const auto it = index().items.find(f);
    if (it == index().items.end()) {
      ONNX2NN_CHECK(functions.count(std::string(f)) == 0,
                    "no runtime helper is called " + std::string(f));
      continue;
    }
    chosen[it->second.order] = {f, &it->second};
    for (const std::string_view w : it->second.words)
      if (index().items.count(w) != 0 && seen.insert(w).second) todo.push_back(w);
  }
  RuntimeSource out;
  std::set<std::string> imports;
  bool after_def = false;
  for (const auto& [_, pair] : chosen) {
    const auto& [name, item] = pair;
    const bool def = item->text.starts_with("def ");
    if (!out.text.empty()) out.text += def || after_def ? "\n\n" : "";
    out.text += std::string(item->text) + "\n";
    after_def = def;
    out.functions.emplace_back(name);
    const auto lines = index().imports.find(item->file);
    if (lines == index().imports.end()) continue;
    for (const std::string_view line : lines->second) {
      // Only what the copied text uses: the last word of "import numpy as np", "import math", and
      // each of "from collections.abc import Callable, Sequence" by itself.
      const auto uses = [&, used = &item->words](std::string_view word) {
        return std::find(used->begin(), used->end(), word) != used->end();
      };
      const auto words = words_of(line);
      if (!line.starts_with("from ")) {
        if (uses(words.back())) imports.insert(std::string(line));
        continue;
      }
      constexpr std::string_view kImport = " import ";
      const std::size_t at = line.find(kImport);
      for (const std::string_view word : words_of(line.substr(at + kImport.size())))
        if (uses(word)) imports.insert(std::string(line.substr(0, at)) + std::string(kImport) + std::string(word));
    }
  }
  out.imports.assign(imports.begin(), imports.end());
  return out;
}

}  // namespace onnx2nn::emit
