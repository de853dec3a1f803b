#include "ops/weight_role.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "ops/names.h"
#include "support/counted.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

using ir::Value;

template <std::size_t N>
bool one_of(std::string_view text, const std::string_view (&list)[N]) {
  return std::find(std::begin(list), std::end(list), text) != std::end(list);
}

/// "val_12" of torch's exporter for the stem "val".
bool is_numbered(std::string_view name, std::string_view stem) {
  if (name.size() < stem.size() + 2 || !name.starts_with(stem) || name[stem.size()] != '_')
    return false;
  const std::string_view number = name.substr(stem.size() + 1);
  return std::all_of(number.begin(), number.end(), is_digit);
}

/// Whether a tool made the name up: for what it folded, or for a number in the code.
bool is_made_up(std::string_view name) {
  static constexpr std::string_view kStems[] = {"val", "Constant", "const_fold_opt_"};
  return name.starts_with("onnx::") || name.find("_output_") != std::string_view::npos ||
         std::any_of(std::begin(kStems), std::end(kStems),
                     [&](std::string_view stem) { return is_numbered(name, stem); });
}

/// Whether modules call a buffer so, and never a parameter.
bool is_called_constant(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "anchors",    "attn_mask",  "attention_mask", "causal_mask", "cos",          "cos_cache",  "cos_cached",
      "freqs",      "freqs_cis",  "freqs_cos",      "freqs_sin",   "grid",         "image_mean",
      "image_std",  "inv_freq",   "mask",           "mean",        "pixel_mean",   "pixel_std",
      "sin",        "sin_cache",  "sin_cached", "sinusoid",       "std",         "stride",       "strides",
      "timescales", "window",     "running_mean",   "running_var", "mel_filters"};
  const std::size_t dot = name.rfind('.');
  return one_of(dot == std::string_view::npos ? name : name.substr(dot + 1), kNames);
}

/// Input 1 and 2 of these are the scale and zero point that integers stand for.
bool is_scale_of(const ir::Use& use) {
  static constexpr std::string_view kOps[] = {"QuantizeLinear", "DequantizeLinear"};
  return use.index > 0 && one_of(use.user->op_type, kOps);
}

/// The weights of a layer, whatever became of their names.
bool is_weight_of(const ir::Use& use) {
  // What a weight multiplies is none.
  const Value* right = use.user->is("MatMul") ? use.user->input(1) : nullptr;
  if (use.index == 0 && right != nullptr && right->constant) return false;
  static constexpr std::string_view kOps[] = {"Conv", "ConvTranspose", "Einsum", "Gemm", "GRU",
                                              "LSTM", "MatMul",        "RNN"};
  return use.user->domain.empty() && one_of(use.user->op_type, kOps);
}

/// Of the model's input less a mean, by a deviation.
bool normalises_input(const ir::Use& use) {
  if (use.index != 1 || (use.user->op_type != "Sub" && use.user->op_type != "Div")) return false;
  const Value* x = use.user->input(0);
  while (x != nullptr && x->producer() != nullptr &&
         (x->producer()->is("Cast") || x->producer()->is("Sub") || x->producer()->is("Transpose")))
    x = x->producer()->input(0);
  return x != nullptr && x->is_graph_input;
}

/// Masks hold infinities, or the lowest number that there is.
bool holds_no_weights(const ir::Tensor& tensor) {
  constexpr std::int64_t kLooked = 4096;
  constexpr double kNoWeight = 1e9;
  for (std::int64_t i = 0; i < std::min(tensor.size(), kLooked); ++i)
    if (!(std::abs(tensor.double_at(i)) < kNoWeight)) return true;
  return false;
}

/// Whether something says that it is no parameter.
bool is_constant(const Value& value, bool made_up) {
  const auto uses = value.uses();
  const auto all = [&](auto is) {
    return !uses.empty() &&
           std::all_of(uses.begin(), uses.end(), [&](const ir::Use* use) { return is(*use); });
  };
  const bool layer = value.constant->rank() >= 2 &&
                     std::any_of(uses.begin(), uses.end(),
                                 [](const ir::Use* use) { return is_weight_of(*use); });
  if (made_up) return !layer;
  return is_called_constant(value.name) || all(is_scale_of) || all(normalises_input) ||
         holds_no_weights(*value.constant);
}

