"""com.microsoft's attention that keeps a cache: grouped queries, sparse and paged."""

import math

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
    split_parts,
    visible_keys,
)
from onnx2nn.runtime.packed_weights import unpack_bits


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


def append_to_cache(past: Tensor, new: Tensor, places: Tensor, room: int) -> Tensor:
    """`past` [batch, heads, length, size] in `room` for tokens, with `new` at its `places` [batch, new]."""
    is_past = torch.arange(past.shape[2], device=new.device) < places[:, :1]
    past = past.masked_fill(~is_past[:, None, :, None], 0)
    cache = F.pad(past, [0, 0, 0, room - past.shape[2]])
    return cache.scatter(2, places[:, None, :, None].expand(new.shape), new)


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


def capped_scores(
    q: Tensor, keys: Tensor, bias: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Scores in float32, held within `softcap` where it is not 0, and a bias."""
    scores = (q @ keys.mT).float() * (scale or 1.0 / math.sqrt(q.shape[-1]))
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    return scores if bias is None else scores + bias


def weights_beside_sink(masked: Tensor, sink: Tensor | None) -> Tensor:
    """The softmax of scores; a sink is one more score that takes weight and gives nothing."""
    if sink is None:
        return softmax_of_visible(masked)
    # It is the same for every query of a head.
    extra = sink.float().reshape(1, -1, 1, 1)
    extra = extra.expand(masked.shape[0], -1, masked.shape[2], 1)
    return torch.cat([masked, extra], dim=-1).softmax(-1)[..., :-1]


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
    """Grouped attention and its scores; `allowed` [batch, 1, queries, keys] says what is seen."""
    keys, values = repeat_heads(keys, q.shape[1]), repeat_heads(values, q.shape[1])
    if not softcap and sink is None and not qk_output:
        mask = add_masks(allowed, attention_bias)
        y = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, scale=scale or None
        )
        return merge_heads(y), None
    scores = capped_scores(q, keys, attention_bias, scale, softcap)
    weights = weights_beside_sink(scores.masked_fill(~allowed, -torch.inf), sink)
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
        if past_key is None or past_value is None:
            past_key, past_value = k[:, :, :0], v[:, :, :0]
        room = max(total, past_key.shape[2])
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
    seen = grid[:, q_blocks][:, :, :, k_blocks].transpose(0, 1)
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
