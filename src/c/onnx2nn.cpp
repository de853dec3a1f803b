// The C interface over the C++ one: models. Each function catches all that may be thrown below it.
#include "onnx2nn/onnx2nn.h"

#include <string>
#include <string_view>
#include <utility>

#include "c/options.h"
#include "c/result.h"
#include "cli/figures.h"
#include "onnx2nn/interrupt.h"
#include "onnx2nn/ops.h"
#include "onnx2nn/version.h"
#include "output_paths.h"
#include "support/interrupt.h"

using onnx2nn::Conversion;
using onnx2nn::Simplified;
using onnx2nn::c::Json;
using onnx2nn::c::guarded;
using onnx2nn::c::made;
using onnx2nn::c::require;
using onnx2nn::c::say;

namespace {

constexpr const char* kName = "model";

std::string bytes_of(const void* bytes, size_t size) {
  if (size > 0) require(bytes, "bytes");
  return size == 0 ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

std::string name_of(const char* name) { return name == nullptr ? kName : name; }

/// Takes over what a conversion says.
void say(onnx2nn_result& r, const Conversion& c) {
  say(r, onnx2nn::c::status_of(c.diagnostics(), c.readable()), c.diagnostics_text());
}

void keep(onnx2nn_result& r, Conversion c) {
  r.conversion.emplace(std::move(c));
  say(r, *r.conversion);
}

void keep(onnx2nn_result& r, Simplified s) {
  r.files = s.files;
  say(r, onnx2nn::c::status_of(s.diagnostics, s.readable), s.diagnostics_text);
  r.simplified.emplace(std::move(s));
}

void keep(onnx2nn_result& r, const onnx2nn::cli::Inspected& i, bool nodes) {
  r.said["readable"] = i.found.readable;
  onnx2nn::cli::add_inspected(r.said, i, nodes);
  say(r, static_cast<onnx2nn_status>(i.code), i.diagnostics_text);
}

onnx2nn_text view(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

/// JSON of a handle, kept there under `member`; empty where there is no memory for it.
template <typename Make>
onnx2nn_text kept(const onnx2nn_result* r, std::string_view member, Make&& make) noexcept {
  if (r == nullptr) return {"", 0};
  try {
    const std::lock_guard lock(r->mutex);
    auto it = r->texts.find(member);
    if (it == r->texts.end()) it = r->texts.emplace(member, make()).first;
    return view(it->second);
  } catch (...) {
    return {"", 0};
  }
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
    if (r.conversion->source().empty()) return;  // refused
    r.said = Json::object();
    const onnx2nn::OutputPaths paths = onnx2nn::output_paths(r.model_path, path);
    onnx2nn::make_folder_of(paths.source);
    const std::string weights = weights_path == nullptr ? paths.weights : weights_path;
    if (!weights.empty()) onnx2nn::make_folder_of(weights);
    r.files = r.conversion->write(paths.source, weights);
    say(r, *r.conversion);
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
    const auto o = onnx2nn::c::inspection_options(options);
    keep(r, onnx2nn::cli::inspected_file(path, o.conversion, o.convert), o.nodes);
  });
}

onnx2nn_status onnx2nn_inspect_bytes(const void* bytes, size_t size, const char* name,
                                     const char* options, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const auto o = onnx2nn::c::inspection_options(options);
    keep(r, onnx2nn::cli::inspected_bytes(bytes_of(bytes, size), o.conversion, name_of(name), o.convert),
         o.nodes);
  });
}

onnx2nn_status onnx2nn_publish(onnx2nn_result* simplified) {
  if (simplified == nullptr) return ONNX2NN_USAGE;
  onnx2nn_result& r = *simplified;
  return guarded(r, [&] {
    if (!r.simplified || !r.simplified->staged)
      throw onnx2nn::Error("bad-option", "this is no simplification with \"staging\"");
    Simplified s = onnx2nn::publish(*r.simplified->staged);
    r.files = std::move(s.files);
    r.said["diagnostics"] = onnx2nn::cli::json_of(s.diagnostics);
    say(r, onnx2nn::c::status_of(s.diagnostics, true), std::move(s.diagnostics_text));
  });
}

onnx2nn_status onnx2nn_operators(onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    Json& list = r.said["operators"] = Json::array();
    for (const onnx2nn::OpInfo& op : onnx2nn::op_table())
      list.push_back({{"domain", op.domain},
                      {"type", op.type},
                      {"changed_at", op.changed_at},
                      {"nondeterministic", op.nondeterministic},
                      {"infers", op.infers},
                      {"lowers", op.lowers}});
    say(r, {});
  });
}

onnx2nn_status onnx2nn_result_status(const onnx2nn_result* result) {
  return result == nullptr ? ONNX2NN_USAGE : result->status;
}

onnx2nn_text onnx2nn_diagnostics(const onnx2nn_result* result) {
  return result == nullptr ? onnx2nn_text{"", 0} : view(result->diagnostics);
}

onnx2nn_text onnx2nn_json(const onnx2nn_result* result) {
  return kept(result, "", [&] { return onnx2nn::cli::text_of(onnx2nn::c::json_of(*result)); });
}

onnx2nn_text onnx2nn_json_of(const onnx2nn_result* result, const char* member) {
  if (member == nullptr) return {"", 0};
  return kept(result, member, [&] {
    return onnx2nn::cli::text_of(onnx2nn::c::json_of(*result, member), 0);
  });
}

onnx2nn_text onnx2nn_source(const onnx2nn_result* conversion) {
  if (conversion == nullptr || !conversion->conversion) return {"", 0};
  return view(conversion->conversion->source());
}

onnx2nn_text onnx2nn_modules(onnx2nn_result* conversion) {
  if (conversion == nullptr || !conversion->conversion || !conversion->conversion->ok())
    return {"", 0};
  return kept(conversion, "modules", [&] {
    Json list = Json::array();
    for (const onnx2nn::ModuleInfo& m : conversion->conversion->modules())
      list.push_back({{"path", onnx2nn::cli::model_text(m.path)},
                      {"type", onnx2nn::cli::model_text(m.type)},
                      {"layer", m.is_layer}});
    return list.empty() ? std::string() : onnx2nn::cli::text_of(list);
  });
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
  } catch (const onnx2nn::Cancelled&) {
    return ONNX2NN_CANCELLED;
  } catch (...) {
    return ONNX2NN_INTERNAL;
  }
}

onnx2nn_text onnx2nn_model(const onnx2nn_result* simplified) {
  if (simplified == nullptr || !simplified->simplified) return {"", 0};
  return view(simplified->simplified->model);
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
