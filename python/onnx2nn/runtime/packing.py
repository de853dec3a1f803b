"""com.microsoft's sequences without padding, and attention over them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.heads import add_masks, merge_heads, split_heads, split_parts


def remove_padding(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """com.microsoft RemovePadding: samples end to end, places of tokens, starts, the longest."""
    batch, length = x.shape[0], x.shape[1]
    kept = (torch.arange(length, device=x.device) < lengths.unsqueeze(1)).reshape(-1)
    # Places of what is kept come first, then those of the padding.
    order = torch.argsort((~kept).to(torch.int32), stable=True)
    starts = F.pad(lengths.cumsum(0), [1, 0]).to(torch.int32)
    places = order.reshape(batch, length).to(torch.int32)
    return (
        x.flatten(0, 1)[kept],
        places,
        starts,
        lengths.max().reshape(1).to(torch.int32),
    )


def restore_padding(x: Tensor, places: Tensor) -> Tensor:
    """com.microsoft RestorePadding: puts tokens back to [batch, length, ...], zeros elsewhere."""
    index = places.reshape(-1)[: x.shape[0]].to(torch.int64)
    y = x.new_zeros(places.numel(), *x.shape[1:]).index_copy(0, index, x)
    return y.reshape(*places.shape, *x.shape[1:])


def attend_apart(
    parts: list[Tensor],
    token_offset: Tensor,
    starts: Tensor,
    attention_bias: Tensor | None,
    num_heads: int,
    scale: float,
) -> Tensor:
    """Attention over sequences that lie end to end [tokens, width], put apart by their places."""
    apart = (restore_padding(part, token_offset) for part in parts)
    q, k, v = (split_heads(part, num_heads) for part in apart)
    places = torch.arange(k.shape[2], device=k.device)
    seen = places < (starts[1:] - starts[:-1]).unsqueeze(1)
    mask = add_masks(seen.reshape(-1, 1, 1, k.shape[2]), attention_bias)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale or None)
    rows = merge_heads(y).flatten(0, 1)
    return rows[token_offset.reshape(-1)[: len(parts[0])].long()]


def packed_multi_head_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    bias: Tensor | None,
    token_offset: Tensor,
    cumulative_sequence_length: Tensor,
    attention_bias: Tensor | None = None,
    *,
    num_heads: int,
    scale: float = 0.0,
) -> Tensor:
    """com.microsoft PackedMultiHeadAttention: sequences end to end, put apart to attend."""
    if key is None or value is None:
        query, key, value = (part.flatten(1) for part in query.unbind(2))
    parts = [query, key, value]
    if bias is not None:
        sizes = [query.shape[1], key.shape[1]]
        biases = split_parts(bias, sizes)
        parts = [part + added for part, added in zip(parts, biases, strict=True)]
    starts = cumulative_sequence_length
    return attend_apart(parts, token_offset, starts, attention_bias, num_heads, scale)


def packed_attention(
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    token_offset: Tensor,
    cumulative_sequence_length: Tensor,
    attention_bias: Tensor | None = None,
    *,
    num_heads: int,
    qkv_hidden_sizes: list[int] | None = None,
    scale: float = 0.0,
) -> Tensor:
    """com.microsoft PackedAttention: projections, then PackedMultiHeadAttention."""
    sizes = qkv_hidden_sizes or [weights.shape[1] // 3] * 3
    parts = split_parts(x @ weights + bias, sizes)
    starts = cumulative_sequence_length
    return attend_apart(parts, token_offset, starts, attention_bias, num_heads, scale)
