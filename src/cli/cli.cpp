#include "cli/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "onnx2nn/convert.h"
#include "onnx2nn/simplify.h"
#include "onnx2nn/version.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

enum ExitCode { kDone = 0, kWrong = 1, kUnreadable = 2, kInternal = 3 };

struct Arguments {
  std::string model;
  std::string output;
  std::vector<std::string> input_shapes;
  std::string class_name;
  bool no_simplify = false;
  bool fuse = false;
  bool no_check = false;
  std::vector<std::string> why_not;
  std::uint64_t max_constant = std::numeric_limits<std::uint64_t>::max();
  bool allow_unknown = false;
  bool origin = false;
  bool quiet = false;
  bool json = false;
  std::vector<std::string> disabled;
  std::vector<std::string> only;
  std::size_t stop_after = std::numeric_limits<std::size_t>::max();
  std::optional<std::int64_t> opset;
  bool external_data = false;
  bool list_rules = false;
};

/// "name:1,3,224,224"; the name itself may hold colons.
std::pair<std::string, std::vector<std::int64_t>> parse_shape(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0)
    throw CLI::ValidationError("--input_shape", "write it as name:1,3,224,224");
  std::vector<std::int64_t> dims;
  for (std::size_t at = colon + 1; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    std::int64_t v = 0;
    const auto r = std::from_chars(text.data() + at, text.data() + end, v);
    if (r.ec != std::errc() || r.ptr != text.data() + end)
      throw CLI::ValidationError("--input_shape", "write it as name:1,3,224,224");
    dims.push_back(v);
    at = end + 1;
  }
  return {text.substr(0, colon), dims};
}

ConvertOptions options_of(const Arguments& a) {
  ConvertOptions o;
  o.simplify = !a.no_simplify;
  o.fuse = a.fuse;
  o.class_name = a.class_name;
  o.allow_unknown = a.allow_unknown;
  o.comments_origin = a.origin;
  for (const std::string& s : a.input_shapes) o.input_shapes.insert(parse_shape(s));
  return o;
}

int failure(const Conversion& c, const Arguments& a) {
  if (a.json) {
    std::cout << c.diagnostics_json() << "\n";
  } else {
    std::cerr << c.diagnostics_text();
  }
  const auto& list = c.diagnostics();
  if (std::any_of(list.begin(), list.end(),
                  [](const DiagnosticInfo& d) { return d.code == "internal"; }))
    return kInternal;
  return c.readable() ? kWrong : kUnreadable;
}

int convert(const Arguments& a) {
  namespace fs = std::filesystem;
  ConvertOptions options = options_of(a);
  fs::path python =
      a.output.empty() ? fs::path(a.model).stem().replace_extension(".py") : fs::path(a.output);
  std::string weights;
  if (python.extension() == ".pth") {
    weights = python.string();
    python.replace_extension(".py");
  } else if (python.extension() != ".py") {
    std::cerr << "onnx2nn: the output must end in .py or .pth\n";
    return kWrong;
  } else {
    weights = fs::path(python).replace_extension(".safetensors").string();
  }
  options.weights_name = fs::path(weights).filename().string();
  Conversion c = convert_file(a.model, options);
  if (!c.ok()) return failure(c, a);
  const auto written = c.write(python.string(), weights);
  if (!c.ok()) return failure(c, a);
  if (a.json) {
    std::cout << nlohmann::json{{"written", written}, {"checked", false}}.dump() << "\n";
  } else if (!a.quiet) {
    for (const std::string& file : written) std::cout << "wrote " << file << "\n";
    std::cout << "not checked: that needs torch and ONNX Runtime (pip install onnx2nn[verify], "
                 "then onnx2nn verify)\n";
  }
  return kDone;
}

int inspect(const Arguments& a) {
  const Conversion c = convert_file(a.model, options_of(a));
  if (!c.readable()) return failure(c, a);
  const ConversionStats& s = c.stats();
  if (a.json) {
    nlohmann::json out{{"nodes", s.nodes_before},
                       {"op_types", s.op_types},
                       {"opsets", s.opsets},
                       {"convertible", c.ok()}};
    out["diagnostics"] = nlohmann::json::parse(c.diagnostics_json());
    std::cout << out.dump(2) << "\n";
    return c.ok() ? kDone : kWrong;
  }
  std::cout << a.model << ": " << s.nodes_before << " nodes, " << s.nodes_after << " simplified\n";
  for (const auto& [domain, version] : s.opsets)
    std::cout << "opset " << (domain.empty() ? "ai.onnx" : domain) << " " << version << "\n";
  for (const auto& [type, count] : s.op_types) std::printf("%8zu  %s\n", count, type.c_str());
  std::cout << std::flush << (c.ok() ? "converts\n" : c.diagnostics_text());
  return c.ok() ? kDone : kWrong;
}

int list_rules() {
  for (const SimplifyRule& r : simplify_rules())
    std::printf("%-26s %s\n", r.name.c_str(), r.what.c_str());
  return kDone;
}

/// Operators before and after, by type, and what the rules did.
void print_table(const Simplified& s) {
  std::map<std::string, std::pair<std::size_t, std::size_t>> types;
  for (const auto& [type, n] : s.op_types_before) types[type].first = n;
  for (const auto& [type, n] : s.op_types_after) types[type].second = n;
  for (const auto& [type, n] : types)
    if (n.first != n.second) std::printf("%8zu -> %-8zu %s\n", n.first, n.second, type.c_str());
  for (const auto& [rule, n] : s.rules) std::printf("%8zu times    %s\n", n, rule.c_str());
  std::fflush(stdout);
}

