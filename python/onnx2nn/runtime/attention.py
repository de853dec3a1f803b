"""Attention and language-model operators of ONNX and com.microsoft."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.quantization import real_values, unpack_bits


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, length, heads * size] as [batch, heads, length, size]; four axes are left alone."""
    if x.dim() == 4:
        return x
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def split_parts(x: Tensor, sizes: list[int]) -> list[Tensor]:
    """Query, key and value that lie side by side in the last axis."""
    a, b = sizes[0], sizes[0] + sizes[1]
    return [x[..., :a], x[..., a:b], x[..., b:]]


def merge_heads(x: Tensor) -> Tensor:
    """[batch, heads, length, size] as [batch, length, heads * size]."""
    return x.transpose(1, 2).flatten(2)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Repeats each key or value head for its group of query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def add_masks(allowed: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """One mask for scaled_dot_product_attention from what may be seen and what is added."""
    if bias is None or allowed is None:
        return allowed if bias is None else bias
    return torch.where(allowed, bias, -torch.inf)


def visible_keys(
    q_length: int,
    k_length: int,
    offset: Tensor | int,
    is_causal: int,
    left: int,
    right: int,
    device: torch.device,
) -> Tensor | None:
    """Which keys each query may see: none later, and none outside a window; None for all."""
    if not is_causal and left < 0 and right < 0:
        return None
    rows = torch.arange(q_length, device=device).unsqueeze(1) + offset
    ahead = torch.arange(k_length, device=device) - rows
    allowed = torch.ones_like(ahead, dtype=torch.bool)
    if is_causal:
        allowed = ahead <= 0
    if left >= 0:
        allowed = allowed & (ahead >= -left)
    if right >= 0:
        allowed = allowed & (ahead <= right)
    return allowed


def softmax_of_visible(scores: Tensor) -> Tensor:
    """Softmax over the last axis in which a row of -inf gives zeros, and every step is rounded."""
    hidden = (scores == -torch.inf).all(-1, keepdim=True)
    if scores.dtype in (torch.float32, torch.float64):
        return scores.softmax(-1).masked_fill(hidden, 0.0)
    powers = torch.exp(scores - scores.amax(-1, keepdim=True).masked_fill(hidden, 0.0))
    return (powers / powers.sum(-1, keepdim=True)).masked_fill(hidden, 0.0)


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


def rotate_heads(x: Tensor, cos: Tensor, sin: Tensor, interleaved: int) -> Tensor:
    """Turns pairs in [batch, heads, length, size] by angles [batch, length, pairs]."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    width = 2 * cos.shape[-1]
    turned, kept = x[..., :width], x[..., width:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        y = torch.stack([cos * a - sin * b, sin * a + cos * b], dim=-1).flatten(-2)
    else:
        a, b = turned.chunk(2, dim=-1)
        y = torch.cat([cos * a - sin * b, sin * a + cos * b], dim=-1)
    return torch.cat([y, kept], dim=-1) if kept.shape[-1] else y


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


def ms_rotary_embedding(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """com.microsoft RotaryEmbedding: as ONNX's, but one position may stand for the first."""
    if x.dim() == 3 and not (num_heads and rotary_embedding_dim):
        num_heads = x.shape[2] // (2 * cos_cache.shape[1])
    heads = split_heads(x, num_heads)
    if position_ids.dim() == 1:
        steps = torch.arange(heads.shape[2], device=x.device)
        position_ids = (position_ids + steps).expand(heads.shape[0], -1)
    cos, sin = (
        F.embedding(position_ids, cos_cache),
        F.embedding(position_ids, sin_cache),
    )
    y = rotate_heads(heads, cos, sin, interleaved)
    return merge_heads(y) if x.dim() == 3 else y


def multimodal_rotary_embedding(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    mrope_section: list[int],
    interleaved: int = 0,
    mrope_layout: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """com.microsoft MRotaryEmbedding: positions in time, height and width share the angles."""
    if x.dim() == 3 and not (num_heads and rotary_embedding_dim):
        num_heads = x.shape[2] // (2 * cos_cache.shape[1])
    heads = split_heads(x, num_heads)
    angles = F.embedding(position_ids, torch.cat([cos_cache, sin_cache], -1))
    if scale != 1.0:
        angles = angles * scale
    both = []
    for streams in angles.chunk(2, -1):
        if mrope_layout == 0:
            parts = streams.split_with_sizes(mrope_section, -1)
            both.append(torch.cat([part[i] for i, part in enumerate(parts)], -1))
            continue
        mixed = streams[0].clone()
        for i in (1, 2):
            places = slice(i, 3 * mrope_section[i], 3)
            mixed[..., places] = streams[i][..., places]
        both.append(mixed)
    y = rotate_heads(heads, both[0], both[1], interleaved)
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


def quantise_state(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """What a quantised cache holds of keys or values: int8, or two 4-bit values a byte, low first."""
    top = 1 << (bits - 1)
    y = (x.float() / scale).round().clamp(-top, top - 1)
    if bits == 8:
        return y.to(torch.int8)
    y = (y + top).to(torch.uint8)
    return y[..., 0::2] | (y[..., 1::2] << 4)


def restore_state(x: Tensor, scale: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """The real keys or values of a quantised cache."""
    values = x if bits == 8 else unpack_bits(x, bits).to(torch.int8) - 8
    return (values.float() * scale).to(dtype)


def append_to_cache(
    past: Tensor | None, new: Tensor, places: Tensor, room: int
) -> Tensor:
    """A cache of `room` rows [batch, heads, room, size] with `new` at its `places` [batch, new]."""
    cache = new.new_zeros(*new.shape[:2], room, new.shape[-1])
    if past is not None and past.shape[2]:
        old = torch.arange(past.shape[2], device=new.device) < places[:, :1]
        kept = past.masked_fill(~old.unsqueeze(1).unsqueeze(-1), 0)
        cache = F.pad(kept, [0, 0, 0, room - past.shape[2]])
    return cache.scatter(2, places.unsqueeze(1).unsqueeze(-1).expand(new.shape), new)


def window_rows(length: Tensor, capacity: int, window: int) -> Tensor:
    """How many of the last `length` tokens a cache of a window's size holds."""
    gap = capacity - window + 1
    over = (length - capacity).clamp(min=0)
    return length - gap * torch.div(over + gap - 1, gap, rounding_mode="floor")


def keep_window(
    staged: Tensor, past: Tensor, filled: Tensor, capacity: int, window: int
) -> Tensor:
    """The new cache from the old one's rows followed by the new tokens' [batch, heads, rows, size].

    `past` and `filled` [batch, 1] are the lengths before and after the step.
    """
    first = filled - window_rows(filled, capacity, window)
    position = first + torch.arange(capacity, device=staged.device)
    old = position - past + window_rows(past, capacity, window)
    row = torch.where(position < past, old, capacity + position - past)
    row = row.clamp(max=staged.shape[2] - 1)
    shape = (*staged.shape[:2], capacity, staged.shape[-1])
    return staged.gather(2, row.unsqueeze(1).unsqueeze(-1).expand(shape))


def attend_cached(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Tensor,
    attention_bias: Tensor | None,
    sink: Tensor | None,
    scale: float,
    softcap: float,
    qk_output: int,
) -> tuple[Tensor, Tensor | None]:
    """Grouped attention that may cap its scores and spill weight to a sink; gives scores too.

    `allowed` [batch, 1, queries, keys] says what is seen.
    """
    heads, length = q.shape[1], q.shape[2]
    keys, values = repeat_heads(keys, heads), repeat_heads(values, heads)
    if not softcap and sink is None and not qk_output:
        mask = add_masks(allowed, attention_bias)
        y = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, scale=scale or None
        )
        return merge_heads(y), None
    scores = (q @ keys.mT).float() * (scale or 1.0 / math.sqrt(q.shape[-1]))
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_bias is not None:
        scores = scores + attention_bias
    masked = scores.masked_fill(~allowed, -torch.inf)
    if sink is None:
        weights = softmax_of_visible(masked)
    else:
        # One more score, the same for every query of a head, that takes weight and gives nothing.
        extra = sink.float().reshape(1, -1, 1, 1).expand(masked.shape[0], -1, length, 1)
        weights = torch.cat([masked, extra], dim=-1).softmax(-1)[..., :-1]
    y = weights.to(values.dtype) @ values
    shown = scores.masked_fill(~allowed, 0.0) if qk_output == 1 else weights
    return merge_heads(y), shown.to(q.dtype)


def group_query_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    seqlens_k: Tensor,
    total_sequence_length: Tensor | int,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    position_ids: Tensor | None = None,
    attention_bias: Tensor | None = None,
    head_sink: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    q_norm_weight: Tensor | None = None,
    k_norm_weight: Tensor | None = None,
    query_seqlens: Tensor | None = None,
    *,
    num_heads: int,
    kv_num_heads: int,
    q_norm_epsilon: float = 1e-6,
    k_norm_epsilon: float = 1e-6,
    causal: int = 1,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    scale: float = 0.0,
    softcap: float = 0.0,
    smooth_softmax: int = 0,
    local_window_size: int = -1,
    sliding_window_cache: int = 0,
    kv_cache_bit_width: int = 8,
    qk_output: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """com.microsoft GroupQueryAttention: torch has no attention that keeps a cache and rotates."""
    length = query.shape[1]
    if key is None or value is None:
        # The three come packed in one, per token: all query heads, key heads, value heads.
        size = query.shape[2] // (num_heads + 2 * kv_num_heads)
        query, key, value = split_parts(
            query, [num_heads * size] + [kv_num_heads * size] * 2
        )
    q = split_heads(query, num_heads)
    k, v = split_heads(key, kv_num_heads), split_heads(value, kv_num_heads)
    if q_norm_weight is not None:
        q = F.rms_norm(q, [q.shape[-1]], q_norm_weight, q_norm_epsilon)
    if k_norm_weight is not None:
        k = F.rms_norm(k, [k.shape[-1]], k_norm_weight, k_norm_epsilon)
    total = int(total_sequence_length)
    filled = seqlens_k.reshape(-1, 1).to(torch.int64) + 1
    if query_seqlens is not None:
        past = filled - query_seqlens.reshape(-1, 1)
    elif length == total:
        past = torch.zeros_like(filled)
    else:
        past = filled - length
    positions = past + torch.arange(length, device=query.device)
    if do_rotary and cos_cache is not None and sin_cache is not None:
        places = positions if position_ids is None else position_ids
        cos, sin = F.embedding(places, cos_cache), F.embedding(places, sin_cache)
        q, k = (
            rotate_heads(q, cos, sin, rotary_interleaved),
            rotate_heads(k, cos, sin, rotary_interleaved),
        )
    if k_scale is not None and v_scale is not None:
        k = quantise_state(k, k_scale, kv_cache_bit_width)
        v = quantise_state(v, v_scale, kv_cache_bit_width)
    if sliding_window_cache and past_key is not None and past_value is not None:
        capacity = past_key.shape[2]
        keys, values = (
            torch.cat([past_key, k], dim=2),
            torch.cat([past_value, v], dim=2),
        )
        window = local_window_size
        present_key = keep_window(keys, past, filled, capacity, window)
        present_value = keep_window(values, past, filled, capacity, window)
        held = window_rows(past, capacity, local_window_size)
        rows = torch.arange(capacity, device=query.device)
        # Rows that hold nothing yet are as if they came after every query.
        old = torch.where(rows < held, past - held + rows, torch.iinfo(torch.int64).max)
        slots = torch.cat([old, positions], dim=1).unsqueeze(1)
        if attention_bias is not None:
            column = slots.clamp(max=attention_bias.shape[-1] - 1).unsqueeze(1)
            shape = (slots.shape[0], attention_bias.shape[1], length, -1)
            attention_bias = attention_bias.expand(slots.shape[0], -1, -1, -1)
            attention_bias = attention_bias.gather(3, column.expand(shape))
    else:
        room = total if past_key is None else max(total, past_key.shape[2])
        present_key = append_to_cache(past_key, k, positions, room)
        present_value = append_to_cache(past_value, v, positions, room)
        keys, values = present_key[:, :, :total], present_value[:, :, :total]
        slots = torch.arange(total, device=query.device)
        if attention_bias is not None:
            attention_bias = attention_bias[..., :total]
    if k_scale is not None and v_scale is not None:
        keys = restore_state(keys, k_scale, kv_cache_bit_width, q.dtype)
        values = restore_state(values, v_scale, kv_cache_bit_width, q.dtype)
    seen_by = positions.unsqueeze(-1)
    allowed = slots <= seen_by if causal else slots < filled.unsqueeze(-1)
    if local_window_size > 0:
        allowed = allowed & (slots > seen_by - local_window_size)
    sink = head_sink
    if smooth_softmax == 1 and sink is None:
        sink = q.new_zeros(num_heads)
    y, shown = attend_cached(
        q,
        keys,
        values,
        allowed.unsqueeze(1).expand(-1, 1, length, -1),
        attention_bias,
        sink,
        scale,
        softcap,
        qk_output,
    )
    return y, present_key, present_value, shown


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
    scale: float = 0.0,
    mask_filter_value: float = -10000.0,
    unidirectional: int = 0,
    qk: bool = False,
    past_sequence_length: Tensor | int | None = None,
    cache_indirection: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """com.microsoft MultiHeadAttention: torch's has no packed inputs, cache or added bias.

    With `past_sequence_length` the caches have a fixed length, of which so many rows are filled.
    """
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
    q, k, v = (split_heads(part, num_heads) for part in (query, key, value))
    past, new = 0, k.shape[2]
    present_key, present_value = k, v
    if past_key is not None and past_value is not None:
        if past_sequence_length is None:
            past = past_key.shape[2]
            present_key = torch.cat([past_key, k], dim=2)
            present_value = torch.cat([past_value, v], dim=2)
        else:
            past = int(past_sequence_length)
            present_key = append_to_buffer(past_key, k, past)
            present_value = append_to_buffer(past_value, v, past)
        k, v = present_key[:, :, : past + new], present_value[:, :, : past + new]
        if cache_indirection is not None:
            k = rows_of_beams(k, cache_indirection, new)
            v = rows_of_beams(v, cache_indirection, new)
    mask = length_mask(key_padding_mask, q.shape[0], k.shape[2])
    added = padding_bias(mask, q.shape[2], k.shape[2], mask_filter_value, q.dtype)
    added = sum_biases(added, attention_bias)
    y = masked_attention(q, k, v, added, unidirectional, past, scale)
    scores = None
    if qk:
        scores = q @ k.mT * (scale or 1.0 / math.sqrt(q.shape[-1]))
        scores = scores if added is None else scores + added
        if unidirectional and q.shape[2] > 1:
            later = torch.ones_like(scores, dtype=torch.bool).triu(past + 1)
            scores = scores.masked_fill(later, torch.finfo(scores.dtype).min)
    return merge_heads(y), present_key, present_value, scores


def attend_projected(
    projected: Tensor,
    mask_index: Tensor | None,
    past: Tensor | None,
    attention_bias: Tensor | None,
    sizes: list[int],
    num_heads: int,
    scale: float,
    mask_filter_value: float,
    unidirectional: int,
) -> tuple[Tensor, Tensor]:
    """What com.microsoft's Attention and QAttention share after the projection."""
    q, k, v = (split_heads(part, num_heads) for part in split_parts(projected, sizes))
    if past is not None:
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
    present = torch.stack([k, v]) if k.shape == v.shape else k
    mask = length_mask(mask_index, q.shape[0], k.shape[2])
    added = padding_bias(mask, q.shape[2], k.shape[2], mask_filter_value, q.dtype)
    added = sum_biases(added, attention_bias)
    y = masked_attention(q, k, v, added, unidirectional, k.shape[2] - q.shape[2], scale)
    return merge_heads(y), present


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
    scale: float = 0.0,
    mask_filter_value: float = -10000.0,
    unidirectional: int = 0,
) -> tuple[Tensor, Tensor]:
    """com.microsoft Attention: projects, attends, keeps a cache; torch has no such call."""
    projected = x @ weights if bias is None else x @ weights + bias
    sizes = qkv_hidden_sizes or [weights.shape[1] // 3] * 3
    return attend_projected(
        projected,
        mask_index,
        past,
        attention_bias,
        sizes,
        num_heads,
        scale,
        mask_filter_value,
        unidirectional,
    )


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
    scale: float = 0.0,
    mask_filter_value: float = -10000.0,
    unidirectional: int = 0,
) -> tuple[Tensor, Tensor]:
    """com.microsoft QAttention: Attention whose projection multiplies integers."""
    left, right = x.double(), weight.double()
    if input_zero_point is not None:
        left = left - input_zero_point.double()
    if weight_zero_point is not None:
        right = right - weight_zero_point.double()
    # The product of integers is exact in double.
    projected = (left @ right).to(bias.dtype) * (input_scale * weight_scale) + bias
    return attend_projected(
        projected,
        mask_index,
        past,
        None,
        [weight.shape[1] // 3] * 3,
        num_heads,
        scale,
        mask_filter_value,
        unidirectional,
    )


def skip_layer_norm(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """com.microsoft SkipLayerNormalization: gives output, mean, inverse deviation and the sum."""
    total = x + skip if bias is None else x + skip + bias
    y = F.layer_norm(total, [total.shape[-1]], gamma, beta, epsilon)
    mean = total.float().mean(-1, keepdim=True)
    variance = total.float().var(-1, keepdim=True, correction=0)
    return y, mean, torch.rsqrt(variance + epsilon), total


def simplified_layer_norm(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """SimplifiedLayerNormalization: F.rms_norm with the inverse root mean square as well."""
    axes = list(range(axis % x.dim(), x.dim()))
    inverse = torch.rsqrt(x.float().square().mean(axes, keepdim=True) + epsilon)
    return (x.float() * inverse).to(x.dtype) * scale, inverse


def skip_simplified_layer_norm(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """com.microsoft SkipSimplifiedLayerNormalization: output, zeros, inverse and the sum."""
    total = x + skip if bias is None else x + skip + bias
    y, inverse = simplified_layer_norm(total, gamma, epsilon=epsilon)
    # ONNX Runtime fills the mean, which means nothing here, with zeros.
    return y, torch.zeros_like(inverse), inverse, total


def embed_layer_norm(
    input_ids: Tensor,
    segment_ids: Tensor | None,
    word_embedding: Tensor,
    position_embedding: Tensor,
    segment_embedding: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor, Tensor]:
    """com.microsoft EmbedLayerNormalization: gives output, lengths by the mask and the sum."""
    if position_ids is None:
        position_ids = torch.arange(
            input_ids.shape[1], device=input_ids.device
        ).unsqueeze(0)
    total = F.embedding(input_ids, word_embedding) + F.embedding(
        position_ids, position_embedding
    )
    if segment_ids is not None and segment_embedding is not None:
        total = total + F.embedding(segment_ids, segment_embedding)
    y = F.layer_norm(total, [total.shape[-1]], gamma, beta, epsilon)
    if mask is None:
        lengths = torch.zeros(
            input_ids.shape[0], dtype=torch.int32, device=input_ids.device
        )
    else:
        lengths = (mask == 1).sum(1, dtype=torch.int32)
    return y, lengths, total


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


def bias_split_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """com.microsoft BiasSplitGelu: a gelu of one half gates the other; torch has no such call."""
    value, gate = (x + bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """com.microsoft FusedMatMul: torch.matmul with transposes, of the batch too, and a factor."""
    if transBatchA and a.dim() > 2:
        a = a.movedim(0, -2)
    if transBatchB and b.dim() > 2:
        b = b.movedim(0, -2)
    a = a.mT if transA and a.dim() > 1 else a
    b = b.mT if transB and b.dim() > 1 else b
    y = a @ b
    return y if alpha == 1.0 else y * alpha


def fused_activation(
    x: Tensor,
    activation: str,
    alpha: float = 0.0,
    beta: float = 0.0,
    gamma: float = 0.0,
) -> Tensor:
    """The activation that com.microsoft's FusedConv and FusedGemm name, with its parameters."""
    if activation == "LeakyRelu":
        return F.leaky_relu(x, alpha)
    if activation == "Clip":
        return x.clamp(alpha, beta)
    if activation == "HardSigmoid":
        return (alpha * x + beta).clamp(0.0, 1.0)
    if activation == "Elu":
        return F.elu(x, alpha)
    if activation == "Selu":
        return gamma * F.elu(x, alpha)
    if activation == "ThresholdedRelu":
        return torch.where(x > alpha, x, 0.0)
    if activation == "ScaledTanh":
        return alpha * torch.tanh(beta * x)
    if activation == "ParametricSoftplus":
        return alpha * F.softplus(beta * x)
    if activation in ("Relu", "Tanh", "Sigmoid"):
        return {"Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid}[
            activation
        ](x)
    return {"Softplus": F.softplus, "Softsign": F.softsign, "HardSwish": F.hardswish}[
        activation
    ](x)


def expert_activation(
    x: Tensor,
    other: Tensor | None,
    activation_type: str,
    alpha: float,
    beta: float,
    limit: float | None,
    fusion: int,
) -> Tensor:
    """The activation inside com.microsoft's experts; the gated ones split or take two inputs."""
    if activation_type not in ("swiglu", "geglu"):
        if activation_type == "gelu":
            # ONNX Runtime's experts take the approximation.
            y = F.gelu(x, approximate="tanh")
        elif activation_type == "identity":
            y = x
        elif activation_type == "relu2":
            y = torch.relu(x).square()
        else:
            y = F.silu(x) if activation_type == "silu" else torch.relu(x)
        return y if other is None else y * other
    if other is not None:
        gate, value = x, other
    elif fusion == 1:
        gate, value = x[..., 0::2], x[..., 1::2]
    else:
        gate, value = x.chunk(2, dim=-1)
    if activation_type == "geglu":
        return F.gelu(gate, approximate="tanh") * value
    if limit is not None:
        gate, value = gate.clamp(max=limit), value.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (value + beta)


def mixture_of_experts(
    x: Tensor,
    router_probs: Tensor,
    fc1_weights: Tensor,
    fc1_bias: Tensor | None,
    fc2_weights: Tensor,
    fc2_bias: Tensor | None = None,
    fc3_weights: Tensor | None = None,
    fc3_bias: Tensor | None = None,
    *,
    k: int = 1,
    activation_type: str = "relu",
    normalize_routing_weights: int = 0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    swiglu_limit: float | None = None,
    swiglu_fusion: int = 0,
    router_weights: Tensor | None = None,
) -> Tensor:
    """com.microsoft MoE: torch has no experts chosen per token. Each runs once, on its tokens."""
    tokens = x.reshape(-1, x.shape[-1])
    chances = router_probs.float().softmax(-1)
    chosen = chances.topk(k, dim=-1).indices
    weights = (chances if router_weights is None else router_weights.float()).gather(
        1, chosen
    )
    if normalize_routing_weights:
        weights = weights / weights.sum(-1, keepdim=True)
    y = torch.zeros_like(tokens)
    for expert in range(fc1_weights.shape[0]):
        rows, places = (chosen == expert).nonzero(as_tuple=True)
        part = tokens[rows]
        first = F.linear(
            part, fc1_weights[expert], None if fc1_bias is None else fc1_bias[expert]
        )
        third = None
        if fc3_weights is not None:
            third = F.linear(
                part,
                fc3_weights[expert],
                None if fc3_bias is None else fc3_bias[expert],
            )
        inner = expert_activation(
            first,
            third,
            activation_type,
            activation_alpha,
            activation_beta,
            swiglu_limit,
            swiglu_fusion,
        )
        out = F.linear(
            inner, fc2_weights[expert], None if fc2_bias is None else fc2_bias[expert]
        )
        y = y.index_add(
            0, rows, out * weights[rows, places].unsqueeze(-1).to(out.dtype)
        )
    return y.reshape(x.shape)


def expert_weights(
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    bits: int,
    block_size: int,
) -> Tensor:
    """Real [experts, rows, columns] weights of com.microsoft QMoE from packed ones."""
    values = unpack_bits(packed, bits).to(scales.dtype)
    experts, rows, columns = values.shape
    if not block_size or scales.dim() == 2:
        scales, block_size = scales.reshape(experts, rows, 1), columns
        if zero_points is not None:
            zero_points = unpack_bits(zero_points.reshape(experts, -1), bits)[
                :, :rows
            ].unsqueeze(-1)
    elif zero_points is not None:
        zero_points = unpack_bits(zero_points, bits)[..., : scales.shape[-1]]
    zeros = (
        1 << (bits - 1)
        if zero_points is None
        else zero_points.to(scales.dtype).unsqueeze(-1)
    )
    blocks = values.reshape(experts, rows, -1, block_size)
    return ((blocks - zeros) * scales.unsqueeze(-1)).reshape(experts, rows, columns)


def quantised_mixture_of_experts(
    x: Tensor,
    router_probs: Tensor,
    fc1_weights: Tensor,
    fc1_scales: Tensor,
    fc1_bias: Tensor | None,
    fc2_weights: Tensor,
    fc2_scales: Tensor,
    fc2_bias: Tensor | None = None,
    fc3_weights: Tensor | None = None,
    fc3_scales: Tensor | None = None,
    fc3_bias: Tensor | None = None,
    fc1_zero_points: Tensor | None = None,
    fc2_zero_points: Tensor | None = None,
    fc3_zero_points: Tensor | None = None,
    router_weights: Tensor | None = None,
    *,
    k: int = 1,
    activation_type: str = "relu",
    normalize_routing_weights: int = 0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    swiglu_limit: float | None = None,
    swiglu_fusion: int = 0,
    expert_weight_bits: int = 4,
    block_size: int = 0,
) -> Tensor:
    """com.microsoft QMoE with integer weights of 2, 4 or 8 bits: MoE on weights made real first."""
    bits = expert_weight_bits
    # ONNX Runtime takes the softmax over the chosen experts alone, unlike in MoE.
    normalized = 1 if router_weights is None else normalize_routing_weights
    third = None
    if fc3_weights is not None and fc3_scales is not None:
        third = expert_weights(
            fc3_weights, fc3_scales, fc3_zero_points, bits, block_size
        )
    return mixture_of_experts(
        x,
        router_probs,
        expert_weights(fc1_weights, fc1_scales, fc1_zero_points, bits, block_size).to(
            x.dtype
        ),
        fc1_bias,
        expert_weights(fc2_weights, fc2_scales, fc2_zero_points, bits, block_size).to(
            x.dtype
        ),
        fc2_bias,
        None if third is None else third.to(x.dtype),
        fc3_bias,
        k=k,
        activation_type=activation_type,
        normalize_routing_weights=normalized,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        swiglu_limit=swiglu_limit,
        swiglu_fusion=swiglu_fusion,
        router_weights=router_weights,
    )


def sparse_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor,
    past_value: Tensor,
    block_row_indices: Tensor,
    block_col_indices: Tensor,
    total_sequence_length: Tensor | int,
    key_total_sequence_lengths: Tensor,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    *,
    num_heads: int,
    kv_num_heads: int,
    sparse_block_size: int,
    scale: float = 0.0,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """com.microsoft SparseAttention: grouped-query attention that sees only the listed blocks."""
    layouts, edges = block_row_indices.shape
    blocks, listed = edges - 1, block_col_indices.shape[1]
    # Entry j of the column list belongs to the row whose range holds j.
    places = torch.arange(listed, device=query.device).expand(layouts, -1).contiguous()
    rows = torch.searchsorted(block_row_indices.long(), places, right=True) - 1
    used = (rows < blocks) & (block_col_indices >= 0)
    flat = torch.where(used, rows * blocks + block_col_indices, blocks * blocks)
    grid = torch.zeros(
        layouts, blocks * blocks + 1, dtype=torch.bool, device=query.device
    )
    grid = grid.scatter(1, flat, True)[:, :-1].reshape(layouts, blocks, blocks)
    length, total = query.shape[1], int(total_sequence_length)
    filled = key_total_sequence_lengths.reshape(-1, 1).long()
    past = torch.zeros_like(filled) if length == total else filled - length
    q_blocks = (past + torch.arange(length, device=query.device)) // sparse_block_size
    k_blocks = torch.arange(total, device=query.device) // sparse_block_size
    seen = grid[:, q_blocks][..., k_blocks].transpose(0, 1)
    heads = seen.repeat(1, num_heads // layouts, 1, 1)
    bias = torch.zeros(heads.shape, dtype=query.dtype, device=query.device)
    y, present_key, present_value, _ = group_query_attention(
        query,
        key,
        value,
        past_key,
        past_value,
        key_total_sequence_lengths.long() - 1,
        total,
        cos_cache,
        sin_cache,
        attention_bias=bias.masked_fill(~heads, -torch.inf),
        num_heads=num_heads,
        kv_num_heads=kv_num_heads,
        scale=scale,
        do_rotary=do_rotary,
        rotary_interleaved=rotary_interleaved,
    )
    return y, present_key, present_value


def paged_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    key_cache: Tensor,
    value_cache: Tensor,
    cumulative_sequence_length: Tensor,
    past_seqlens: Tensor,
    block_table: Tensor,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    head_sink: Tensor | None = None,
    *,
    num_heads: int,
    kv_num_heads: int,
    scale: float = 0.0,
    softcap: float = 0.0,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    local_window_size: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """com.microsoft PagedAttention: sequences packed end to end, their cache in blocks of a pool."""
    if key is None or value is None:
        size = query.shape[1] // (num_heads + 2 * kv_num_heads)
        query, key, value = split_parts(
            query, [num_heads * size] + [kv_num_heads * size] * 2
        )
    block_size, cache_heads, size = key_cache.shape[1:]
    starts, past = cumulative_sequence_length.long(), past_seqlens.long()
    tokens = torch.arange(query.shape[0], device=query.device)
    owner = torch.searchsorted(starts[1:].contiguous(), tokens, right=True)
    place = tokens - starts[owner]
    position = past[owner] + place
    q = query.reshape(-1, num_heads, size)
    k, v = (
        key.reshape(-1, cache_heads, size),
        value.reshape(-1, cache_heads, value_cache.shape[-1]),
    )
    if do_rotary and cos_cache is not None and sin_cache is not None:
        cos, sin = F.embedding(position, cos_cache), F.embedding(position, sin_cache)
        q, k = (
            rotate_heads(
                part.unsqueeze(2),
                cos.unsqueeze(1),
                sin.unsqueeze(1),
                rotary_interleaved,
            )
            .squeeze(2)
            .contiguous()
            for part in (q, k)
        )
    table = block_table.long()
    slot = table[owner, position // block_size] * block_size + position % block_size
    key_cache = key_cache.flatten(0, 1).index_copy(0, slot, k).reshape(key_cache.shape)
    value_cache = (
        value_cache.flatten(0, 1).index_copy(0, slot, v).reshape(value_cache.shape)
    )
    # Every sequence's queries side by side, the short ones filled up with zeros.
    longest = int((starts[1:] - starts[:-1]).max())
    padded = q.new_zeros(past.shape[0], longest, num_heads, size)
    padded = padded.index_put((owner, place), q).transpose(1, 2)
    pages = table.clamp(min=0)
    keys = repeat_heads(key_cache[pages].flatten(1, 2).transpose(1, 2), num_heads)
    values = repeat_heads(value_cache[pages].flatten(1, 2).transpose(1, 2), num_heads)
    window = local_window_size - 1 if local_window_size > 0 else -1
    offset = past.reshape(-1, 1, 1, 1)
    allowed = visible_keys(longest, keys.shape[2], offset, 1, window, -1, q.device)
    scores = (padded @ keys.mT).float() * (scale or 1.0 / math.sqrt(size))
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    if head_sink is not None:
        extra = (
            head_sink.float()
            .reshape(1, -1, 1, 1)
            .expand(scores.shape[0], -1, longest, 1)
        )
        scores = torch.cat([scores, extra], dim=-1)
    weights = scores.softmax(-1)[..., : keys.shape[2]].to(values.dtype)
    y = (weights @ values).transpose(1, 2)[owner, place]
    return y.flatten(1), key_cache, value_cache


def bifurcation_detector(
    src_tokens: Tensor,
    cur_tokens: Tensor,
    prev_suffix_match_idx: Tensor,
    pred_tokens: Tensor | None = None,
    *,
    min_ngram_size: int = 1,
    max_ngram_size: int = 3,
) -> tuple[Tensor, Tensor]:
    """com.microsoft BifurcationDetector: finds where guessed tokens part from the source's."""
    source, tokens = src_tokens.tolist(), cur_tokens.tolist()
    if pred_tokens is not None:
        guesses, start, same = pred_tokens.tolist(), int(prev_suffix_match_idx), 0
        while same < len(source) - start and guesses[same] == source[start + same]:
            same += 1
        tokens = tokens + guesses[: same + 1]
    found = -1
    for size in range(min_ngram_size, max_ngram_size + 1):
        if size > len(tokens):
            break
        tail = tokens[-size:]
        places = [
            i for i in range(len(source) - size + 1) if source[i : i + size] == tail
        ]
        if not places:
            break
        found = places[0] + size
        if found >= len(source) or len(places) == 1:
            break
        found = -1
    device = src_tokens.device
    return (
        torch.tensor(tokens, dtype=cur_tokens.dtype, device=device),
        torch.tensor(found, dtype=torch.int64, device=device),
    )


def linear_attention_gate(
    a: Tensor, dt_bias: Tensor, decay_scale: Tensor, b: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """com.microsoft LinearAttentionGate: the decay, in float32 until it is done, and the rate."""
    decay = decay_scale * F.softplus(a.float() + dt_bias)
    return decay.to(a.dtype), None if b is None else torch.sigmoid(b)


def q_embed_layer_norm(
    input_ids: Tensor,
    segment_ids: Tensor | None,
    word_embedding: Tensor,
    position_embedding: Tensor,
    segment_embedding: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None,
    word_scale: Tensor,
    position_scale: Tensor,
    segment_scale: Tensor | None,
    gamma_scale: Tensor,
    beta_scale: Tensor,
    word_zero_point: Tensor,
    position_zero_point: Tensor,
    segment_zero_point: Tensor | None,
    gamma_zero_point: Tensor,
    beta_zero_point: Tensor,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor]:
    """com.microsoft QEmbedLayerNormalization: EmbedLayerNormalization of tables of bytes."""
    segments = None
    if segment_embedding is not None and segment_scale is not None:
        segments = real_values(segment_embedding, segment_scale, segment_zero_point)
    y, lengths, _ = embed_layer_norm(
        input_ids,
        segment_ids,
        real_values(word_embedding, word_scale, word_zero_point),
        real_values(position_embedding, position_scale, position_zero_point),
        segments,
        real_values(gamma, gamma_scale, gamma_zero_point),
        real_values(beta, beta_scale, beta_zero_point),
        mask,
        epsilon=epsilon,
    )
    return y, lengths


def clamped_swiglu(
    gate: Tensor,
    up: Tensor | None = None,
    *,
    limit: float = 0.0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    round_activation: int = 0,
) -> Tensor:
    """com.microsoft SwiGLU: clamped, in float32; without `up` the gate holds both halves."""
    dtype = gate.dtype
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    gate, up = gate.float(), up.float()
    if limit > 0:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    y = gate * torch.sigmoid(activation_alpha * gate)
    if round_activation:
        y = y.to(dtype).float()
    return (y * (up + activation_beta)).to(dtype)


def gemma_rotary_embedding(
    emb: Tensor, q: Tensor, q_rot: Tensor, k: Tensor, k_rot: Tensor
) -> tuple[Tensor, Tensor]:
    """com.microsoft GemmaRotaryEmbedding: halves turned by angles given in float32."""
    sin, cos = (part.to(q.dtype).unsqueeze(1) for part in (emb.sin(), emb.cos()))
    return q * cos + q_rot * sin, k * cos + k_rot * sin


def relative_position_bias(
    bias_table: Tensor,
    query_length: int,
    key_length: int,
    *,
    max_distance: int,
    is_bidirectional: int = 0,
) -> Tensor:
    """com.microsoft RelativePositionBias: T5's, whose buckets widen with the distance.

    The table's numbers lie head by head, although its shape says [buckets, heads].
    """
    buckets, heads = bias_table.shape
    device = bias_table.device
    ahead = torch.arange(key_length, device=device)
    ahead = ahead - torch.arange(query_length, device=device).unsqueeze(1)
    first, count = torch.zeros_like(ahead), buckets
    if is_bidirectional:
        count = buckets // 2
        first = torch.where(ahead > 0, count, 0)
        distance = ahead.abs()
    else:
        distance = (-ahead).clamp(min=0)
    exact = count // 2
    rate = (count - exact) / math.log(max_distance / exact)
    far = exact + ((distance.clamp(min=1).float() / exact).log() * rate).long()
    place = first + torch.where(distance < exact, distance, far.clamp(max=count - 1))
    return bias_table.reshape(heads, buckets)[:, place].unsqueeze(0)


def gated_relative_position_bias(
    query: Tensor,
    query_bias: Tensor,
    rel_pos: Tensor,
    weight: Tensor,
    bias: Tensor,
    eco_a: Tensor,
    *,
    num_heads: int,
) -> Tensor:
    """com.microsoft GatedRelativePositionBias: a position bias scaled by gates of the query."""
    q = split_heads(query + query_bias, num_heads)
    gates = torch.unflatten(q @ weight + bias, -1, (2, -1)).sum(-1)
    update, reset = torch.sigmoid(gates).chunk(2, dim=-1)
    return (update * (reset * eco_a - 1.0) + 2.0) * rel_pos


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
    if bias is not None:
        sizes = [query.shape[1], key.shape[1]]
        parts = zip((query, key, value), split_parts(bias, sizes), strict=True)
        query, key, value = (part + added for part, added in parts)
    q, k, v = (
        split_heads(restore_padding(part, token_offset), num_heads)
        for part in (query, key, value)
    )
    lengths = cumulative_sequence_length[1:] - cumulative_sequence_length[:-1]
    places = torch.arange(k.shape[2], device=k.device)
    seen = (places < lengths.unsqueeze(1)).reshape(-1, 1, 1, k.shape[2])
    mask = seen if attention_bias is None else add_masks(seen, attention_bias)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale or None)
    rows = merge_heads(y).flatten(0, 1)
    return rows[token_offset.reshape(-1)[: query.shape[0]].long()]


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
    query, key, value = split_parts(x @ weights + bias, sizes)
    return packed_multi_head_attention(
        query,
        key,
        value,
        None,
        token_offset,
        cumulative_sequence_length,
        attention_bias,
        num_heads=num_heads,
        scale=scale,
    )
