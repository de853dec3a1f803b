// Operators that compute otherwise where they train, and how a node says so in each opset.
#pragma once

#include "ir/graph.h"

namespace onnx2nn::ops {

/// What a node says of its mode.
enum class Mode { Inference, Training, OnlyTheRunKnows };

/// Of a BatchNormalization of ai.onnx. Opset 1 to 6 have `is_test`, which is 0 where it is absent;
/// in 7 to 13 a node with more than one output trains, though they are named "" or nobody reads
/// them; from 14 on there is `training_mode`.
Mode batch_norm_mode(const ir::Node& n);

/// Of a Dropout of ai.onnx, or one of com.microsoft's kinds of it. Opset 1 and 6 have `is_test`,
/// which exporters left out when they meant inference; 7 and 10 know inference only; from 12 on an
/// input says it. Inference is what drops nothing: a ratio of 0 too.
Mode dropout_mode(const ir::Node& n);

/// Whether two runs of `n` may give different answers: it is never folded, and never merged.
bool is_random(const ir::Node& n);

}  // namespace onnx2nn::ops
