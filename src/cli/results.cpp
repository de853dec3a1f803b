#include "cli/results.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>

#include "support/text.h"

namespace onnx2nn::cli {
namespace {

/// What is between two values, or a value and its bracket.
void append_break(std::string& out, std::size_t indent, std::size_t depth) {
  if (indent == 0) return;
  out += '\n';
  out.append(indent * depth, ' ');
}

/// As nlohmann's dump(), but for strings: it knows no lone surrogates. What we make is a few levels deep.
void append(std::string& out, const Json& value, std::size_t indent, std::size_t depth) {
  if (value.is_string()) {
    out += json_quote_path(value.get_ref<const std::string&>());
    return;
  }
  if (!value.is_structured() || value.empty()) {
    out += value.dump();
    return;
  }
  out += value.is_object() ? '{' : '[';
  bool first = true;
  for (auto it = value.begin(); it != value.end(); ++it) {
    if (!first) out += indent == 0 ? ", " : ",";
    first = false;
    append_break(out, indent, depth + 1);
    if (value.is_object()) out += json_quote_path(it.key()) + ": ";
    append(out, *it, indent, depth + 1);
  }
  append_break(out, indent, depth);
  out += value.is_object() ? '}' : ']';
}

}  // namespace

ExitCode exit_code_of(const std::vector<DiagnosticInfo>& list, bool readable) {
  const auto says = [&](std::string_view code) {
    return std::any_of(list.begin(), list.end(), [&](const DiagnosticInfo& d) {
      return d.severity == "error" && d.code == code;
    });
  };
  if (says("internal")) return kInternal;
  if (says("cancelled")) return kInterrupted;
  if (says("bad-option") || says("input-shape")) return kUsage;
  if (!readable || says("io") || says("would-overwrite")) return kUnreadable;
  return kWrong;
}

Json json_of(const std::vector<DiagnosticInfo>& list) {
  Json out = Json::array();
  for (const DiagnosticInfo& d : list)
    out.push_back({{"severity", d.severity},
                   {"code", d.code},
                   {"message", model_text(d.message)},
                   {"node", model_text(d.node)},
                   {"op_type", model_text(d.op_type)},
                   {"domain", model_text(d.domain)},
                   {"opset", d.opset},
                   {"inputs", model_text(d.inputs)},
                   {"hint", model_text(d.hint)}});
  return out;
}

Json json_of(const std::vector<PortInfo>& list) {
  Json out = Json::array();
  for (const PortInfo& p : list) {
    Json shape = nullptr;
    if (p.shape) {
      shape = Json::array();
      for (const std::string& d : *p.shape) {
        std::int64_t number = 0;
        const auto r = std::from_chars(d.data(), d.data() + d.size(), number);
        if (d == "?") {
          shape.push_back(nullptr);
        } else if (r.ec == std::errc() && r.ptr == d.data() + d.size()) {
          shape.push_back(number);
        } else {
          shape.push_back(model_text(d));
        }
      }
    }
    out.push_back({{"name", model_text(p.name)},
                   {"py_name", model_text(p.py_name)},
                   {"kind", p.kind},
                   {"dtype", p.dtype},
                   {"shape", shape}});
  }
  return out;
}

Json json_of(const ConversionStats& s) {
  return {{"nodes_before", s.nodes_before},
          {"nodes_after", s.nodes_after},
          {"weight_bytes", s.weight_bytes},
          {"op_types", json_of(s.op_types)},
          {"rules", json_of(s.rules)},
          {"ir_version", s.ir_version},
          {"producer", model_text(s.producer)},
          {"opsets", json_of(s.opsets)}};
}

Json json_of(const Simplified& s) {
  Json misses = Json::array();
  for (const SimplifyMiss& m : s.misses) 
    misses.push_back({m.rule, model_text(m.node), model_text(m.reason)});
  return {{"nodes_before", s.nodes_before},
          {"nodes_after", s.nodes_after},
          {"op_types_before", json_of(s.op_types_before)},
          {"op_types_after", json_of(s.op_types_after)},
          {"weight_bytes_before", s.weight_bytes_before},
          {"weight_bytes_after", s.weight_bytes_after},
          {"rules", json_of(s.rules)},
          {"misses", misses}};
}

std::string model_text(std::string_view text) { return replace_invalid(text); }

Json model_texts(const std::vector<std::string>& list) {
  Json out = Json::array();
  for (const std::string& text : list) out.push_back(model_text(text));
  return out;
}

std::string text_of(const Json& value, std::size_t indent) {
  std::string out;
  append(out, value, indent, 0);
  return out;
}

}  // namespace onnx2nn::cli
