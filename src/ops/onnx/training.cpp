#include "ops/onnx/training.h"

#include <cstdint>
#include <optional>
#include <string_view>

#include "ops/op.h"

namespace onnx2nn::ops {
namespace {

constexpr std::int64_t kModeByOutputs = 7;    // BatchNormalization
constexpr std::int64_t kModeAttribute = 14;   // BatchNormalization
constexpr std::int64_t kNoTestAttribute = 7;  // Dropout
constexpr std::int64_t kModeInput = 12;       // Dropout

std::optional<std::int64_t> integer(const ir::Node& n, std::string_view name) {
  const ir::Attribute* a = n.attribute(name);
  const auto* v = a != nullptr ? std::get_if<std::int64_t>(&a->data) : nullptr;
  return v != nullptr ? std::optional(*v) : std::nullopt;
}

/// The number that input `i` always is.
std::optional<double> number(const ir::Node& n, std::size_t i) {
  const ir::Value* v = n.input(i);
  if (v == nullptr || !v->constant || v->constant->size() != 1) return std::nullopt;
  const char kind = ir::info(v->constant->dtype()).kind;
  if (kind == 's' || kind == 'c') return std::nullopt;
  return v->constant->double_at(0);
}

/// Where input `ratio` says the ratio and input `ratio` + 1 the mode.
Mode mode_of_inputs(const ir::Node& n, std::size_t ratio) {
  if (n.input(ratio + 1) == nullptr || number(n, ratio) == 0.0) return Mode::Inference;
  const auto mode = number(n, ratio + 1);
  if (!mode) return Mode::OnlyTheRunKnows;
  return *mode != 0.0 ? Mode::Training : Mode::Inference;
}

}  // namespace

Mode batch_norm_mode(const ir::Node& n) {
  bool trains = n.output_count() > 1;
  if (n.opset < kModeByOutputs) trains = integer(n, "is_test").value_or(0) == 0;
  if (n.opset >= kModeAttribute) trains = integer(n, "training_mode").value_or(0) != 0;
  return trains ? Mode::Training : Mode::Inference;
}

Mode dropout_mode(const ir::Node& n) {
  if (n.domain == "com.microsoft") return mode_of_inputs(n, n.op_type == "BitmaskDropout" ? 1 : 3);
  if (n.opset >= kModeInput) return mode_of_inputs(n, 1);
  const bool trains = n.opset < kNoTestAttribute && integer(n, "is_test").value_or(1) == 0 &&
                      (n.attribute("ratio") == nullptr || n.attribute("ratio")->number() != 0.0);
  return trains ? Mode::Training : Mode::Inference;
}

bool is_random(const ir::Node& n) {
  if (n.op != nullptr && n.op->nondeterministic) return true;
  const bool drops = n.is("Dropout") || n.is("BiasDropout", "com.microsoft") ||
                     n.is("BitmaskDropout", "com.microsoft") ||
                     n.is("BitmaskBiasDropout", "com.microsoft");
  return drops && dropout_mode(n) != Mode::Inference;
}

}  // namespace onnx2nn::ops
