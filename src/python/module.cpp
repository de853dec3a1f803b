// The native module: the public API, as Python sees it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "cli/answer.h"
#include "cli/parse.h"
#include "onnx2nn/convert.h"
#include "onnx2nn/interrupt.h"
#include "onnx2nn/ops.h"
#include "onnx2nn/simplify.h"
#include "output_paths.h"
#include "support/error.h"
#include "support/suggest.h"
#include "support/text.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

/// Text of a model, which may be no UTF-8: what is none becomes U+FFFD.
nb::str text(std::string_view bytes) {
  const std::string utf8 = onnx2nn::to_utf8(bytes);
  return nb::str(utf8.data(), utf8.size());
}

/// Bytes of the file system as Python has them.
nb::object path_text(const std::string& path) {
  return nb::steal(
      PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
}

nb::list path_list(const std::vector<std::string>& paths) {
  nb::list out;
  for (const std::string& p : paths) out.append(path_text(p));
  return out;
}

/// A str, bytes or os.PathLike; TypeError for anything else.
std::string path_of(nb::handle path) {
  PyObject* bytes = nullptr;
  if (PyUnicode_FSConverter(path.ptr(), &bytes) == 0) throw nb::python_error();
  const auto owned = nb::steal<nb::bytes>(bytes);
  return {owned.c_str(), owned.size()};
}

template <typename Map>
nb::dict counts(const Map& map) {
  nb::dict out;
  for (const auto& [key, count] : map) out[text(key)] = count;
  return out;
}

/// The value of an option; TypeError, with the option's name, where it is not `what`.
template <typename T>
T option(const std::string& name, nb::handle value, const char* what) {
  T out{};
  if (!nb::try_cast<T>(value, out))
    throw nb::type_error((name + ": " + nb::repr(value).c_str() + " is not " + what).c_str());
  return out;
}

bool boolean(const std::string& name, nb::handle value) {
  return option<bool>(name, value, "True or False");
}

std::vector<std::string> names(const std::string& name, nb::handle value) {
  return option<std::vector<std::string>>(name, value, "a list of str");
}

onnx2nn::InputShapes shapes(const std::string& name, nb::handle value) {
  return option<onnx2nn::InputShapes>(name, value, "a dict of lists of int or str by input name");
}

std::vector<std::string> folders(const std::string& name, nb::handle value) {
  std::vector<std::string> out;
  for (const auto& folder : option<nb::list>(name, value, "a list of folders"))
    out.push_back(path_of(folder));
  return out;
}

/// A number of bytes, or a text such as "5GB".
std::uint64_t bytes_of(const std::string& name, nb::handle value) {
  constexpr const char* kWhat = "a whole number of bytes, or a size like \"5GB\"";
  if (!nb::isinstance<nb::str>(value)) return option<std::uint64_t>(name, value, kWhat);
  const auto bytes = onnx2nn::cli::size_of(nb::cast<std::string>(value), onnx2nn::cli::kDecimal);
  if (!bytes)
    throw nb::value_error((name + ": " + nb::repr(value).c_str() + " is not " + kWhat).c_str());
  return static_cast<std::uint64_t>(*bytes);
}

/// What a signal handler of Python's raised during native work on this thread.
thread_local std::optional<nb::python_error> raised;

/// Runs native work without the interpreter's lock, and handlers of signals now and then: where one
/// raises, as that of Ctrl-C does, the work is stopped and its exception goes on from here.
template <typename Work>
auto run_native(Work&& work) {
  const auto release_and_run = [&] {
    const nb::gil_scoped_release release;
    onnx2nn::set_interrupt_check([] {
      const nb::gil_scoped_acquire acquire;
      if (PyErr_CheckSignals() == 0) return false;
      raised.emplace();
      return true;
    });
    struct End {
      End() = default;
      End(const End&) = delete;
      End& operator=(const End&) = delete;
      ~End() { onnx2nn::set_interrupt_check(nullptr); }
    } const end;
    return work();
  };
  auto result = release_and_run();
  if (raised) {
    nb::python_error error = std::move(*raised);
    raised.reset();
    throw error;
  }
  return result;
}

nb::dict external_files(nb::handle model, const std::vector<std::string>& locations,
                        nb::handle data_roots) {
  nb::dict out;
  for (const auto& [location, path] :
       onnx2nn::external_files(path_of(model), locations, folders("data_roots", data_roots)))
    out[nb::str(location.data(), location.size())] = path_text(path);
  return out;
}

onnx2nn::ConvertOptions options_of(const nb::dict& d) {
  onnx2nn::ConvertOptions o;
  for (const auto& [key, value] : d) {
    const auto k = nb::cast<std::string>(key);
    if (value.is_none()) continue;
    if (k == "simplify") {
      o.simplify = boolean(k, value);
    } else if (k == "fuse") {
      o.fuse = boolean(k, value);
    } else if (k == "input_shapes") {
      o.input_shapes = shapes(k, value);
    } else if (k == "dynamic_batch") {
      o.free_dims.batch = boolean(k, value);
    } else if (k == "dynamic") {
      o.free_dims.axes = option<std::vector<std::pair<std::string, std::int64_t>>>(
          k, value, "a list of names and axes");
    } else if (k == "class_name") {
      o.class_name = option<std::string>(k, value, "a str");
    } else if (k == "weights_name") {
      o.weights_name = option<std::string>(k, value, "a str");
    } else if (k == "max_shard_size") {
      o.max_shard_size = bytes_of(k, value);
    } else if (k == "trace") {
      o.trace = boolean(k, value);
    } else if (k == "tp_plan") {
      o.tp_plan = boolean(k, value);
    } else if (k == "flat") {
      o.flat = boolean(k, value);
    } else if (k == "comments_origin") {
      o.comments_origin = boolean(k, value);
    } else if (k == "custom_ops") {
      for (const auto& entry : nb::cast<nb::list>(value)) {
        const auto op = nb::cast<std::map<std::string, std::string>>(entry);
        o.custom_ops.push_back({op.at("domain"), op.at("op_type"), op.at("name"), op.at("source")});
      }
    } else if (k == "allow_unknown") {
      o.allow_unknown = boolean(k, value);
    } else if (k == "force") {
      o.force = boolean(k, value);
    } else if (k == "data_roots") {
      o.data_roots = folders(k, value);
    } else if (k == "drop_undefined_outputs") {
      o.drop_undefined_outputs = boolean(k, value);
    } else {
      throw nb::type_error(("unknown option " + k).c_str());
    }
  }
  return o;
}

onnx2nn::Conversion convert(const nb::object& model, const nb::dict& options) {
  const auto o = options_of(options);
  if (nb::isinstance<nb::bytes>(model)) {
    const auto b = nb::cast<nb::bytes>(model);
    std::string bytes(b.c_str(), b.size());
    return run_native([&] { return onnx2nn::convert_bytes(std::move(bytes), o); });
  }
  const std::string path = path_of(model);
  return run_native([&] { return onnx2nn::convert_file(path, o); });
}

nb::object shape_of(const std::optional<std::vector<std::string>>& shape) {
  if (!shape) return nb::none();
  nb::list out;
  for (const std::string& d : *shape) {
    if (d == "?") {
      out.append(nb::none());
    } else if (d.find_first_not_of("0123456789") == std::string::npos) {
      out.append(nb::int_(std::stoll(d)));
    } else {
      out.append(text(d));
    }
  }
  return out;
}

nb::list ports(const std::vector<onnx2nn::PortInfo>& list) {
  nb::list out;
  for (const auto& p : list) {
    nb::dict d;
    d["name"] = text(p.name);
    d["py_name"] = text(p.py_name);
    d["kind"] = p.kind;
    d["dtype"] = p.dtype;
    d["shape"] = shape_of(p.shape);
    out.append(d);
  }
  return out;
}

nb::list weights(const onnx2nn::Conversion& c) {
  nb::list out;
  for (const auto& w : c.weights()) {
    nb::dict d;
    d["key"] = text(w.key);
    d["dtype"] = w.dtype;
    d["shape"] = w.shape;
    d["requires_grad"] = w.trainable;
    d["is_buffer"] = w.is_buffer;
    d["file"] = w.file.empty() ? nb::object(nb::none()) : path_text(w.file);
    d["offset"] = w.offset;
    d["nbytes"] = w.nbytes;
    d["transpose"] = w.transpose;
    d["quantized"] = w.quantized.empty() ? nb::object(nb::none()) : text(w.quantized);
    d["persistent"] = w.persistent;
    nb::list pieces;
    for (const auto& piece : w.pieces) {
      nb::dict e;
      e["file"] = piece.file.empty() ? nb::object(nb::none()) : path_text(piece.file);
      e["offset"] = piece.file_offset;
      e["nbytes"] = piece.nbytes;
      e["start"] = piece.offset;
      e["rows"] = piece.rows;
      e["columns"] = piece.columns;
      e["stride"] = piece.stride;
      e["transpose"] = piece.transpose;
      pieces.append(e);
    }
    d["pieces"] = pieces;
    d["onnx_name"] = text(w.onnx_name);
    out.append(d);
  }
  return out;
}

nb::list diagnostics(const std::vector<onnx2nn::DiagnosticInfo>& list) {
  nb::list out;
  for (const auto& d : list) {
    nb::dict e;
    e["severity"] = text(d.severity);
    e["code"] = text(d.code);
    e["message"] = text(d.message);
    e["node"] = text(d.node);
    e["op_type"] = text(d.op_type);
    e["domain"] = text(d.domain);
    e["opset"] = d.opset;
    e["inputs"] = text(d.inputs);
    e["hint"] = text(d.hint);
    out.append(e);
  }
  return out;
}

nb::dict stats(const onnx2nn::Conversion& c) {
  const auto& s = c.stats();
  nb::dict d;
  d["nodes_before"] = s.nodes_before;
  d["nodes_after"] = s.nodes_after;
  d["weight_bytes"] = s.weight_bytes;
  d["op_types"] = counts(s.op_types);
  d["rules"] = counts(s.rules);
  d["ir_version"] = s.ir_version;
  d["producer"] = text(s.producer);
  d["opsets"] = counts(s.opsets);
  return d;
}

nb::object weight_data(const onnx2nn::Conversion& c, std::size_t i, std::size_t piece) {
  if (i >= c.weights().size()) throw nb::index_error("no such weight");
  const std::string_view bytes = c.weight_bytes(i, piece);
  auto* copy = new std::string(bytes);
  const nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::string*>(p); });
  return nb::cast(
      nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>(copy->data(), {copy->size()}, owner));
}

