// The native module: the public API, as Python sees it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "onnx2nn/convert.h"
#include "onnx2nn/ops.h"
#include "onnx2nn/simplify.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

onnx2nn::ConvertOptions options_of(const nb::dict& d) {
  onnx2nn::ConvertOptions o;
  for (const auto& [key, value] : d) {
    const auto k = nb::cast<std::string>(key);
    if (k == "simplify") {
      o.simplify = nb::cast<bool>(value);
    } else if (k == "fuse") {
      o.fuse = nb::cast<bool>(value);
    } else if (k == "input_shapes") {
      if (!value.is_none())
        o.input_shapes = nb::cast<std::map<std::string, std::vector<std::int64_t>>>(value);
    } else if (k == "class_name") {
      if (!value.is_none()) o.class_name = nb::cast<std::string>(value);
    } else if (k == "weights_name") {
      if (!value.is_none()) o.weights_name = nb::cast<std::string>(value);
    } else if (k == "trace") {
      o.trace = nb::cast<bool>(value);
    } else if (k == "comments_origin") {
      o.comments_origin = nb::cast<bool>(value);
    } else if (k == "custom_ops") {
      for (const auto& entry : nb::cast<nb::list>(value)) {
        const auto op = nb::cast<std::map<std::string, std::string>>(entry);
        o.custom_ops.push_back({op.at("domain"), op.at("op_type"), op.at("name"), op.at("source")});
      }
    } else if (k == "allow_unknown") {
      o.allow_unknown = nb::cast<bool>(value);
    } else if (k == "force") {
      o.force = nb::cast<bool>(value);
    } else if (k == "data_roots") {
      o.data_roots = nb::cast<std::vector<std::string>>(value);
    } else if (k == "drop_undefined_outputs") {
      o.drop_undefined_outputs = nb::cast<bool>(value);
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
    const nb::gil_scoped_release release;
    return onnx2nn::convert_bytes(std::move(bytes), o);
  }
  const auto path = nb::cast<std::string>(nb::str(model));
  const nb::gil_scoped_release release;
  return onnx2nn::convert_file(path, o);
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
      out.append(nb::str(d.c_str()));
    }
  }
  return out;
}

nb::list ports(const std::vector<onnx2nn::PortInfo>& list) {
  nb::list out;
  for (const auto& p : list) {
    nb::dict d;
    d["name"] = p.name;
    d["py_name"] = p.py_name;
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
    d["key"] = w.key;
    d["dtype"] = w.dtype;
    d["shape"] = w.shape;
    d["requires_grad"] = w.trainable;
    d["is_buffer"] = w.is_buffer;
    d["file"] = w.file.empty() ? nb::object(nb::none()) : nb::object(nb::str(w.file.c_str()));
    d["offset"] = w.offset;
    d["nbytes"] = w.nbytes;
    d["transpose"] = w.transpose;
    d["onnx_name"] = w.onnx_name;
    out.append(d);
  }
  return out;
}

nb::list diagnostics(const std::vector<onnx2nn::DiagnosticInfo>& list) {
  nb::list out;
  for (const auto& d : list) {
    nb::dict e;
    e["severity"] = d.severity;
    e["code"] = d.code;
    e["message"] = d.message;
    e["node"] = d.node;
    e["op_type"] = d.op_type;
    e["domain"] = d.domain;
    e["opset"] = d.opset;
    e["inputs"] = d.inputs;
    e["hint"] = d.hint;
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
  d["op_types"] = s.op_types;
  d["rules"] = s.rules;
  d["ir_version"] = s.ir_version;
  d["producer"] = s.producer;
  d["opsets"] = s.opsets;
  return d;
}

nb::object weight_data(const onnx2nn::Conversion& c, std::size_t i) {
  if (i >= c.weights().size()) throw nb::index_error("no such weight");
  const std::string_view bytes = c.weight_bytes(i);
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
      o.input_shapes = nb::cast<std::map<std::string, std::vector<std::int64_t>>>(value);
    } else if (k == "disabled") {
      o.disabled = nb::cast<std::vector<std::string>>(value);
    } else if (k == "only") {
      o.only = nb::cast<std::vector<std::string>>(value);
    } else if (k == "why_not") {
      o.why_not = nb::cast<std::vector<std::string>>(value);
    } else if (k == "stop_after") {
      o.stop_after = nb::cast<std::size_t>(value);
    } else if (k == "opset") {
      o.opset = nb::cast<std::int64_t>(value);
    } else if (k == "max_constant") {
      o.max_constant = nb::cast<std::uint64_t>(value);
    } else if (k == "external_data") {
      o.external_data = nb::cast<bool>(value);
    } else if (k == "force") {
      o.force = nb::cast<bool>(value);
    } else if (k == "data_roots") {
      o.data_roots = nb::cast<std::vector<std::string>>(value);
    } else if (k == "drop_undefined_outputs") {
      o.drop_undefined_outputs = nb::cast<bool>(value);
    } else {
      throw nb::type_error(("unknown option " + k).c_str());
    }
  }
  return o;
}

nb::dict simplify(const nb::object& model, const nb::object& out_path, const nb::dict& options) {
  const auto o = simplify_options_of(options);
  const auto out = out_path.is_none() ? std::string() : nb::cast<std::string>(nb::str(out_path));
  onnx2nn::Simplified s;
  if (nb::isinstance<nb::bytes>(model)) {
    const auto b = nb::cast<nb::bytes>(model);
    std::string bytes(b.c_str(), b.size());
    const nb::gil_scoped_release release;
    s = onnx2nn::simplify_bytes(std::move(bytes), out, o);
  } else {
    const auto path = nb::cast<std::string>(nb::str(model));
    const nb::gil_scoped_release release;
    s = onnx2nn::simplify_file(path, out, o);
  }
  nb::dict d;
  d["ok"] = s.ok;
  d["readable"] = s.readable;
  d["diagnostics"] = diagnostics(s.diagnostics);
  d["nodes_before"] = s.nodes_before;
  d["nodes_after"] = s.nodes_after;
  d["op_types_before"] = s.op_types_before;
  d["op_types_after"] = s.op_types_after;
  d["weight_bytes_before"] = s.weight_bytes_before;
  d["weight_bytes_after"] = s.weight_bytes_after;
  d["rules"] = s.rules;
  d["log"] = s.log;
  nb::list misses;
  for (const auto& m : s.misses) misses.append(nb::make_tuple(m.rule, m.node, m.reason));
  d["misses"] = misses;  // (rule, node, reason)
  d["files"] = s.files;
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
      .def_prop_ro("diagnostics_text", &onnx2nn::Conversion::diagnostics_text)
      .def_prop_ro("inputs", [](const onnx2nn::Conversion& c) { return ports(c.inputs()); })
      .def_prop_ro("outputs", [](const onnx2nn::Conversion& c) { return ports(c.outputs()); })
      .def_prop_ro("weights", &weights)
      .def_prop_ro("stats", &stats)
      .def("weight_data", &weight_data, "i"_a)
      .def(
          "write",
          [](onnx2nn::Conversion& c, const std::string& python, const std::string& weights_path) {
            return c.write(python, weights_path);
          },
          "path_py"_a, "path_weights"_a = "", nb::call_guard<nb::gil_scoped_release>());
  m.def("op_table", &op_table);
  m.def("convert", &convert, "model"_a, "options"_a = nb::dict());
  m.def("simplify", &simplify, "model"_a, "out_path"_a = nb::none(), "options"_a = nb::dict());
  m.def("simplify_rules", &simplify_rules);
}
