#include "cli/results.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>

namespace onnx2nn::cli {

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
    out.push_back({{"severity", d.severity}, {"code", d.code}, {"message", d.message},
                   {"node", d.node}, {"op_type", d.op_type}, {"domain", d.domain},
                   {"opset", d.opset}, {"inputs", d.inputs}, {"hint", d.hint}});
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
          shape.push_back(d);
        }
      }
    }
    out.push_back({{"name", p.name}, {"py_name", p.py_name}, {"kind", p.kind},
                   {"dtype", p.dtype}, {"shape", shape}});
  }
  return out;
}

Json json_of(const ConversionStats& s) {
  return {{"nodes_before", s.nodes_before}, {"nodes_after", s.nodes_after},
          {"weight_bytes", s.weight_bytes}, {"op_types", s.op_types},
          {"rules", s.rules},               {"ir_version", s.ir_version},
          {"producer", s.producer},         {"opsets", s.opsets}};
}

Json json_of(const Simplified& s) {
  Json misses = Json::array();
  for (const SimplifyMiss& m : s.misses) misses.push_back({m.rule, m.node, m.reason});
  return {{"nodes_before", s.nodes_before},
          {"nodes_after", s.nodes_after},
          {"op_types_before", s.op_types_before},
          {"op_types_after", s.op_types_after},
          {"weight_bytes_before", s.weight_bytes_before},
          {"weight_bytes_after", s.weight_bytes_after},
          {"rules", s.rules},
          {"misses", misses}};
}

void add_inspection(Json& out, const Conversion& c) {
  const ConversionStats& s = c.stats();
  out["convertible"] = c.ok();
  out["producer"] = s.producer;
  out["ir_version"] = s.ir_version;
  out["opsets"] = s.opsets;
  out["nodes"] = s.nodes_before;
  out["nodes_after"] = s.nodes_after;
  out["weight_bytes"] = s.weight_bytes;
  out["inputs"] = json_of(c.inputs());
  out["outputs"] = json_of(c.outputs());
  out["op_types"] = s.op_types;
  out["diagnostics"] = json_of(c.diagnostics());
}

std::string text_of(const Json& value) {
  return value.dump(2, ' ', true, Json::error_handler_t::replace);
}

}  // namespace onnx2nn::cli