onnx2nn::SimplifyOptions simplify_options_of(const nb::dict& d) {
  onnx2nn::SimplifyOptions o;
  for (const auto& [key, value] : d) {
    const auto k = nb::cast<std::string>(key);
    if (value.is_none()) continue;
    if (k == "input_shapes") {
      o.input_shapes = shapes(k, value);
    } else if (k == "dynamic_batch") {
      o.free_dims.batch = boolean(k, value);
    } else if (k == "dynamic") {
      o.free_dims.axes = option<std::vector<std::pair<std::string, std::int64_t>>>(
          k, value, "a list of names and axes");
    } else if (k == "disabled") {
      o.disabled = names(k, value);
    } else if (k == "only") {
      o.only = names(k, value);
    } else if (k == "why_not") {
      o.why_not = names(k, value);
    } else if (k == "stop_after") {
      o.stop_after = option<std::size_t>(k, value, "a whole number from 0");
    } else if (k == "opset") {
      o.opset = option<std::int64_t>(k, value, "an opset");
    } else if (k == "max_constant") {
      o.max_constant = option<std::uint64_t>(k, value, "a number of bytes");
    } else if (k == "external_data") {
      o.external_data = boolean(k, value);
    } else if (k == "staging") {
      o.staging = path_of(value);
    } else if (k == "force") {
      o.force = boolean(k, value);
    } else if (k == "data_roots") {
      o.data_roots = folders(k, value);
    } else if (k == "drop_undefined_outputs") {
      o.drop_undefined_outputs = boolean(k, value);
    } else {
      throw nb::type_error(("unknown option " + k).c_str());
    }
  }
  return o;
}

