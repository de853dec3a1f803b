#include "cli/cli.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>

#include "cli/answer.h"
#include "cli/parse.h"
#include "cli/results.h"
#include "cli/signals.h"
#include "onnx2nn/convert.h"
#include "onnx2nn/simplify.h"
#include "output_paths.h"
#include "outputs.h"
#include "support/error.h"
#include "support/path.h"
#include "support/system.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

constexpr const char* kNotCheckedHere =
    "this program cannot check; the Python package does (pip install \"onnx2nn[verify]\", then "
    "onnx2nn verify)";

// ---- What is printed ----

void print_json(const Json& value) { std::cout << text_of(value) << "\n"; }

Json not_checked(const char* why) { return {{"ok", nullptr}, {"skipped", why}}; }

const char* why_not_checked(const Parsed& p) {
  return p.flag("no_check") ? "not asked for" : kNotCheckedHere;
}

/// Says what went wrong with a model, and gives the exit code.
ExitCode failure(const Parsed& p, const std::vector<DiagnosticInfo>& list,
                 const std::string& text, bool readable) {
  const ExitCode code = exit_code_of(list, readable);
  if (p.json) {
    Json out = result_of(p, code);
    out["error"] = std::string(strip(text));
    out["diagnostics"] = json_of(list);
    print_json(out);
  } else {
    std::cerr << text;
  }
  return code;
}

ExitCode failure(const Parsed& p, const Conversion& c) {
  return failure(p, c.diagnostics(), c.diagnostics_text(), c.readable());
}

ExitCode print(const Answer& answer) {
  std::cout << answer.out;
  std::cerr << answer.err;
  return answer.code;
}

ExitCode failure(const Parsed& p, ExitCode code, const std::string& message) {
  return print(failed(p, code, message));
}

// ---- What is given ----

FreeDims free_dims(const Parsed& p) {
  FreeDims out;
  out.batch = p.flag("dynamic_batch");
  for (const GivenShape& given : p.shapes("dynamic"))
    for (const InputDim& axis : given.dims)
      out.axes.emplace_back(given.input, std::get<std::int64_t>(axis));
  return out;
}

ConvertOptions convert_options(const Parsed& p) {
  ConvertOptions o;
  o.simplify = !p.flag("no_simplify");
  o.fuse = p.flag("fuse");
  o.class_name = p.text_of("class_name");
  o.allow_unknown = p.flag("allow_unknown");
  o.flat = p.flag("flat");
  o.tp_plan = p.flag("tp_plan");
  o.comments_origin = p.flag("comments_origin");
  if (const auto n = p.whole("max_shard_size")) o.max_shard_size = static_cast<std::uint64_t>(*n);
  o.force = p.flag("force");
  o.data_roots = p.texts("data_root");
  o.drop_undefined_outputs = p.flag("drop_undefined_outputs");
  o.input_shapes = input_shapes(p, p.text_of("model"));
  o.free_dims = free_dims(p);
  return o;
}

SimplifyOptions simplify_options(const Parsed& p) {
  SimplifyOptions o;
  o.input_shapes = input_shapes(p, p.text_of("model"));
  o.free_dims = free_dims(p);
  o.disabled = p.texts("disable");
  o.only = p.texts("only");
  o.why_not = p.texts("why_not");
  if (const auto n = p.whole("stop_after")) o.stop_after = static_cast<std::size_t>(*n);
  if (const auto n = p.whole("no_large_tensor")) o.max_constant = static_cast<std::uint64_t>(*n);
  o.opset = p.whole("opset");
  o.external_data = p.flag("external_data");
  o.force = p.flag("force");
  o.data_roots = p.texts("data_root");
  o.drop_undefined_outputs = p.flag("drop_undefined_outputs");
  return o;
}

// ---- Commands ----

ExitCode convert(const Parsed& p) {
  const std::string model = p.text_of("model");
  ConvertOptions options = convert_options(p);
  std::vector<std::string> written;
  if (const std::string path = p.text_of("simplify_path"); !path.empty()) {
    // Nothing is written unless all may be.
    if (!p.text_of("output").empty()) {
      const OutputPaths paths = output_paths(model, p.text_of("output"));
      Outputs outputs(model, {}, p.flag("force"));
      outputs.allow_in_place(path);
      for (const std::string& file : {path, paths.source, paths.weights}) outputs.check(file);
    }
    make_folder_of(path);
    const Simplified s = simplify_file(model, path, simplify_options(p));
    if (!s.ok) return failure(p, s.diagnostics, s.diagnostics_text, s.readable);
    written = s.files;
  }
  std::vector<DiagnosticInfo> diagnostics;
  Json out = result_of(p, kDone);
  // --simplify_path alone only simplifies.
  if (p.text_of("simplify_path").empty() || !p.text_of("output").empty()) {
    const OutputPaths paths = output_paths(model, p.text_of("output"));
    options.weights_name = paths.weights.substr(name_start(paths.weights));
    Conversion c = convert_file(model, options);
    if (!c.ok()) return failure(p, c);
    make_folder_of(paths.source);
    const auto files = c.write(paths.source, paths.weights);
    if (!c.ok()) return failure(p, c);
    written.insert(written.end(), files.begin(), files.end());
    diagnostics = c.diagnostics();
    if (!p.json && !p.flag("quiet")) std::cerr << c.diagnostics_text();
    out["class_name"] = c.class_name();
    out["inputs"] = json_of(c.inputs());
    out["outputs"] = json_of(c.outputs());
    out["stats"] = json_of(c.stats());
  }
  if (p.json) {
    out["files"] = written;
    out["diagnostics"] = json_of(diagnostics);
    out["check"] = not_checked(why_not_checked(p));
    print_json(out);
  } else if (!p.flag("quiet")) {
    for (const std::string& file : written) std::cout << "wrote " << printable(file) << "\n";
    std::cout << "NOT CHECKED: " << why_not_checked(p) << "\n";
  }
  return kDone;
}