int simplify(const Arguments& a) {
  namespace fs = std::filesystem;
  if (a.list_rules) return list_rules();
  if (a.model.empty()) throw CLI::RequiredError("model");
  SimplifyOptions options;
  for (const std::string& s : a.input_shapes) options.input_shapes.insert(parse_shape(s));
  options.disabled = a.disabled;
  options.only = a.only;
  options.stop_after = a.stop_after;
  options.why_not = a.why_not;
  options.max_constant = a.max_constant;
  options.opset = a.opset;
  options.external_data = a.external_data;
  const std::string out =
      a.output.empty() ? fs::path(a.model).stem().string() + "-simple.onnx" : a.output;
  const Simplified s = simplify_file(a.model, out, options);
  if (!s.ok) {
    (a.json ? std::cout : std::cerr) << (a.json ? s.diagnostics_json + "\n" : s.diagnostics_text);
    return s.readable ? kWrong : kUnreadable;
  }
  if (a.json) {
    std::cout << nlohmann::json{{"written", s.files},
                                {"checked", false},
                                {"nodes_before", s.nodes_before},
                                {"nodes_after", s.nodes_after},
                                {"rules", s.rules}}
                     .dump()
              << "\n";
  } else if (!a.quiet) {
    print_table(s);
    for (const SimplifyMiss& m : s.misses)
      std::cout << m.rule << ": " << printable(m.node) << ": " << printable(m.reason) << "\n";
    std::cout << a.model << ": " << s.nodes_before << " -> " << s.nodes_after << " nodes\n";
    for (const std::string& file : s.files) std::cout << "wrote " << file << "\n";
    std::cout << "not checked: that needs ONNX Runtime (pip install onnx2nn[verify], then onnx2nn "
                 "verify)\n";
  }
  return kDone;
}

void add_simplify(CLI::App& app, Arguments& a) {
  app.add_option("model", a.model, "an ONNX file");
  app.add_option("out", a.output, "where to write (default: MODEL-simple.onnx here)");
  app.add_option("--input_shape,--input-shape,--overwrite-input-shape", a.input_shapes,
                 "fixes the shape of an input, such as input:1,3,224,224");
  app.add_option("--disable,--skip-optimization", a.disabled,
                 "a rule that is not to be used; may be repeated");
  app.add_option("--only", a.only, "a rule that is to be used, and no other; may be repeated");
  app.add_option("--why-not", a.why_not, "say why this rule left nodes alone; may be repeated");
  app.add_option("--no-large-tensor", a.max_constant, "make no constant above this size by folding")
      ->transform(CLI::AsSizeValue(false))
      ->expected(0, 1)
      ->default_str("1KB");
  app.add_flag("--no-check,--no-verify", a.no_check, "do not check, as this program never does");
  app.add_option("--stop-after", a.stop_after, "stop after so many rewrites");
  app.add_option("--opset", a.opset, "bring the model to this opset of ai.onnx, a newer one");
  app.add_flag("--external-data,--save-as-external-data", a.external_data,
               "write the weights to OUT.data");
  app.add_flag("--list-rules", a.list_rules, "print the rules and what they do");
  app.add_flag("--json", a.json, "print one JSON object and nothing else");
  app.add_flag("-q,--quiet", a.quiet, "print only what is wrong");
}

void add_common(CLI::App& app, Arguments& a) {
  app.add_option("model", a.model, "an ONNX file")->required();
  app.add_option("--input_shape,--input-shape,--overwrite-input-shape", a.input_shapes,
                 "fixes the shape of an input, such as input:1,3,224,224; may be repeated");
  app.add_flag("--no-simplify", a.no_simplify, "convert the graph as it is");
  app.add_flag("--allow-unknown", a.allow_unknown,
               "write a stub that raises for each operator that is not known");
  app.add_flag("--json", a.json, "print one JSON object and nothing else");
  app.add_flag("-q,--quiet", a.quiet, "print only what is wrong");
}

}  // namespace

int run(int argc, const char* const* argv) {
  Arguments a;
  CLI::App app{"ONNX models as readable PyTorch source.", "onnx2nn"};
  app.set_version_flag("--version", std::string("onnx2nn ") + kVersion);
  app.require_subcommand(1);
  app.footer(
      "examples:\n  onnx2nn convert model.onnx -o net.py   source and weights\n  onnx2nn inspect "
      "model.onnx             what is in it, and what would not convert");
  CLI::App* converting = app.add_subcommand("convert", "write PyTorch source and weights");
  add_common(*converting, a);
  converting->add_option("-o,--output", a.output, "net.py, or net.pth for weights as a state_dict");
  converting->add_flag("--fuse", a.fuse, "fold batch normalisation into weights, for inference");
  converting->add_flag("--no-check,--no-verify", a.no_check,
                       "do not check, as this program never does");
  converting->add_option("--class-name", a.class_name, "of the emitted class");
  converting->add_flag("--comments-origin", a.origin, "name the ONNX node behind each line");
  CLI::App* inspecting =
      app.add_subcommand("inspect", "what is in a model, and what would not convert");
  add_common(*inspecting, a);
  CLI::App* simplifying =
      app.add_subcommand("simplify", "write a smaller ONNX model that does the same");
  add_simplify(*simplifying, a);
  try {
    app.parse(argc, argv);
    return *converting ? convert(a) : *simplifying ? simplify(a) : inspect(a);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kDone : kWrong;
  } catch (const std::exception& e) {
    std::cerr << "onnx2nn: " << e.what() << "\n";
    return kInternal;
  }
}

}  // namespace onnx2nn::cli