/// A simplified model that is not yet in its place.
struct Staged {
  std::shared_ptr<const onnx2nn::StagedModel> model;
};

/// (files, diagnostics)
nb::tuple publish(const Staged& staged) {
  const onnx2nn::Simplified s = run_native([&] { return onnx2nn::publish(*staged.model); });
  return nb::make_tuple(path_list(s.files), diagnostics(s.diagnostics));
}

nb::list check_outputs(const nb::object& model, const nb::list& paths, bool force) {
  std::vector<std::string> list;
  for (const auto& path : paths) list.push_back(path_of(path));
  return diagnostics(onnx2nn::check_outputs(path_of(model), list, force));
}

nb::list publish_file(const nb::object& from, const nb::object& path, const nb::object& model,
                      bool force) {
  const std::string made = path_of(from), target = path_of(path), source = path_of(model);
  return diagnostics(
      run_native([&] { return onnx2nn::publish_file(made, target, source, force); }));
}

nb::dict simplify(const nb::object& model, const nb::object& out_path, const nb::dict& options) {
  const auto o = simplify_options_of(options);
  const std::string out = out_path.is_none() ? std::string() : path_of(out_path);
  onnx2nn::Simplified s;
  if (nb::isinstance<nb::bytes>(model)) {
    const auto b = nb::cast<nb::bytes>(model);
    std::string bytes(b.c_str(), b.size());
    s = run_native([&] { return onnx2nn::simplify_bytes(std::move(bytes), out, o); });
  } else {
    const std::string path = path_of(model);
    s = run_native([&] { return onnx2nn::simplify_file(path, out, o); });
  }
  nb::dict d;
  d["ok"] = s.ok;
  d["readable"] = s.readable;
  d["diagnostics"] = diagnostics(s.diagnostics);
  d["nodes_before"] = s.nodes_before;
  d["nodes_after"] = s.nodes_after;
  d["op_types_before"] = counts(s.op_types_before);
  d["op_types_after"] = counts(s.op_types_after);
  d["weight_bytes_before"] = s.weight_bytes_before;
  d["weight_bytes_after"] = s.weight_bytes_after;
  d["rules"] = counts(s.rules);
  nb::list log;
  for (const auto& [rule, node] : s.log) log.append(nb::make_tuple(rule, text(node)));
  d["log"] = log;
  nb::list misses;
  for (const auto& m : s.misses) misses.append(nb::make_tuple(m.rule, text(m.node), text(m.reason)));
  d["misses"] = misses;  // (rule, node, reason)
  d["files"] = path_list(s.files);
  d["staged"] = s.staged ? nb::cast(Staged{s.staged}) : nb::none();
  if (out.empty()) d["model"] = nb::bytes(s.model.data(), s.model.size());
  return d;
}

