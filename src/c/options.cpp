#include "c/options.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/parse.h"
#include "support/error.h"
#include "support/text.h"

namespace onnx2nn::c {
namespace {

using Json = nlohmann::json;
using Read = std::function<void(const Json&)>;
using Readers = std::map<std::string, Read, std::less<>>;

[[noreturn]] void refuse(std::string_view name, const Json& value, std::string_view what,
                         const char* code = "bad-type") {
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  throw Error(code, printable(name) + ": " + text + " is not " + std::string(what));
}

// A byte of a path that is no UTF-8 comes as \udcXX, for which JSON's parser has no text: it stands as NUL
// and the character of that number until the path is read. No path has a NUL of its own.
constexpr char kByte = '\0';

std::optional<unsigned> hex4(std::string_view text) {
  unsigned code = 0;
  if (text.size() < 4) return {};
  const auto r = std::from_chars(text.data(), text.data() + 4, code, 16);
  if (r.ec != std::errc() || r.ptr != text.data() + 4) return {};
  return code;
}

std::string without_lone_surrogates(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  while (!json.empty()) {
    std::size_t length = json[0] == '\\' ? std::min<std::size_t>(2, json.size()) : 1;
    const auto code = json.starts_with("\\u") ? hex4(json.substr(2)) : std::nullopt;
    if (code && *code >= 0xDC80 && *code <= 0xDCFF) {
      out += fmt::format("\\u{:04x}\\u{:04x}", static_cast<unsigned>(kByte), *code - 0xDC00);
      json.remove_prefix(6);
      continue;
    }
    // The second of a pair is none of its own.
    if (code && *code >= 0xD800 && *code < 0xDC00) length = std::min<std::size_t>(12, json.size());
    out += json.substr(0, length);
    json.remove_prefix(length);
  }
  return out;
}

bool boolean(std::string_view name, const Json& v) {
  if (!v.is_boolean()) refuse(name, v, "a boolean");
  return v.get<bool>();
}

std::int64_t whole(std::string_view name, const Json& v) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!v.is_number_integer() || (v.is_number_unsigned() && v.get<std::uint64_t>() > kMost))
    refuse(name, v, "a whole number");
  return v.get<std::int64_t>();
}

std::uint64_t count(std::string_view name, const Json& v) {
  const std::int64_t n = whole(name, v);
  if (n < 0) refuse(name, v, "a whole number from 0");
  return static_cast<std::uint64_t>(n);
}

std::uint64_t bytes(std::string_view name, const Json& v) {
  constexpr std::string_view kWhat = "a whole number of bytes, or a size like \"5GB\"";
  if (v.is_number_unsigned()) return v.get<std::uint64_t>();
  if (!v.is_string()) refuse(name, v, kWhat);
  const auto n = cli::size_of(v.get_ref<const std::string&>(), cli::kDecimal);
  if (!n) refuse(name, v, kWhat, "bad-value");
  return static_cast<std::uint64_t>(*n);
}

/// The byte that stands at `i` of a text that is read, as said above.
std::optional<char> byte_at(std::string_view text, std::size_t i) {
  // U+0080 to U+00FF are two bytes of UTF-8.
  if (text[i] != kByte || i + 2 >= text.size()) return {};
  const auto lead = static_cast<std::uint8_t>(text[i + 1]);
  if (lead != 0xC2 && lead != 0xC3) return {};
  return static_cast<char>(((lead & 0x03U) << 6U) | (static_cast<std::uint8_t>(text[i + 2]) & 0x3FU));
}

std::string text(std::string_view name, const Json& v) {
  if (!v.is_string()) refuse(name, v, "a text");
  const auto& given = v.get_ref<const std::string&>();
  for (std::size_t i = given.find(kByte); i < given.size(); ++i)
    if (byte_at(given, i)) refuse(name, v, "a text", "bad-value");
  return given;
}

std::vector<std::string> texts(std::string_view name, const Json& v) {
  if (!v.is_array()) refuse(name, v, "a list of texts");
  std::vector<std::string> out;
  for (const Json& item : v) out.push_back(text(name, item));
  return out;
}

std::string path(std::string_view name, const Json& v) {
  if (!v.is_string()) refuse(name, v, "a path");
  const auto& given = v.get_ref<const std::string&>();
  std::string out;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const std::optional<char> byte = byte_at(given, i);
    if (given[i] == kByte && !byte) refuse(name, v, "a path", "bad-value");
    out += byte.value_or(given[i]);
    if (byte) i += 2;
  }
  return out;
}

std::vector<std::string> paths(std::string_view name, const Json& v) {
  if (!v.is_array()) refuse(name, v, "a list of paths");
  std::vector<std::string> out;
  for (const Json& item : v) out.push_back(path(name, item));
  return out;
}

InputShapes shapes(std::string_view name, const Json& v) {
  if (!v.is_object()) refuse(name, v, "an object of dims by input name");
  InputShapes out;
  for (const auto& [input, dims] : v.items()) {
    if (!dims.is_array()) refuse(name, dims, "a list of dims");
    std::vector<InputDim>& shape = out[input];
    for (const Json& d : dims) {
      if (d.is_null()) {
        shape.emplace_back(std::int64_t{-1});
      } else if (d.is_string()) {
        shape.emplace_back(d.get<std::string>());
      } else {
        shape.emplace_back(whole(name, d));
      }
    }
  }
  return out;
}

