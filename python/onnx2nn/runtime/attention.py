"""Attention, rotary embeddings and their kin in ai.onnx."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.heads import (
    add_masks,
    merge_heads,
    repeat_heads,
    rotate_heads,
    softmax_of_visible,
    split_heads,
    visible_keys,
)


def with_given_mask(
    allowed: Tensor | None, given: Tensor | None, k_length: int
) -> Tensor | None:
    """One mask from what may be seen and the mask of the caller, which may end before the keys."""
    if given is None:
        return allowed
    missing = k_length - given.shape[-1]
    if given.dtype == torch.bool:
        given = F.pad(given, [0, missing], value=False) if missing else given
        return given if allowed is None else allowed & given
    given = F.pad(given, [0, missing], value=-torch.inf) if missing else given
    return add_masks(allowed, given)


def masked_scores(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores with a mask, of which -inf is selected, not added: inf less inf is NaN."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return torch.where(mask == -torch.inf, -torch.inf, scores + mask)


def attend_in_steps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    softcap: float,
    softmax_precision: torch.dtype | None,
    shown: int,
) -> tuple[Tensor, Tensor]:
    """Attention rounded after each step, and its scores after the step that is `shown`."""
    root = math.sqrt(1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
    factor = torch.full([], root, dtype=q.dtype, device=q.device)
    raw = (q * factor) @ (repeat_heads(k, q.shape[1]) * factor).mT
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    masked = masked_scores(capped, mask)
    weights = softmax_of_visible(masked.to(softmax_precision or q.dtype)).to(q.dtype)
    y = weights @ repeat_heads(v, q.shape[1])
    return y, [raw, capped, masked, weights][shown]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: torch.dtype | None = None,
    qk_matmul_output: bool = False,
    qk_matmul_output_mode: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Attention in one call of torch where that rounds as ONNX does, and gives no scores."""
    # In half precision ONNX rounds after each step, which torch's fused attention does not.
    wide = q.dtype in (torch.float32, torch.float64)
    exact = wide and softmax_precision in (None, q.dtype)
    if exact and not qk_matmul_output and not softcap:
        grouped = q.shape[1] != k.shape[1]
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped
        )
        return y, None
    shown = qk_matmul_output_mode
    return attend_in_steps(q, k, v, mask, scale, softcap, softmax_precision, shown)


def onnx_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    q_num_heads: int = 0,
    kv_num_heads: int = 0,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """ONNX Attention: Y, keys and values with those of the past, scores if they are asked for."""
    heads = split_heads(q, q_num_heads)
    k, v = split_heads(k, kv_num_heads), split_heads(v, kv_num_heads)
    past: int | None = None
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = torch.cat([past_key, k], dim=2), torch.cat([past_value, v], dim=2)
    y, scores = attend_visible(
        heads, k, v.to(q.dtype), attn_mask, past, nonpad_kv_seqlen, **options
    )
    return (merge_heads(y) if q.dim() == 3 else y), k, v, scores


def attend_visible(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None,
    past: int | None,
    lengths: Tensor | None,
    *,
    is_causal: int = 0,
    left_window_size: int = -1,
    right_window_size: int = -1,
    **scoring: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention to the keys that are filled, not later, and in the window."""
    offset: Tensor | int = past or 0
    filled = None if lengths is None else lengths.reshape(-1, 1, 1, 1)
    if filled is not None and past is None:
        offset = filled - q.shape[2]
    sides = (is_causal, left_window_size, right_window_size)
    allowed = visible_keys(q.shape[2], k.shape[2], offset, *sides, q.device)
    if filled is not None:
        there = torch.arange(k.shape[2], device=q.device) < filled
        allowed = there if allowed is None else allowed & there
    return attend(q, k, v, with_given_mask(allowed, attn_mask, k.shape[2]), **scoring)


def rotary_embedding(
    x: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """ONNX RotaryEmbedding: torch has none. Three axes need `num_heads`."""
    if position_ids is not None:
        cos_cache, sin_cache = (
            F.embedding(position_ids, cos_cache),
            F.embedding(position_ids, sin_cache),
        )
    y = rotate_heads(split_heads(x, num_heads), cos_cache, sin_cache, interleaved)
    return merge_heads(y) if x.dim() == 3 else y


def linear_steps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    gates: Tensor | None,
    rates: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What queries [batch, heads, steps, size] read of a state that each step changes first."""
    outputs = [v.new_zeros(v.shape[0], 0, q.shape[1], v.shape[-1])]
    for step in range(q.shape[2]):
        key_now, value_now = k[:, :, step].unsqueeze(-1), v[:, :, step].unsqueeze(-2)
        if gates is not None:
            state = state * gates[:, :, step].unsqueeze(-1)
        if rates is not None:
            known = (state * key_now).sum(-2, keepdim=True)
            value_now = rates[:, :, step].unsqueeze(-1) * (value_now - known)
        state = state + key_now * value_now
        shared = repeat_heads(state, q.shape[1])
        y = (q[:, :, step].unsqueeze(-2) @ shared).squeeze(-2)
        outputs.append(y.unsqueeze(1))
    return torch.cat(outputs, 1), state


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_state: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """ONNX LinearAttention: torch has no attention with a recurrent state."""
    q = split_heads(query, q_num_heads).float()
    k, v = (split_heads(part, kv_num_heads).float() for part in (key, value))
    gates = None if decay is None else split_heads(decay, kv_num_heads).float().exp()
    rates = None if beta is None else beta.float().transpose(1, 2).unsqueeze(-1)
    if past_state is None:
        past_state = query.new_zeros(k.shape[:2] + (q.shape[-1], v.shape[-1]))
    y, state = linear_steps(q, k, v, past_state.float(), gates, rates)
    size = q.shape[-1]
    y = y * (scale or 1.0 / math.sqrt(size))
    return y.flatten(2).to(query.dtype), state.to(past_state.dtype)


def flex_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    score_mod: Callable[[Tensor], Tensor] | None = None,
    prob_mod: Callable[[Tensor], Tensor] | None = None,
    softmax_precision: torch.dtype | None = None,
) -> Tensor:
    """ai.onnx.preview FlexAttention: torch's score_mod sees one score, and it has no prob_mod."""
    if softmax_precision is None:
        softmax_precision = torch.float64 if q.dtype == torch.float64 else torch.float32
    root = math.sqrt(1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = (q * root) @ (repeat_heads(k, q.shape[1]) * root).mT
    scores = scores.to(softmax_precision)
    if score_mod is not None:
        scores = score_mod(scores)
    weights = scores.softmax(-1)
    if prob_mod is not None:
        weights = prob_mod(weights)
    return (weights @ repeat_heads(v, q.shape[1]).to(softmax_precision)).to(v.dtype)


def swish_gated_unit(a: Tensor, b: Tensor, *, alpha: float = 1.0) -> Tensor:
    """ONNX SwiGLU: torch has no swish whose sigmoid is scaled."""
    return a * torch.sigmoid(alpha * a) * b