std::map<std::string, std::string> simplify_rules() {
  std::map<std::string, std::string> out;
  for (const auto& r : onnx2nn::simplify_rules()) out[r.name] = r.what;
  return out;
}

nb::list op_table() {
  nb::list out;
  for (const auto& op : onnx2nn::op_table()) {
    nb::dict d;
    d["domain"] = op.domain;
    d["type"] = op.type;
    d["changed_at"] = op.changed_at;
    d["nondeterministic"] = op.nondeterministic;
    d["infers"] = op.infers;
    d["lowers"] = op.lowers;
    out.append(d);
  }
  return out;
}

// ---- The command line ----

namespace cli = onnx2nn::cli;

nb::object value_of(const cli::Value& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return nb::bool_(*flag);
  if (const auto* number = std::get_if<std::int64_t>(&value)) return nb::int_(*number);
  if (const auto* number = std::get_if<double>(&value)) return nb::float_(*number);
  if (const auto* word = std::get_if<std::string>(&value)) return path_text(*word);
  const auto& shape = std::get<cli::GivenShape>(value);
  nb::list dims;
  for (const auto& d : shape.dims) {
    if (const auto* symbol = std::get_if<std::string>(&d)) {
      dims.append(text(*symbol));
    } else if (std::get<std::int64_t>(d) < 0) {
      dims.append(nb::none());
    } else {
      dims.append(std::get<std::int64_t>(d));
    }
  }
  return nb::make_tuple(text(shape.input), dims);
}

/// What the Python program was asked for; _native.pyi says what is in it.
nb::dict parse_command_line(const std::vector<nb::bytes>& arguments, std::size_t columns) {
  std::vector<std::string> words;
  for (const nb::bytes& b : arguments) words.emplace_back(b.c_str(), b.size());
  const cli::Parsed parsed = cli::parse(words, cli::Program::Python, columns);
  nb::dict values;
  if (parsed.command != nullptr)
    for (const cli::Option* o : parsed.command->options) {
      const auto found = parsed.values.find(o->name);
      nb::object value = nb::none();
      if (o->repeatable) {
        nb::list list;
        if (found != parsed.values.end())
          for (const cli::Value& v : found->second) list.append(value_of(v));
        value = list;
      } else if (found != parsed.values.end() && !found->second.empty()) {
        value = value_of(found->second.front());
      } else if (o->kind == cli::Kind::Flag) {
        value = nb::bool_(false);
      }
      values[text(o->name)] = value;
    }
  nb::dict out;
  out["command"] = parsed.command ? nb::object(text(parsed.command->name)) : nb::none();
  out["values"] = values;
  out["text"] = parsed.text ? nb::object(text(*parsed.text)) : nb::none();
  out["error"] = text(parsed.error);
  out["usage"] = text(parsed.usage);
  out["json"] = parsed.json;
  return out;
}

/// What the core answers to a command that needs nothing of Python's: (exit code, output, errors).
nb::tuple answer(const std::vector<nb::bytes>& arguments, std::size_t width) {
  std::vector<std::string> words;
  for (const nb::bytes& b : arguments) words.emplace_back(b.c_str(), b.size());
  const cli::Parsed parsed = cli::parse(words, cli::Program::Python, width);
  const cli::Answer said = run_native([&] { return *cli::answer(parsed, width); });
  return nb::make_tuple(static_cast<int>(said.code), text(said.out), text(said.err));
}

