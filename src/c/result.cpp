#include "c/result.h"

#include <exception>
#include <span>
#include <utility>

#include <fmt/core.h>

#include "support/interrupt.h"
#include "support/text.h"

namespace onnx2nn::c {
namespace {

using Make = Json (*)(const onnx2nn_result&);
struct Member {
  std::string_view name;
  Make make;
};

Json place_of(const std::string& file) { return file.empty() ? Json(nullptr) : Json(file); }

Json weights_of(const onnx2nn_result& r) {
  Json out = Json::array();
  for (const WeightInfo& w : r.conversion->weights()) {
    Json pieces = Json::array();
    for (const WeightPiece& p : w.pieces)
      pieces.push_back({{"file", place_of(p.file)},
                        {"offset", p.file_offset},
                        {"nbytes", p.nbytes},
                        {"start", p.offset},
                        {"rows", p.rows},
                        {"columns", p.columns},
                        {"stride", p.stride},
                        {"transpose", p.transpose}});
    out.push_back({{"key", cli::model_text(w.key)},
                   {"dtype", w.dtype},
                   {"shape", w.shape},
                   {"requires_grad", w.trainable},
                   {"is_buffer", w.is_buffer},
                   {"persistent", w.persistent},
                   {"exact", w.exact},
                   {"file", place_of(w.file)},
                   {"offset", w.offset},
                   {"nbytes", w.nbytes},
                   {"transpose", w.transpose},
                   {"quantized", w.quantized.empty() ? Json(nullptr) : Json(cli::model_text(w.quantized))},
                   {"pieces", std::move(pieces)},
                   {"onnx_name", cli::model_text(w.onnx_name)}});
  }
  return out;
}

Json log_of(const onnx2nn_result& r) {
  Json out = Json::array();
  for (const auto& [rule, node] : r.simplified->log)
    out.push_back(Json::array({rule, cli::model_text(node)}));
  return out;
}

constexpr Member kConversion[] = {
    {"readable", [](const onnx2nn_result& r) { return Json(r.conversion->readable()); }},
    {"class_name", [](const onnx2nn_result& r) { return Json(r.conversion->class_name()); }},
    {"inputs", [](const onnx2nn_result& r) { return cli::json_of(r.conversion->inputs()); }},
    {"outputs", [](const onnx2nn_result& r) { return cli::json_of(r.conversion->outputs()); }},
    {"weights", weights_of},
    {"stats", [](const onnx2nn_result& r) { return cli::json_of(r.conversion->stats()); }},
    {"files", [](const onnx2nn_result& r) { return Json(r.files); }},
    {"diagnostics", [](const onnx2nn_result& r) { return cli::json_of(r.conversion->diagnostics()); }},
};

constexpr Member kSimplified[] = {
    {"readable", [](const onnx2nn_result& r) { return Json(r.simplified->readable); }},
    {"files", [](const onnx2nn_result& r) { return Json(r.files); }},
    {"simplified", [](const onnx2nn_result& r) { return cli::json_of(*r.simplified); }},
    {"log", log_of},
    {"diagnostics", [](const onnx2nn_result& r) { return cli::json_of(r.simplified->diagnostics); }},
};

std::span<const Member> members_of(const onnx2nn_result& r) {
  if (r.conversion) return kConversion;
  if (r.simplified) return kSimplified;
  return {};
}

}  // namespace

Json json_of(const onnx2nn_result& r, std::string_view member) {
  if (member == "exit_code") return static_cast<int>(r.status);
  if (const auto said = r.said.find(member); said != r.said.end()) return *said;
  for (const Member& m : members_of(r))
    if (m.name == member) return m.make(r);
  return nullptr;
}

Json json_of(const onnx2nn_result& r) {
  Json out;
  for (const Member& m : members_of(r)) out[m.name] = json_of(r, m.name);
  for (const auto& [name, value] : r.said.items()) out[name] = value;
  out["exit_code"] = static_cast<int>(r.status);
  return out;
}

void say(onnx2nn_result& r, onnx2nn_status status, std::string diagnostics) {
  const std::lock_guard lock(r.mutex);
  r.texts.clear();
  r.diagnostics = std::move(diagnostics);
  r.status = status;
}

void say(onnx2nn_result& r, const std::vector<DiagnosticInfo>& list) {
  std::string text;
  for (const DiagnosticInfo& d : list) {
    text += fmt::format("onnx2nn: {}[{}]: {}\n", d.severity, d.code, printable(d.message));
    if (!d.hint.empty()) text += fmt::format("  hint    {}\n", printable(d.hint));
  }
  r.said["diagnostics"] = cli::json_of(list);
  say(r, status_of(list, true), std::move(text));
}

void say_error(onnx2nn_result& r, onnx2nn_status status, const Error& e) {
  DiagnosticInfo d;
  d.severity = "error";
  d.code = e.code();
  d.message = e.message();
  d.hint = e.hint();
  say(r, {d});
  r.status = status;
}

onnx2nn_status status_of(const std::vector<DiagnosticInfo>& list, bool readable) {
  for (const DiagnosticInfo& d : list)
    if (d.severity == "error") return static_cast<onnx2nn_status>(cli::exit_code_of(list, readable));
  return ONNX2NN_DONE;
}

void require(const void* argument, std::string_view name) {
  if (argument == nullptr) fail("bad-option", "{} is NULL", name);
}

onnx2nn_status guarded(onnx2nn_result& r, const std::function<void()>& work) noexcept {
  try {
    try {
      work();
    } catch (const Error& e) {
      const std::string& code = e.code();
      const bool usage = code == "bad-option" || code == "bad-type" || code == "bad-value";
      say_error(r, usage ? ONNX2NN_USAGE : ONNX2NN_UNREADABLE, e);
    } catch (const Cancelled&) {
      say_error(r, ONNX2NN_CANCELLED, Error("cancelled", "interrupted"));
    } catch (const std::exception& e) {
      say_error(r, ONNX2NN_INTERNAL, Error("internal", std::string("please report it: ") + e.what()));
    }
  } catch (...) {  // not even the text could be made
    r.status = ONNX2NN_INTERNAL;
  }
  return r.status;
}

}  // namespace onnx2nn::c
