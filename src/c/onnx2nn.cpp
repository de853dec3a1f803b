// The C interface over the C++ one. Each function catches all that may be thrown below it.
#include "onnx2nn/onnx2nn.h"

#include <exception>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "c/options.h"
#include "cli/results.h"
#include "onnx2nn/convert.h"
#include "onnx2nn/interrupt.h"
#include "onnx2nn/ops.h"
#include "onnx2nn/simplify.h"
#include "onnx2nn/version.h"
#include "output_paths.h"
#include "support/error.h"

using onnx2nn::Conversion;
using onnx2nn::Simplified;
using onnx2nn::cli::Json;

struct onnx2nn_result {
  onnx2nn_status status = ONNX2NN_DONE;
  std::string model_path;  // empty: bytes
  std::optional<Conversion> conversion;
  std::string source;
  std::string diagnostics;
  std::string json;
  std::string model;
  std::string modules;
};

namespace {

constexpr const char* kName = "model";

onnx2nn_status status_of(onnx2nn::cli::ExitCode code) { return static_cast<onnx2nn_status>(code); }

void say(onnx2nn_result& r, Json json, onnx2nn_status status, std::string diagnostics) {
  json["exit_code"] = static_cast<int>(status);
  r.json = onnx2nn::cli::text_of(json);
  r.diagnostics = std::move(diagnostics);
  r.status = status;
}

/// Says an error that is about no model.
void say_error(onnx2nn_result& r, onnx2nn_status status, const onnx2nn::Error& e) {
  Json json;
  json["diagnostics"] = Json::array({{{"severity", "error"},
                                      {"code", e.code()},
                                      {"message", e.message()},
                                      {"node", ""},
                                      {"op_type", ""},
                                      {"domain", ""},
                                      {"opset", 0},
                                      {"inputs", ""},
                                      {"hint", e.hint()}}});
  std::string text = "onnx2nn: error[" + e.code() + "]: " + e.message() + "\n";
  if (!e.hint().empty()) text += "  hint    " + e.hint() + "\n";
  say(r, std::move(json), status, std::move(text));
}

/// Does the work; whatever it throws becomes the result's status and text.
template <typename Work>
onnx2nn_status guarded(onnx2nn_result& r, Work&& work) noexcept {
  try {
    try {
      work();
    } catch (const onnx2nn::Error& e) {
      say_error(r, e.code() == "bad-option" ? ONNX2NN_USAGE : ONNX2NN_UNREADABLE, e);
    } catch (const std::exception& e) {
      say_error(r, ONNX2NN_INTERNAL,
                onnx2nn::Error("internal", std::string("please report it: ") + e.what()));
    }
  } catch (...) {  // not even the text could be made
    r.status = ONNX2NN_INTERNAL;
  }
  return r.status;
}

/// The same for a new handle.
template <typename Work>
onnx2nn_status made(onnx2nn_result** result, Work&& work) noexcept {
  if (result == nullptr) return ONNX2NN_USAGE;
  *result = new (std::nothrow) onnx2nn_result;
  if (*result == nullptr) return ONNX2NN_INTERNAL;
  return guarded(**result, [&] { work(**result); });
}

void require(const void* argument, const char* name) {
  if (argument == nullptr) throw onnx2nn::Error("bad-option", std::string(name) + " is NULL");
}

std::string bytes_of(const void* bytes, size_t size) {
  if (size > 0) require(bytes, "bytes");
  return size == 0 ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

std::string name_of(const char* name) { return name == nullptr ? kName : name; }

Json json_of(const std::vector<onnx2nn::WeightInfo>& weights) {
  Json out = Json::array();
  for (const onnx2nn::WeightInfo& w : weights) {
    Json pieces = Json::array();
    for (const onnx2nn::WeightPiece& p : w.pieces)
      pieces.push_back({{"file", p.file},       {"file_offset", p.file_offset},
                        {"nbytes", p.nbytes},   {"offset", p.offset},
                        {"rows", p.rows},       {"columns", p.columns},
                        {"stride", p.stride},   {"transpose", p.transpose}});
    out.push_back({{"key", w.key},
                   {"dtype", w.dtype},
                   {"shape", w.shape},
                   {"trainable", w.trainable},
                   {"persistent", w.persistent},
                   {"file", w.file},
                   {"offset", w.offset},
                   {"nbytes", w.nbytes},
                   {"transpose", w.transpose},
                   {"quantized", w.quantized},
                   {"pieces", pieces},
                   {"onnx_name", w.onnx_name}});
  }
  return out;
}

void describe(onnx2nn_result& r, const std::vector<std::string>& files) {
  const Conversion& c = *r.conversion;
  Json json;
  json["readable"] = c.readable();
  json["class_name"] = c.class_name();
  json["inputs"] = onnx2nn::cli::json_of(c.inputs());
  json["outputs"] = onnx2nn::cli::json_of(c.outputs());
  json["weights"] = json_of(c.weights());
  json["stats"] = onnx2nn::cli::json_of(c.stats());
  json["files"] = files;
  json["diagnostics"] = onnx2nn::cli::json_of(c.diagnostics());
  const auto code =
      c.ok() ? onnx2nn::cli::kDone : onnx2nn::cli::exit_code_of(c.diagnostics(), c.readable());
  say(r, std::move(json), status_of(code), c.diagnostics_text());
}

void keep(onnx2nn_result& r, Conversion c) {
  r.source = c.source();
  r.conversion.emplace(std::move(c));
  describe(r, {});
}

void keep(onnx2nn_result& r, Simplified s) {
  Json json;
  json["readable"] = s.readable;
  json["files"] = s.files;
  json["simplified"] = onnx2nn::cli::json_of(s);
  json["log"] = s.log;
  json["diagnostics"] = onnx2nn::cli::json_of(s.diagnostics);
  const auto code =
      s.ok ? onnx2nn::cli::kDone : onnx2nn::cli::exit_code_of(s.diagnostics, s.readable);
  r.model = std::move(s.model);
  say(r, std::move(json), status_of(code), std::move(s.diagnostics_text));
}

void inspect(onnx2nn_result& r, const Conversion& c) {
  Json json;
  json["readable"] = c.readable();
  onnx2nn::cli::add_inspection(json, c);
  const auto code =
      c.ok() ? onnx2nn::cli::kDone : onnx2nn::cli::exit_code_of(c.diagnostics(), c.readable());
  say(r, std::move(json), status_of(code), c.diagnostics_text());
}

onnx2nn_text view(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

onnx2nn_text view(const onnx2nn_result* r, std::string onnx2nn_result::*member) {
  return r == nullptr ? onnx2nn_text{"", 0} : view(r->*member);
}

/// Where the new files of simplification go; its folder is made.
std::string target(const char* out) {
  if (out == nullptr) return {};
  onnx2nn::make_folder_of(out);
  return out;
}

struct Interrupt {
  int (*check)(void*) = nullptr;
  void* context = nullptr;
};
thread_local Interrupt interrupt;

}  // namespace

extern "C" {

const char* onnx2nn_version(void) { return onnx2nn::kVersion; }

onnx2nn_status onnx2nn_convert_file(const char* path, const char* options,
                                    onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    require(path, "path");
    r.model_path = path;
    keep(r, onnx2nn::convert_file(path, onnx2nn::c::convert_options(options)));
  });
}

onnx2nn_status onnx2nn_convert_bytes(const void* bytes, size_t size, const char* name,
                                     const char* options, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const auto o = onnx2nn::c::convert_options(options);
    r.model_path = name_of(name);
    keep(r, onnx2nn::convert_bytes(bytes_of(bytes, size), o, r.model_path));
  });
}

