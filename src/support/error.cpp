#include "support/error.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <system_error>
#include <tuple>

#include <nlohmann/json.hpp>

#include "support/clipped.h"
#include "support/text.h"

namespace onnx2nn {

void fail_io(const std::string& what, int error_number) {
  throw Error("io", what + ": " + std::generic_category().message(error_number));
}

namespace detail {

void check_failed(const char* file, int line, const char* condition, const std::string& what) {
  const char* slash = std::strrchr(file, '/');
  throw InternalError(fmt::format("internal error at {}:{}: {} ({}); please report it",
                                  slash ? slash + 1 : file, line, what, condition));
}

}  // namespace detail

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::Error:
      return "error";
    case Severity::Warning:
      return "warning";
    case Severity::Note:
      return "note";
  }
  return "error";
}

namespace {

// Nobody reads more; a hostile model has as many as nodes, each with names as long as its file.
constexpr std::size_t kMostListed = 1000;
constexpr std::size_t kLongestText = 4000;

void shorten(std::string& text) {
  if (text.size() <= kLongestText) return;
  text.resize(clipped(text, kLongestText).size());
  text += "...";
}

}  // namespace

void Diagnostics::add(Diagnostic d) {
  if (list_.size() < kMostListed) {
    for (std::string* text : {&d.message, &d.node, &d.op_type, &d.domain, &d.inputs, &d.hint})
      shorten(*text);
    list_.push_back(std::move(d));
    return;
  }
  if (++unlisted_ == 1) {
    Diagnostic more;
    more.severity = d.severity;
    more.code = "more";
    list_.push_back(std::move(more));
  }
  Diagnostic& more = list_.back();
  if (d.severity == Severity::Error) more.severity = Severity::Error;
  more.message = fmt::format("{} more are not listed", unlisted_);
}

void Diagnostics::add(Severity severity, std::string code, std::string message, std::string hint) {
  Diagnostic d;
  d.severity = severity;
  d.code = std::move(code);
  d.message = std::move(message);
  d.hint = std::move(hint);
  add(std::move(d));
}

void Diagnostics::add(const Error& error) {
  add(Severity::Error, error.code(), error.message(), error.hint());
}

void Diagnostics::append(const Diagnostics& other) {
  for (const Diagnostic& d : other.list_) add(d);
}

std::size_t Diagnostics::count(Severity severity) const {
  return static_cast<std::size_t>(std::count_if(
      list_.begin(), list_.end(), [&](const Diagnostic& d) { return d.severity == severity; }));
}

namespace {

std::string printable_domain(const Diagnostic& d) {
  return d.domain.empty() ? "ai.onnx" : printable(d.domain);
}

void append_field(std::string& out, std::string_view label, std::string_view value) {
  bool first = true;
  for (std::string_view line : split(value, '\n')) {
    out += fmt::format("  {:<8}{}\n", first ? label : "", printable(line));
    first = false;
  }
}

// How many nodes are named that one and the same thing is wrong with.
constexpr std::size_t kShownNodes = 5;

using Group = std::vector<const Diagnostic*>;

/// Diagnostics that say the same of several nodes together, in order of their first.
std::vector<Group> grouped(const std::vector<Diagnostic>& list) {
  std::vector<Group> groups;
  const auto said = [](const Diagnostic& d) {
    return std::tie(d.severity, d.code, d.message, d.op_type, d.domain, d.opset);
  };
  std::map<decltype(said(list.front())), std::size_t> places;
  for (const Diagnostic& d : list) {
    const auto [at, is_new] = places.try_emplace(said(d), groups.size());
    if (is_new) groups.emplace_back();
    groups[at->second].push_back(&d);
  }
  return groups;
}

std::string node_text(const Diagnostic& d) {
  return d.node.empty() ? "(unnamed)" : printable(d.node);
}

}  // namespace

std::string Diagnostics::text(std::string_view file) const {
  std::string out;
  for (const Group& same : grouped(list_)) {
    const Diagnostic& d = *same.front();
    if (!file.empty()) out += printable(file) + ": ";
    out += fmt::format("{}[{}]: ", severity_name(d.severity), printable(d.code));
    // A message of ours may have several lines; the later ones are indented.
    bool first = true;
    for (std::string_view line : split(d.message, '\n')) {
      if (!first) out += "    ";
      out += printable(line) + "\n";
      first = false;
    }
    if (!d.node.empty() || !d.op_type.empty()) {
      out += "  node    " + node_text(d);
      if (!d.op_type.empty()) {
        out += fmt::format("   ({}::{}", printable_domain(d), printable(d.op_type));
        if (d.opset > 0) out += fmt::format(", opset {}", d.opset);
        out += ")";
      }
      out += "\n";
      for (std::size_t k = 1; k < std::min(same.size(), kShownNodes); ++k)
        out += "          " + node_text(*same[k]) + "\n";
      if (same.size() > kShownNodes)
        out += fmt::format("          and {} more\n", same.size() - kShownNodes);
    }
    if (!d.inputs.empty() && same.size() == 1) append_field(out, "inputs", d.inputs);
    if (!d.hint.empty()) append_field(out, "hint", d.hint);
  }
  return out;
}

std::string Diagnostics::summary(std::size_t nodes) const {
  std::size_t errors = 0;
  std::set<std::pair<std::string_view, std::string_view>> op_types;
  std::set<std::string_view> bad_nodes;
  for (const Diagnostic& d : list_) {
    if (d.severity != Severity::Error) continue;
    ++errors;
    if (!d.op_type.empty()) op_types.emplace(d.domain, d.op_type);
    if (!d.node.empty()) bad_nodes.insert(d.node);
  }
  const auto plural = [](std::size_t n, std::string_view word) {
    return fmt::format("{} {}{}", n, word, n == 1 ? "" : "s");
  };
  std::string out = plural(errors, "error");
  if (!op_types.empty()) out += " in " + plural(op_types.size(), "op type");
  if (nodes != 0 && bad_nodes.size() <= nodes)
    out += fmt::format("; {} of {} nodes are convertible", nodes - bad_nodes.size(), nodes);
  return out;
}

std::string Diagnostics::json() const {
  auto array = nlohmann::ordered_json::array();
  for (const Diagnostic& d : list_) {
    array.push_back({{"severity", severity_name(d.severity)},
                     {"code", d.code},
                     {"message", to_utf8(d.message)},
                     {"node", to_utf8(d.node)},
                     {"op_type", to_utf8(d.op_type)},
                     {"domain", to_utf8(d.domain)},
                     {"opset", d.opset},
                     {"inputs", to_utf8(d.inputs)},
                     {"hint", to_utf8(d.hint)}});
  }
  // ASCII alone: it may end on a terminal.
  return array.dump(2, ' ', true);
}

}  // namespace onnx2nn
