#include "ops/registry.h"

#include <array>
#include <unordered_map>

namespace onnx2nn::ops {

std::span<const std::span<const OpDef>> all_families() {
  static const std::array kFamilies = {
      activation_ops(),
      aten_ops(),
      attention_ops(),
      cast_ops(),
      control_ops(),
      conv_ops(),
      create_ops(),
      elementwise_ops(),
      feature_ops(),
      image_ops(),
      index_ops(),
      layout_ops(),
      linear_ops(),
      linear_model_ops(),
      loss_ops(),
      maths_ops(),
      microsoft_ops(),
      microsoft_fused_ops(),
      microsoft_attention_ops(),
      microsoft_generation_ops(),
      microsoft_hybrid_ops(),
      microsoft_quantized_ops(),
      microsoft_signal_ops(),
      norm_ops(),
      pad_ops(),
      pool_ops(),
      quantize_ops(),
      recurrent_ops(),
      reduce_ops(),
      resize_ops(),
      scan_ops(),
      sequence_ops(),
      shape_ops(),
      signal_ops(),
      slice_ops(),
      text_ops(),
      tree_ensemble_ops(),
  };
  return kFamilies;
}

const OpDef* find_op(std::string_view domain, std::string_view type) {
  static const auto kTable = [] {
    std::unordered_map<std::string_view, std::vector<const OpDef*>> table;
    for (const auto family : all_families())
      for (const OpDef& op : family) table[op.type].push_back(&op);
    return table;
  }();
  const auto it = kTable.find(type);
  if (it == kTable.end()) return nullptr;
  for (const OpDef* op : it->second)
    if (op->domain == domain) return op;
  return nullptr;
}

}  // namespace onnx2nn::ops
