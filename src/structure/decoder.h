// Which models are decoders that continue a text token by token.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "torch/decoder.h"
#include "torch/program.h"

namespace onnx2nn::structure {

/// How the model continues a text, read from the names, types and sizes of its inputs and outputs, as
/// Optimum, onnxruntime-genai and ONNX Runtime's own tools call them: `input_ids`, `attention_mask`,
/// `position_ids`, `past_key_values.0.key` and `present.0.key`, `past_0` and `present_0`, `logits`.
/// Nothing where one of them is not understood, where the caches cannot start empty, or where the
/// class has members called as its methods would be. The program has its classes, and `helpers` are the
/// runtime helpers that it calls.
std::optional<torch::Decoder> decoder_of(const torch::Program& program,
                                         const std::set<std::string>& helpers);

}  // namespace onnx2nn::structure