std::vector<std::pair<std::string, std::int64_t>> axes(std::string_view name, const Json& v) {
  if (!v.is_object()) refuse(name, v, "an object of axes by input name");
  std::vector<std::pair<std::string, std::int64_t>> out;
  for (const auto& [input, given] : v.items()) {
    if (!given.is_array()) {
      out.emplace_back(input, whole(name, given));
      continue;
    }
    for (const Json& axis : given) out.emplace_back(input, whole(name, axis));
  }
  return out;
}

std::vector<CustomOp> custom_ops(std::string_view name, const Json& v) {
  constexpr std::string_view kWhat =
      "a list of objects with the texts domain, op_type, name and source";
  if (!v.is_array()) refuse(name, v, kWhat);
  std::vector<CustomOp> out;
  for (const Json& entry : v) {
    if (!entry.is_object() || entry.size() != 4) refuse(name, entry, kWhat);
    CustomOp op;
    for (const auto& [key, into] :
         std::initializer_list<std::pair<const char*, std::string*>>{{"domain", &op.domain},
                                                                     {"op_type", &op.op_type},
                                                                     {"name", &op.name},
                                                                     {"source", &op.source}}) {
      const auto it = entry.find(key);
      if (it == entry.end()) refuse(name, entry, kWhat);
      *into = text(name, *it);
    }
    out.push_back(std::move(op));
  }
  return out;
}

/// What both kinds of options have.
template <typename Options>
Readers common_readers(Options& o) {
  return {
      {"input_shapes", [&](const Json& v) { o.input_shapes = shapes("input_shapes", v); }},
      {"dynamic_batch", [&](const Json& v) { o.free_dims.batch = boolean("dynamic_batch", v); }},
      {"dynamic", [&](const Json& v) { o.free_dims.axes = axes("dynamic", v); }},
      {"force", [&](const Json& v) { o.force = boolean("force", v); }},
      {"data_roots", [&](const Json& v) { o.data_roots = paths("data_roots", v); }},
      {"drop_undefined_outputs",
       [&](const Json& v) { o.drop_undefined_outputs = boolean("drop_undefined_outputs", v); }},
  };
}

void read(const char* json, const Readers& readers) {
  if (json == nullptr) return;
  const Json all = Json::parse(without_lone_surrogates(json), nullptr, false);
  if (!all.is_object()) throw Error("bad-type", "the options are no JSON object");
  for (const auto& [name, value] : all.items()) {
    const auto it = readers.find(name);
    if (it == readers.end()) throw Error("bad-type", "there is no option " + printable(name));
    if (!value.is_null()) it->second(value);
  }
}

Readers convert_readers(ConvertOptions& o) {
  Readers readers = common_readers(o);
  readers["simplify"] = [&](const Json& v) { o.simplify = boolean("simplify", v); };
  readers["fuse"] = [&](const Json& v) { o.fuse = boolean("fuse", v); };
  readers["flat"] = [&](const Json& v) { o.flat = boolean("flat", v); };
  readers["class_name"] = [&](const Json& v) { o.class_name = text("class_name", v); };
  readers["weights_name"] = [&](const Json& v) { o.weights_name = text("weights_name", v); };
  readers["max_shard_size"] = [&](const Json& v) { o.max_shard_size = bytes("max_shard_size", v); };
  readers["comments_origin"] = [&](const Json& v) { o.comments_origin = boolean("comments_origin", v); };
  readers["trace"] = [&](const Json& v) { o.trace = boolean("trace", v); };
  readers["tp_plan"] = [&](const Json& v) { o.tp_plan = boolean("tp_plan", v); };
  readers["allow_unknown"] = [&](const Json& v) { o.allow_unknown = boolean("allow_unknown", v); };
  readers["custom_ops"] = [&](const Json& v) { o.custom_ops = custom_ops("custom_ops", v); };
  return readers;
}

}  // namespace

ConvertOptions convert_options(const char* json) {
  ConvertOptions o;
  read(json, convert_readers(o));
  return o;
}

InspectionOptions inspection_options(const char* json) {
  InspectionOptions o;
  Readers readers = convert_readers(o.conversion);
  readers["convert"] = [&](const Json& v) { o.convert = boolean("convert", v); };
  readers["nodes"] = [&](const Json& v) { o.nodes = boolean("nodes", v); };
  read(json, readers);
  return o;
}

SimplifyOptions simplify_options(const char* json) {
  SimplifyOptions o;
  Readers readers = common_readers(o);
  readers["disabled"] = [&](const Json& v) { o.disabled = texts("disabled", v); };
  readers["only"] = [&](const Json& v) { o.only = texts("only", v); };
  readers["why_not"] = [&](const Json& v) { o.why_not = texts("why_not", v); };
  readers["stop_after"] = [&](const Json& v) { o.stop_after = count("stop_after", v); };
  readers["max_constant"] = [&](const Json& v) { o.max_constant = bytes("max_constant", v); };
  readers["opset"] = [&](const Json& v) { o.opset = whole("opset", v); };
  readers["external_data"] = [&](const Json& v) { o.external_data = boolean("external_data", v); };
  readers["staging"] = [&](const Json& v) { o.staging = path("staging", v); };
  read(json, readers);
  return o;
}

FileOptions file_options(const char* json) {
  FileOptions o;
  read(json, {{"paths", [&](const Json& v) { o.paths = paths("paths", v); }},
              {"locations", [&](const Json& v) { o.locations = texts("locations", v); }},
              {"data_roots", [&](const Json& v) { o.data_roots = paths("data_roots", v); }},
              {"force", [&](const Json& v) { o.force = boolean("force", v); }}});
  return o;
}

}  // namespace onnx2nn::c
