#include "ops/weight_role.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "support/text.h"

namespace onnx2nn::ops {
namespace {

using ir::Node;
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
      "anchors",    "attn_mask",  "attention_mask", "causal_mask", "cos",          "cos_cached",
      "freqs",      "freqs_cis",  "freqs_cos",      "freqs_sin",   "grid",         "image_mean",
      "image_std",  "inv_freq",   "mask",           "mean",        "pixel_mean",   "pixel_std",
      "sin",        "sin_cached", "sinusoid",       "std",         "stride",       "strides",
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
bool is_constant(const Value& value) {
  const auto uses = value.uses();
  const auto all = [&](auto is) {
    return !uses.empty() &&
           std::all_of(uses.begin(), uses.end(), [&](const ir::Use* use) { return is(*use); });
  };
  const bool layer = value.constant->rank() >= 2 &&
                     std::any_of(uses.begin(), uses.end(),
                                 [](const ir::Use* use) { return is_weight_of(*use); });
  if (is_made_up(value.name)) return !layer;
  return is_called_constant(value.name) || all(is_scale_of) || all(normalises_input) ||
         holds_no_weights(*value.constant);
}

}  // namespace

WeightRole weight_role(const Value& value) {
  if (!value.is_initializer) return {};
  const ir::DTypeInfo& type = ir::info(value.constant->dtype());
  if (type.kind == 'f' && type.bits >= 16 && !is_constant(value))
    return {.trainable = true, .persistent = true};
  // What has a name of the author's was an entry of the state_dict.
  return {.trainable = false, .persistent = !is_made_up(value.name)};
}

}  // namespace onnx2nn::ops
