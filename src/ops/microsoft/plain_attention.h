// Attention and embeddings of com.microsoft that torch says itself.
#pragma once

#include "ops/lower.h"

namespace onnx2nn::ops {

/// Each lowers its node and says so, or leaves it untouched where a runtime helper is needed.

/// Attention: a projection and one call of scaled_dot_product_attention.
bool lower_plain_attention(LowerContext& c);
/// MultiHeadAttention with query, key and value of their own.
bool lower_plain_multi_head(LowerContext& c);
/// GroupQueryAttention with a real cache: places, angles and a mask that all layers share, and one call.
bool lower_plain_group_query(LowerContext& c);
/// EmbedLayerNormalization: lookups, a sum and a norm.
bool lower_plain_embed(LowerContext& c);

/// [batch, length, heads * size] as [batch, heads, length, size].
Ex split_heads(const Ex& x, std::int64_t heads);

}  // namespace onnx2nn::ops