onnx2nn_status onnx2nn_write(onnx2nn_result* conversion, const char* path,
                             const char* weights_path) {
  if (conversion == nullptr) return ONNX2NN_USAGE;
  onnx2nn_result& r = *conversion;
  return guarded(r, [&] {
    require(path, "path");
    if (!r.conversion) throw onnx2nn::Error("bad-option", "this is no conversion");
    if (!r.conversion->ok()) return;
    const onnx2nn::OutputPaths paths = onnx2nn::output_paths(r.model_path, path);
    onnx2nn::make_folder_of(paths.source);
    const std::string weights = weights_path == nullptr ? paths.weights : weights_path;
    if (!weights.empty()) onnx2nn::make_folder_of(weights);
    describe(r, r.conversion->write(paths.source, weights));
  });
}

onnx2nn_status onnx2nn_simplify_file(const char* path, const char* out, const char* options,
                                     onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    require(path, "path");
    const auto o = onnx2nn::c::simplify_options(options);
    keep(r, onnx2nn::simplify_file(path, target(out), o));
  });
}

onnx2nn_status onnx2nn_simplify_bytes(const void* bytes, size_t size, const char* name,
                                      const char* out, const char* options,
                                      onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const auto o = onnx2nn::c::simplify_options(options);
    keep(r, onnx2nn::simplify_bytes(bytes_of(bytes, size), target(out), o, name_of(name)));
  });
}