/// Where a conversion goes: (source, weights); ValueError for a name that says neither.
nb::tuple output_paths(const nb::object& model, const nb::object& out) {
  try {
    const auto paths = onnx2nn::output_paths(path_of(model), path_of(out));
    return nb::make_tuple(path_text(paths.source), path_text(paths.weights));
  } catch (const onnx2nn::Error& e) {
    throw nb::value_error(e.what());
  }
}

nb::list command_line() {
  nb::list out;
  for (const cli::Command& c : cli::commands()) {
    nb::list options;
    for (const cli::Option* o : c.options) {
      nb::dict d;
      d["name"] = text(o->name);
      nb::list spellings;
      for (const std::string_view list : {o->spellings, o->also})
        cli::for_each_word(list, [&](std::string_view s) { spellings.append(text(s)); });
      d["spellings"] = spellings;
      d["metavar"] = text(o->metavar);
      d["help"] = text(o->help);
      d["default"] = text(o->fallback);
      d["repeatable"] = o->repeatable;
      d["has_place"] = o->has_place;
      d["python_only"] = o->python_only;
      options.append(d);
    }
    nb::dict d;
    d["name"] = text(c.name);
    d["help"] = text(c.help);
    d["options"] = options;
    d["python_only"] = c.python_only;
    out.append(d);
  }
  return out;
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The C++ core of onnx2nn";
  nb::class_<onnx2nn::Conversion>(m, "Conversion")
      .def_prop_ro("ok", &onnx2nn::Conversion::ok)
      .def_prop_ro("readable", &onnx2nn::Conversion::readable)
      .def_prop_ro("source", &onnx2nn::Conversion::source)
      .def_prop_ro("class_name", &onnx2nn::Conversion::class_name)
      .def_prop_ro("diagnostics",
                   [](const onnx2nn::Conversion& c) { return diagnostics(c.diagnostics()); })
      .def_prop_ro("diagnostics_text",
                   [](const onnx2nn::Conversion& c) { return text(c.diagnostics_text()); })
      .def_prop_ro("inputs", [](const onnx2nn::Conversion& c) { return ports(c.inputs()); })
      .def_prop_ro("outputs", [](const onnx2nn::Conversion& c) { return ports(c.outputs()); })
      .def_prop_ro("weights", &weights)
      .def_prop_ro("stats", &stats)
      .def("weight_data", &weight_data, "i"_a, "piece"_a = 0)
      .def(
          "write",
          [](onnx2nn::Conversion& c, const nb::object& python, const nb::object& weights_path) {
            const std::string source = path_of(python), beside = path_of(weights_path);
            return path_list(run_native([&] { return c.write(source, beside); }));
          },
          "path_py"_a, "path_weights"_a = "");
  nb::class_<Staged>(m, "Staged").def("publish", &publish);
  m.def("check_outputs", &check_outputs, "model"_a, "paths"_a, "force"_a = false);
  m.def("publish_file", &publish_file, "made"_a, "path"_a, "model"_a, "force"_a = false);
  m.def(
      "printable", [](const nb::bytes& b) { return onnx2nn::printable({b.c_str(), b.size()}); },
      "text"_a);
  m.def("op_table", &op_table);
  m.def("convert", &convert, "model"_a, "options"_a = nb::dict());
  m.def("simplify", &simplify, "model"_a, "out_path"_a = nb::none(), "options"_a = nb::dict());
  m.def("external_files", &external_files, "model"_a, "locations"_a, "data_roots"_a);
  m.def("simplify_rules", &simplify_rules);
  m.def("rule_of", [](const std::string& name) { return std::string(cli::rule_of(name)); },
        "name"_a);
  m.def("output_paths", &output_paths, "model"_a, "out"_a);
  m.def(
      "simplified_path",
      [](const nb::object& model, const nb::object& out) {
        return path_text(onnx2nn::simplified_path(path_of(model), path_of(out)));
      },
      "model"_a, "out"_a);
  m.def("command_line", &command_line);
  m.def("answer", &answer, "words"_a, "width"_a);
  m.def("parse_command_line", &parse_command_line, "words"_a, "columns"_a);
  m.def("completion",
        [](const std::string& shell) { return cli::completion(shell, cli::Program::Python); },
        "shell"_a);
  nb::dict codes;
  for (const cli::ExitMeaning& e : cli::kExitCodes) codes[nb::int_(static_cast<int>(e.code))] = text(e.what);
  m.attr("EXIT_CODES") = codes;
}
