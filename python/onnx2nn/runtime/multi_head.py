"""com.microsoft's Attention and MultiHeadAttention, quantised and masked forms included."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.heads import (
    add_masks,
    merge_heads,
    split_heads,
    split_parts,
    visible_keys,
)


def padding_bias(
    mask: Tensor | None, q_length: int, k_length: int, fill: float, dtype: torch.dtype
) -> Tensor | None:
    """What com.microsoft's attentions add to scores for their many kinds of integer mask.

    Lengths [batch], ends and starts [2 * batch], [batch, keys], [batch, queries, keys] or
    [batch, 1, longest, longest].
    """
    if mask is None:
        return None
    if mask.dim() == 1:
        raise ValueError("a mask of one axis needs the batch size")
    if mask.dim() == 2:
        valid = mask.reshape(mask.shape[0], 1, 1, mask.shape[1])
    elif mask.dim() == 3:
        valid = mask.unsqueeze(1)
    else:
        past = k_length - q_length
        valid = mask[:, :, past : past + q_length, :k_length]
    bias = torch.zeros(valid.shape, dtype=dtype, device=mask.device)
    # What float32 holds, halves may not: their lowest number says the same.
    lowest = torch.finfo(dtype).min
    return bias.masked_fill(valid <= 0, min(max(fill, lowest), -lowest))


def length_mask(mask: Tensor | None, batch: int, k_length: int) -> Tensor | None:
    """Makes [batch, keys] of a mask that gives lengths, or ends and starts, of the valid keys."""
    if mask is None or mask.dim() != 1:
        return mask
    places = torch.arange(k_length, device=mask.device)
    valid = places < mask[:batch].unsqueeze(1)
    if mask.shape[0] == 2 * batch:
        valid = valid & (places >= mask[batch:].unsqueeze(1))
    return valid.to(torch.int32)


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    unidirectional: int,
    past: int,
    scale: float,
) -> Tensor:
    """Attention over [batch, heads, length, size] with a bias, causal after `past` keys.

    A single query sees all keys, causal or not, as in ONNX Runtime.
    """
    allowed = None
    if unidirectional and q.shape[2] > 1:
        allowed = visible_keys(q.shape[2], k.shape[2], past, 1, -1, -1, q.device)
    if bias is not None:
        bias = bias.expand(-1, -1, q.shape[2], -1)
    mask = add_masks(allowed, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale or None)


def sum_biases(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two optional biases."""
    if a is None or b is None:
        return a if b is None else b
    return a + b


def append_to_buffer(buffer: Tensor, new: Tensor, past: int) -> Tensor:
    """A cache of fixed length [batch, heads, longest, size] with `new` after `past` rows."""
    places = torch.arange(past, past + new.shape[2], device=new.device)
    return buffer.index_copy(2, places, new)


def rows_of_beams(x: Tensor, cache_indirection: Tensor, new: int) -> Tensor:
    """Keys or values [samples * beams, heads, rows, size], each row from the beam that made it.

    cache_indirection [samples, beams, longest] names the beam for all but the `new` last rows.
    """
    samples, beams = cache_indirection.shape[:2]
    places = torch.arange(x.shape[2], device=x.device)
    own = torch.arange(samples * beams, device=x.device).reshape(samples, beams, 1)
    first = torch.arange(samples, device=x.device).reshape(samples, 1, 1) * beams
    rows = torch.where(
        places < x.shape[2] - new, first + cache_indirection[..., : x.shape[2]], own
    )
    heads = torch.arange(x.shape[1], device=x.device).reshape(1, -1, 1)
    return x[rows.reshape(samples * beams, 1, -1), heads, places]


def projected_heads(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    bias: Tensor | None,
    num_heads: int,
) -> tuple[Tensor, ...]:
    """Heads of the three, which may come packed in one, or two of them in one, with a bias."""
    if query.dim() == 5:
        query, key, value = (part.flatten(2) for part in query.unbind(3))
    elif key is None and query.dim() == 3:
        query, key, value = query.chunk(3, dim=-1)
    elif key is not None and key.dim() == 5:
        key, value = (part.flatten(2) for part in key.unbind(3))
    if key is None or value is None:
        raise ValueError("MultiHeadAttention: key and value are missing")
    if bias is not None:
        width = query.shape[-1]
        query = query + bias[:width]
        if key.dim() == 3 and value.dim() == 3:
            key, value = key + bias[width : 2 * width], value + bias[2 * width :]
    return tuple(split_heads(part, num_heads) for part in (query, key, value))