ExitCode list_rules(const Parsed& p) {
  if (p.json) {
    Json out = result_of(p, kDone);
    out["rules"] = Json::object();
    for (const SimplifyRule& r : simplify_rules()) out["rules"][r.name] = r.what;
    print_json(out);
  } else {
    for (const SimplifyRule& r : simplify_rules())
      std::cout << fmt::format("{:<26} {}\n", r.name, r.what);
  }
  return kDone;
}

/// Operators before and after, by type, and what the rules did.
void print_table(const Simplified& s) {
  std::map<std::string, std::pair<std::size_t, std::size_t>> types;
  for (const auto& [type, n] : s.op_types_before) types[type].first = n;
  for (const auto& [type, n] : s.op_types_after) types[type].second = n;
  for (const auto& [type, n] : types)
    if (n.first != n.second)
      std::cout << fmt::format("{:8} -> {:<8} {}\n", n.first, n.second, printable(type));
  for (const auto& [rule, n] : s.rules) std::cout << fmt::format("{:8} times    {}\n", n, rule);
}

ExitCode simplify(const Parsed& p) {
  if (p.flag("list_rules")) return list_rules(p);
  const std::string model = p.text_of("model");
  const std::string path = simplified_path(model, p.text_of("out"));
  make_folder_of(path);
  const Simplified s = simplify_file(model, path, simplify_options(p));
  if (!s.ok) return failure(p, s.diagnostics, s.diagnostics_text, s.readable);
  if (p.json) {
    Json out = result_of(p, kDone);
    out["files"] = s.files;
    out["diagnostics"] = json_of(s.diagnostics);
    out["simplified"] = json_of(s);
    out["check"] = not_checked(why_not_checked(p));
    out["culprit"] = nullptr;
    print_json(out);
  } else if (!p.flag("quiet")) {
    print_table(s);
    for (const SimplifyMiss& m : s.misses)
      std::cout << m.rule << ": " << printable(m.node) << ": " << printable(m.reason) << "\n";
    std::cout << printable(model) << ": " << s.nodes_before << " -> " << s.nodes_after
              << " nodes\n";
    for (const std::string& file : s.files) std::cout << "wrote " << printable(file) << "\n";
    std::cout << "NOT CHECKED: " << why_not_checked(p) << "\n";
  }
  return kDone;
}

std::size_t columns() {
  if (const char* text = std::getenv("COLUMNS")) {
    const int n = std::atoi(text);
    if (n > 0) return static_cast<std::size_t>(n);
  }
  const std::size_t width = terminal_width().value_or(0);
  return width > 0 ? width : 80;
}

ExitCode run(const Parsed& p) {
  if (p.text) {
    std::cout << *p.text;
    return kDone;
  }
  if (!p.error.empty()) {
    const ExitCode code = failure(p, kUsage, p.error);
    if (!p.json) std::cerr << "usage: " << p.usage << "\n";
    return code;
  }
  try {
    if (p.command->name == "convert") return convert(p);
    if (p.command->name == "simplify") return simplify(p);
    const std::size_t width = terminal_width() ? columns() : 0;
    if (const auto found = answer(p, width)) return print(*found);
    std::cout << completion(p.text_of("shell"), Program::Native);
    return kDone;
  } catch (const Error& e) {
    return failure(p, e.code() == "bad-option" ? kUsage : kUnreadable,
                   e.hint().empty() ? e.message() : e.message() + "; " + e.hint());
  }
}

}  // namespace

int run(int argc, const char* const* argv) {
  Parsed parsed;
  set_up_output();
  try {
    parsed = parse(std::vector<std::string>(argv + std::min(argc, 1), argv + argc),
                   Program::Native, columns());
    const StopSignals signals;
    const int code = run(parsed);
    return StopSignals::received() == 0 || code == kDone ? code : 128 + StopSignals::received();
  } catch (const std::exception& e) {
    failure(parsed, kInternal, e.what());
    std::cerr << "onnx2nn: this is our fault, not the model's; please report it\n";
    return kInternal;
  }
}

}  // namespace onnx2nn::cli
