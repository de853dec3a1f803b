// The families of operators, one source file each. A new family is a line here and one in
// registry.cpp.
#pragma once

#include <span>

#include "ops/op.h"

namespace onnx2nn::ops {

std::span<const OpDef> activation_ops();
std::span<const OpDef> aten_ops();
std::span<const OpDef> attention_ops();
std::span<const OpDef> cast_ops();
std::span<const OpDef> control_ops();
std::span<const OpDef> conv_ops();
std::span<const OpDef> create_ops();
std::span<const OpDef> elementwise_ops();
std::span<const OpDef> feature_ops();
std::span<const OpDef> image_ops();
std::span<const OpDef> index_ops();
std::span<const OpDef> layout_ops();
std::span<const OpDef> linear_ops();
std::span<const OpDef> linear_model_ops();
std::span<const OpDef> loss_ops();
std::span<const OpDef> maths_ops();
std::span<const OpDef> microsoft_ops();
std::span<const OpDef> microsoft_fused_ops();
std::span<const OpDef> microsoft_attention_ops();
std::span<const OpDef> microsoft_generation_ops();
std::span<const OpDef> microsoft_hybrid_ops();
std::span<const OpDef> microsoft_quantized_ops();
std::span<const OpDef> microsoft_signal_ops();
std::span<const OpDef> norm_ops();
std::span<const OpDef> pad_ops();
std::span<const OpDef> pool_ops();
std::span<const OpDef> quantize_ops();
std::span<const OpDef> recurrent_ops();
std::span<const OpDef> reduce_ops();
std::span<const OpDef> resize_ops();
std::span<const OpDef> scan_ops();
std::span<const OpDef> sequence_ops();
std::span<const OpDef> shape_ops();
std::span<const OpDef> signal_ops();
std::span<const OpDef> slice_ops();
std::span<const OpDef> text_ops();
std::span<const OpDef> tree_ensemble_ops();

}  // namespace onnx2nn::ops