def with_past(
    k: Tensor,
    v: Tensor,
    caches: tuple[Tensor | None, Tensor | None],
    filled: Tensor | int | None,
    beams: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """The caches with new keys and values, what is seen of them, how many came before."""
    past_key, past_value = caches
    if past_key is None or past_value is None:
        return k, v, k, v, 0
    if filled is None:
        past = past_key.shape[2]
        keys, values = (
            torch.cat([past_key, k], dim=2),
            torch.cat([past_value, v], dim=2),
        )
    else:
        past = int(filled)
        keys = append_to_buffer(past_key, k, past)
        values = append_to_buffer(past_value, v, past)
    seen = [x[:, :, : past + k.shape[2]] for x in (keys, values)]
    if beams is not None:
        seen = [rows_of_beams(x, beams, k.shape[2]) for x in seen]
    return keys, values, seen[0], seen[1], past


def attend_unpadded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    attention_bias: Tensor | None,
    past: int,
    qk: bool = False,
    scale: float = 0.0,
    mask_filter_value: float = -10000.0,
    unidirectional: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Attention by com.microsoft's masks, and with `qk` its scores before the softmax."""
    size, length = q.shape[-1], q.shape[2]
    added = padding_bias(mask, length, k.shape[2], mask_filter_value, q.dtype)
    added = sum_biases(added, attention_bias)
    y = merge_heads(masked_attention(q, k, v, added, unidirectional, past, scale))
    if not qk:
        return y, None
    scores = q @ k.mT * (scale or 1.0 / math.sqrt(size))
    scores = scores if added is None else scores + added
    if unidirectional and length > 1:
        later = torch.ones_like(scores, dtype=torch.bool).triu(past + 1)
        scores = scores.masked_fill(later, torch.finfo(scores.dtype).min)
    return y, scores


def multi_head_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    num_heads: int,
    qk: bool = False,
    past_sequence_length: Tensor | int | None = None,
    cache_indirection: Tensor | None = None,
    **scoring: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """com.microsoft MultiHeadAttention; caches of a fixed length are filled to `past_sequence_length`."""
    q, k, v = projected_heads(query, key, value, bias, num_heads)
    filled = (past_sequence_length, cache_indirection)
    keys, values, k, v, before = with_past(k, v, (past_key, past_value), *filled)
    mask = length_mask(key_padding_mask, q.shape[0], k.shape[2])
    y, scores = attend_unpadded(q, k, v, mask, attention_bias, before, qk, **scoring)
    return y, keys, values, scores


def attend_projected(
    projected: Tensor,
    mask_index: Tensor | None,
    past: Tensor | None,
    attention_bias: Tensor | None,
    sizes: list[int],
    num_heads: int,
    **scoring: Any,
) -> tuple[Tensor, Tensor]:
    """What com.microsoft's Attention and QAttention share after the projection."""
    q, k, v = (split_heads(part, num_heads) for part in split_parts(projected, sizes))
    if past is not None:
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
    present = torch.stack([k, v]) if k.shape == v.shape else k
    mask = length_mask(mask_index, q.shape[0], k.shape[2])
    before = k.shape[2] - q.shape[2]
    y, _ = attend_unpadded(q, k, v, mask, attention_bias, before, **scoring)
    return y, present


def ms_attention(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask_index: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *,
    num_heads: int,
    qkv_hidden_sizes: list[int] | None = None,
    **scoring: Any,
) -> tuple[Tensor, Tensor]:
    """com.microsoft Attention: projects, attends, keeps a cache; torch has no such call."""
    projected = x @ weights if bias is None else x @ weights + bias
    sizes = qkv_hidden_sizes or [weights.shape[1] // 3] * 3
    inputs = (mask_index, past, attention_bias)
    return attend_projected(projected, *inputs, sizes, num_heads, **scoring)


def integer_projection(
    x: Tensor, weight: Tensor, x_zero_point: Tensor | None, zero_point: Tensor | None
) -> Tensor:
    """The product of integers less their zero points, which is exact in double."""
    left, right = x.double(), weight.double()
    if x_zero_point is not None:
        left = left - x_zero_point.double()
    if zero_point is not None:
        right = right - zero_point.double()
    return left @ right


def qattention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    mask_index: Tensor | None = None,
    input_zero_point: Tensor | None = None,
    weight_zero_point: Tensor | None = None,
    past: Tensor | None = None,
    *,
    num_heads: int,
    **scoring: Any,
) -> tuple[Tensor, Tensor]:
    """com.microsoft QAttention: Attention whose projection multiplies integers."""
    product = integer_projection(x, weight, input_zero_point, weight_zero_point)
    projected = product.to(bias.dtype) * (input_scale * weight_scale) + bias
    sizes = [weight.shape[1] // 3] * 3
    return attend_projected(
        projected, mask_index, past, None, sizes, num_heads, **scoring
    )