/// Positions and the like, which modules make anew: 0, 1, 2, ... along the last axis, all zeros.
bool is_formula(const ir::Tensor& t) {
  constexpr std::int64_t kMost = 1 << 20;
  if (t.size() == 0 || t.size() > kMost || ir::info(t.dtype()).kind == 's') return false;
  const std::int64_t last = t.rank() == 0 ? 1 : t.dims().back();
  bool counts = true;
  bool zeros = true;
  for (std::int64_t i = 0; i < t.size() && (counts || zeros); ++i) {
    const double v = t.double_at(i);
    counts = counts && v == static_cast<double>(i % last);
    zeros = zeros && v == 0.0;
  }
  return counts || zeros;
}

/// 1, r, r * r, ...: the frequencies of a rotary embedding.
bool is_geometric(const ir::Tensor& t) {
  if (t.rank() != 1 || t.size() < 3 || t.size() > 4096 || !ir::is_float(t.dtype())) return false;
  const double ratio = t.double_at(1) / t.double_at(0);
  if (t.double_at(0) != 1.0 || ratio == 1.0) return false;
  constexpr double kRounding = 1e-3;
  for (std::int64_t i = 1; i < t.size(); ++i)
    if (!(std::abs(t.double_at(i) / t.double_at(i - 1) - ratio) <= kRounding * ratio)) return false;
  return true;
}

}  // namespace

// "p_fc_weight: PARAMETER target='fc.weight'", "b_mask: BUFFER target='mask' persistent=False"
Signature read_signature(const ir::Graph& graph) {
  Signature out;
  for (const auto& [key, text] : graph.metadata) {
    if (key != "pkg.torch.export.ExportedProgram.graph_signature") continue;
    for (const std::string_view line : split(text, '\n')) {
      constexpr std::string_view kTarget = " target='";
      const std::size_t at = line.find(kTarget);
      if (at == std::string_view::npos) continue;
      const std::string_view target = line.substr(at + kTarget.size());
      const std::size_t end = target.find('\'');
      if (end == std::string_view::npos) continue;
      WeightRole role;
      role.order = out.size();
      role.trainable = line.substr(0, at).ends_with(": PARAMETER");
      if (!role.trainable && !line.substr(0, at).ends_with(": BUFFER")) continue;
      role.persistent = target.substr(end).find("persistent=False") == std::string_view::npos;
      out[std::string(target.substr(0, end))] = role;
    }
  }
  return out;
}

bool are_counted(const ir::Graph& graph) {
  std::string_view stem;
  std::size_t all = 0;
  std::size_t counted = 0;
  const auto see = [&](const Value& v) {
    if (v.is_graph_input || v.name.empty()) return;
    const std::string_view name = without_digits(v.name);
    if (stem.empty()) stem = name;
    ++all;
    if (name.size() < v.name.size() && name == stem) ++counted;
  };
  for (const Value* v : graph.initializers) see(*v);
  for (const ir::Node* n = graph.first(); n != nullptr; n = n->next())
    for (std::size_t i = 0; i < n->output_count(); ++i)
      if (n->output(i) != nullptr) see(*n->output(i));
  // Outputs of the model keep their names, and rewriting makes others.
  return !stem.empty() && counted >= 4 && counted * 4 >= all * 3;
}

bool is_authors_name(const Value& weight, const Signature& said, std::string_view producer) {
  if (!said.empty()) return said.count(weight.name) != 0;
  return producer == "pytorch" && weight.is_initializer && !is_made_up(weight.name) &&
         !is_number(weight.name) && key_components(weight.name, /*of_key=*/true).has_value();
}

WeightRole weight_role(const Value& weight, bool is_float, const Signature& said,
                       std::string_view producer) {
  if (const auto it = said.find(weight.name); it != said.end())
    return {it->second.trainable && is_float, it->second.persistent};
  const ir::Tensor& tensor = *weight.constant;
  const ir::DTypeInfo& stored = ir::info(tensor.dtype());
  const bool is_itself = stored.kind == 'f' && stored.bits >= 16;
  // What is not among all the author's weights was computed by the exporter.
  const bool made_up = !said.empty() || is_made_up(weight.name);
  bool trainable =
      weight.is_initializer && is_float && !(is_itself && is_constant(weight, made_up));
  if (producer != "pytorch") return {trainable, trainable};
  const bool is_named = is_authors_name(weight, said, producer);
  const bool geometric = is_named && is_geometric(tensor);
  trainable = trainable && !geometric;
  const bool saved = is_named && weight.is_initializer && !geometric && !is_formula(tensor);
  return {trainable, trainable || saved};
}

}  // namespace onnx2nn::ops