onnx2nn_status onnx2nn_inspect_file(const char* path, const char* options,
                                    onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    require(path, "path");
    inspect(r, onnx2nn::convert_file(path, onnx2nn::c::convert_options(options)));
  });
}

onnx2nn_status onnx2nn_inspect_bytes(const void* bytes, size_t size, const char* name,
                                     const char* options, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const auto o = onnx2nn::c::convert_options(options);
    inspect(r, onnx2nn::convert_bytes(bytes_of(bytes, size), o, name_of(name)));
  });
}

onnx2nn_status onnx2nn_operators(onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    Json json;
    json["operators"] = Json::array();
    for (const onnx2nn::OpInfo& op : onnx2nn::op_table())
      json["operators"].push_back({{"domain", op.domain},
                                   {"type", op.type},
                                   {"changed_at", op.changed_at},
                                   {"nondeterministic", op.nondeterministic},
                                   {"infers", op.infers},
                                   {"lowers", op.lowers}});
    json["diagnostics"] = Json::array();
    say(r, std::move(json), ONNX2NN_DONE, "");
  });
}

onnx2nn_status onnx2nn_rules(onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    Json json;
    json["rules"] = Json::object();
    for (const onnx2nn::SimplifyRule& rule : onnx2nn::simplify_rules())
      json["rules"][rule.name] = rule.what;
    json["diagnostics"] = Json::array();
    say(r, std::move(json), ONNX2NN_DONE, "");
  });
}

onnx2nn_status onnx2nn_result_status(const onnx2nn_result* result) {
  return result == nullptr ? ONNX2NN_USAGE : result->status;
}

onnx2nn_text onnx2nn_diagnostics(const onnx2nn_result* result) {
  return view(result, &onnx2nn_result::diagnostics);
}

onnx2nn_text onnx2nn_json(const onnx2nn_result* result) {
  return view(result, &onnx2nn_result::json);
}

onnx2nn_text onnx2nn_source(const onnx2nn_result* conversion) {
  return view(conversion, &onnx2nn_result::source);
}

onnx2nn_text onnx2nn_modules(onnx2nn_result* conversion) {
  if (conversion == nullptr || !conversion->conversion || !conversion->conversion->ok())
    return {"", 0};
  try {
    Json list = Json::array();
    for (const onnx2nn::ModuleInfo& m : conversion->conversion->modules())
      list.push_back({{"path", m.path}, {"type", m.type}, {"layer", m.is_layer}});
    if (!list.empty()) conversion->modules = onnx2nn::cli::text_of(list);
    return view(conversion->modules);
  } catch (...) {
    return {"", 0};
  }
}

size_t onnx2nn_weight_count(const onnx2nn_result* conversion) {
  if (conversion == nullptr || !conversion->conversion) return 0;
  return conversion->conversion->weights().size();
}

onnx2nn_status onnx2nn_weight(const onnx2nn_result* conversion, size_t weight, size_t piece,
                              onnx2nn_text* bytes) {
  if (bytes == nullptr) return ONNX2NN_USAGE;
  *bytes = {"", 0};
  if (weight >= onnx2nn_weight_count(conversion)) return ONNX2NN_USAGE;
  const auto& pieces = conversion->conversion->weights()[weight].pieces;
  if (piece >= (pieces.empty() ? 1 : pieces.size())) return ONNX2NN_USAGE;
  try {
    const std::string_view found = conversion->conversion->weight_bytes(weight, piece);
    if (!found.empty()) *bytes = view(found);
    return ONNX2NN_DONE;
  } catch (const onnx2nn::Error&) {
    return ONNX2NN_UNREADABLE;
  } catch (...) {
    return ONNX2NN_INTERNAL;
  }
}

onnx2nn_text onnx2nn_model(const onnx2nn_result* simplified) {
  return view(simplified, &onnx2nn_result::model);
}

void onnx2nn_free(onnx2nn_result* result) { delete result; }

void onnx2nn_set_interrupt(int (*check)(void* context), void* context) {
  interrupt = {check, context};
  if (check == nullptr) {
    onnx2nn::set_interrupt_check(nullptr);
  } else {
    onnx2nn::set_interrupt_check([] { return interrupt.check(interrupt.context) != 0; });
  }
}

}  // extern "C"
