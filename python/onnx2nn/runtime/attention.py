"""Attention, rotary embeddings and their kin in ai.onnx."""

import math
from collections.abc import Callable

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


def onnx_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: int = 0,
    q_num_heads: int = 0,
    kv_num_heads: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: torch.dtype | None = None,
    qk_matmul_output: bool = False,
    qk_matmul_output_mode: int = 0,
    left_window_size: int = -1,
    right_window_size: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """ONNX Attention: torch's has no cache, windows, soft cap or scores among its results.

    Gives Y, present_key, present_value and, when `qk_matmul_output` asks for it, the scores.
    """
    packed = q.dim() == 3
    q, k, v = (
        split_heads(q, q_num_heads),
        split_heads(k, kv_num_heads),
        split_heads(v, kv_num_heads),
    )
    offset: Tensor | int = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        k, v = torch.cat([past_key, k], dim=2), torch.cat([past_value, v], dim=2)
    elif nonpad_kv_seqlen is not None:
        offset = nonpad_kv_seqlen.reshape(-1, 1, 1, 1) - q.shape[2]
    allowed = visible_keys(
        q.shape[2],
        k.shape[2],
        offset,
        is_causal,
        left_window_size,
        right_window_size,
        q.device,
    )
    if nonpad_kv_seqlen is not None:
        filled = torch.arange(k.shape[2], device=q.device) < nonpad_kv_seqlen.reshape(
            -1, 1, 1, 1
        )
        allowed = filled if allowed is None else allowed & filled
    bias = None
    if attn_mask is not None:
        missing = k.shape[2] - attn_mask.shape[-1]
        if attn_mask.dtype == torch.bool:
            attn_mask = (
                F.pad(attn_mask, [0, missing], value=False) if missing else attn_mask
            )
            allowed = attn_mask if allowed is None else allowed & attn_mask
        else:
            bias = (
                F.pad(attn_mask, [0, missing], value=-torch.inf)
                if missing
                else attn_mask
            )
    mask = add_masks(allowed, bias)
    value = v.to(q.dtype)
    # In half precision ONNX rounds after each step, which torch's fused attention does not.
    exact = q.dtype in (torch.float32, torch.float64) and softmax_precision in (
        None,
        q.dtype,
    )
    if exact and not qk_matmul_output and not softcap:
        y = F.scaled_dot_product_attention(
            q,
            k,
            value,
            attn_mask=mask,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return (merge_heads(y) if packed else y), k, v, None
    root = math.sqrt(1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
    factor = torch.full([], root, dtype=q.dtype, device=q.device)
    raw = (q * factor) @ (repeat_heads(k, q.shape[1]) * factor).mT
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    if mask is None:
        masked = capped
    elif mask.dtype == torch.bool:
        masked = capped.masked_fill(~mask, -torch.inf)
    else:
        # Selected, not added, where nothing may be seen: infinity less infinity is NaN.
        masked = torch.where(mask == -torch.inf, -torch.inf, capped + mask)
    weights = softmax_of_visible(masked.to(softmax_precision or q.dtype)).to(q.dtype)
    y = weights @ repeat_heads(value, q.shape[1])
    scores = [raw, capped, masked, weights][qk_matmul_output_mode]
    return (merge_heads(y) if packed else y), k, v, scores


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
    k = split_heads(key, kv_num_heads).float()
    v = split_heads(value, kv_num_heads).float()
    size = q.shape[-1]
    if past_state is None:
        state = k.new_zeros(k.shape[0], kv_num_heads, size, v.shape[-1])
    else:
        state = past_state.float()
    # One gate a head, or one for each of a head's keys.
    gates = None if decay is None else split_heads(decay, kv_num_heads).float().exp()
    rates = None if beta is None else beta.float().transpose(1, 2).unsqueeze(-1)
    outputs = []
    for step in range(q.shape[2]):
        key_now, value_now = k[:, :, step].unsqueeze(-1), v[:, :, step].unsqueeze(-2)
        if gates is not None:
            state = state * gates[:, :, step].unsqueeze(-1)
        if rates is not None:
            known = (state * key_now).sum(-2, keepdim=True)
            value_now = rates[:, :, step].unsqueeze(-1) * (value_now - known)
        state = state + key_now * value_now
        shared = repeat_heads(state, q_num_heads)
        outputs.append((q[:, :, step].unsqueeze(-2) @ shared).squeeze(-2))
    y = (
        torch.stack(outputs, dim=1)
        if outputs
        else v.new_zeros(v.shape[0], 0, q_num_heads, v.shape[-1])
    )
    y = y * (scale or 1.0 / math.sqrt(size))
    state_dtype = query.dtype if past_state is None else past_state.dtype
    return y.flatten(2).to(query.dtype), state.to(state_dtype)


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
