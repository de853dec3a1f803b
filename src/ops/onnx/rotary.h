// Rotary embeddings in torch's own words, for ai.onnx's and com.microsoft's operators.
#pragma once

#include "ops/lower.h"

namespace onnx2nn::ops {

/// Whether it is known what turns what: tables of angles [positions, pairs] whose width is that of the heads, or of
/// a first part of them. size: of a head; pairs: the angles' last axis.
bool knows_rotary(const Dim& size, const Dim& pairs);

/// Angles [batch, 1, length, pairs] that all layers share: rows of a table at positions [batch, length], or
/// where there are none what is [batch, length, pairs] already.
Ex shared_angles(LowerContext& c, const Ex& table, const Ex& positions, const char* hint);

/// x [batch, heads, length, size] turned by cos and sin [batch, 1, length, pairs].
Ex rotated(const Ex& x, const Ex& cos, const Ex& sin, std::int64_t size, std::int64_t pairs,
           bool interleaved);

/// A RotaryEmbedding of input 0, [batch, heads, length, size] or with the heads in the last of three axes, by tables of
/// angles [positions, pairs] and positions [batch, length], or without positions by angles [batch, length, pairs].
/// size: of a head. False where its sizes are not known; then nothing was done.
bool lower_plain_rotary(LowerContext& c, std::size_t positions, std::size_t cos, std::size_t sin,
                        const Dim& size);

}  // namespace onnx2nn::ops
