"""com.microsoft: layers of language models with parallel streams, hashed n-grams and states."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.attention import linear_attention


def split_branches(x: Tensor, num_branches: int) -> Tensor:
    """[..., branches, width] of streams that may lie flat in one axis."""
    return torch.unflatten(x, -1, (num_branches, -1)) if num_branches else x


def branch_gates(gates: Tensor, streams: Tensor) -> Tensor:
    """Gates of each branch or feature, with an axis for each of the streams'."""
    if gates.dim() < streams.dim():
        gates = torch.unflatten(gates, -1, (streams.shape[-2], -1))
    return gates.float()


def branchwise_rms_norm(
    x: Tensor,
    scale: Tensor | None = None,
    *,
    num_branches: int = 0,
    epsilon: float = 1e-5,
) -> Tensor:
    """com.microsoft BranchwiseRMSNorm: F.rms_norm of each branch, all in float32."""
    branches = split_branches(x, num_branches).float()
    width = branches.shape[-1]
    y = F.rms_norm(branches, [width], None, epsilon)
    if scale is not None:
        y = y * scale.float().reshape(-1, width)
    return y.reshape(x.shape).to(x.dtype)


def hyper_connection_pre_mix(
    streams: Tensor,
    pre_mix: Tensor,
    *,
    num_branches: int = 0,
    reduction_scale: float = 1.0,
) -> Tensor:
    """com.microsoft HyperConnectionPreMix: the gated sum of the streams, in float32."""
    branches = split_branches(streams, num_branches).float()
    y = (branches * branch_gates(pre_mix, branches)).sum(-2) * reduction_scale
    return y.to(streams.dtype)


def hyper_connection_post_mix(
    streams: Tensor,
    block_output: Tensor,
    post_mix: Tensor,
    stream_mix: Tensor | None = None,
    *,
    num_branches: int = 0,
) -> Tensor:
    """com.microsoft HyperConnectionPostMix: streams mixed, and a block's output added to each."""
    branches = split_branches(streams, num_branches).float()
    gates = branch_gates(post_mix, branches)
    if stream_mix is not None:
        branches = stream_mix.float().mT @ branches
    y = branches + gates * block_output.float().unsqueeze(-2)
    return y.reshape(streams.shape).to(streams.dtype)


def engram_gate(
    key: Tensor,
    query: Tensor,
    value: Tensor,
    key_norm_scale: Tensor,
    query_norm_scale: Tensor,
    conv_norm_scale: Tensor | None = None,
    *,
    epsilon: float = 1e-5,
) -> tuple[Tensor, Tensor | None]:
    """com.microsoft EngramGate: values gated by how keys and queries agree, all in float32."""
    width = [key.shape[-1]]
    k = F.rms_norm(key.float(), width, None, epsilon) * key_norm_scale.float()
    q = F.rms_norm(query.float(), width, None, epsilon) * query_norm_scale.float()
    dot = (k * q).sum(-1, keepdim=True) / math.sqrt(width[0])
    gate = torch.sigmoid(dot.sign() * dot.abs().clamp(min=1e-6).sqrt())
    y = gate * value.float().unsqueeze(-2)
    normed = None
    if conv_norm_scale is not None:
        normed = F.rms_norm(y, width, None, epsilon) * conv_norm_scale.float()
        normed = normed.to(key.dtype)
    return y.to(key.dtype), normed


def moe_group_router(
    logits: Tensor,
    expert_bias: Tensor,
    *,
    top_k: int,
    n_group: int = 1,
    topk_group: int = 1,
    group_topk: int = 2,
    router_sentinel: float = -10000.0,
) -> Tensor:
    """com.microsoft MoEGroupRouter: log scores of the best experts of the best groups."""
    scores = torch.sigmoid(logits.reshape(-1, logits.shape[-1]).float())
    groups = torch.unflatten(scores + expert_bias, -1, (n_group, -1))
    totals = groups.topk(min(group_topk, groups.shape[-1])).values.sum(-1)
    best = totals.topk(topk_group).indices
    left_out = torch.ones_like(totals, dtype=torch.bool).scatter(-1, best, False)
    biased = groups.masked_fill(left_out.unsqueeze(-1), -torch.inf).flatten(-2)
    chosen = biased.topk(top_k).indices
    logs = scores.clamp(min=1e-20).log().gather(-1, chosen)
    return (
        torch.full_like(scores, router_sentinel)
        .scatter(-1, chosen, logs)
        .to(logits.dtype)
    )


def moe_router_scores(
    logits: Tensor, expert_bias: Tensor, projection_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """com.microsoft MoEGroupRouter that leaves the choice to others: biased and plain scores."""
    rows = logits.reshape(-1, logits.shape[-1]).float()
    if projection_weight is not None:
        rows = F.linear(rows, projection_weight.float())
    scores = torch.sigmoid(rows)
    return scores + expert_bias, scores


def ngram_hashes(
    rows: Tensor,
    starts: Tensor | None,
    places: Tensor,
    multipliers: Tensor,
    vocab_sizes: Tensor,
    head_offsets: Tensor | None,
    eos: Tensor | None,
    fill: Tensor,
    max_ngram_size: int,
    heads: int,
) -> Tensor:
    """Hashes of the n-grams that end at `places` of `rows`, the history lying before each.

    `starts` says where a new segment begins, `eos` what ends one: what lies before is not seen.
    """
    token = rows[places]
    mix = token * multipliers[0]
    unseen = torch.zeros_like(token, dtype=torch.bool)
    hashes = []
    for back in range(1, max_ngram_size):
        token = rows[places - back]
        if starts is not None:
            unseen = unseen | starts[places - back + 1]
        if eos is not None:
            unseen = unseen | (token == eos)
        mix = mix ^ torch.where(unseen, fill, token) * multipliers[back]
        sizes = vocab_sizes[(back - 1) * heads : back * heads]
        hashes.append(torch.remainder(mix.unsqueeze(-1), sizes))
    y = torch.cat(hashes, -1)
    return y if head_offsets is None else y + head_offsets


def ngram_hash_mapping(
    input_ids: Tensor,
    multipliers: Tensor,
    vocab_sizes: Tensor,
    past_ids: Tensor | None = None,
    head_offsets: Tensor | None = None,
    eos_token_id: Tensor | None = None,
    segment_ids: Tensor | None = None,
    *,
    max_ngram_size: int,
    n_head_per_ngram: int,
    pad_id: int,
    reset_on_eos: int = 0,
) -> tuple[Tensor, Tensor]:
    """com.microsoft NGramHashMapping: torch has no hash; integers that wrap give it."""
    batch, length = input_ids.shape
    history = max_ngram_size - 1
    fill = input_ids.new_tensor(pad_id) if eos_token_id is None else eos_token_id
    fill = fill.reshape(())
    if past_ids is None:
        past_ids = fill.expand(batch, history)
    seen = torch.cat([past_ids, input_ids], 1)
    starts = None
    if segment_ids is not None:
        changes = segment_ids[:, 1:] != segment_ids[:, :-1]
        starts = F.pad(changes, (history + 1, 0))[:, -seen.shape[1] :].reshape(-1)
    places = torch.arange(seen.numel(), device=seen.device).reshape(seen.shape)
    hashes = ngram_hashes(
        seen.reshape(-1),
        starts,
        places[:, history:],
        multipliers,
        vocab_sizes,
        head_offsets,
        fill if reset_on_eos and eos_token_id is not None else None,
        fill,
        max_ngram_size,
        n_head_per_ngram,
    )
    return hashes, seen[:, length:]


def packed_places(bounds: Tensor, count: int, history: int) -> Tensor:
    """Where `count` packed tokens lie once each sequence has `history` rows put before it."""
    tokens = torch.arange(count, device=bounds.device)
    return tokens + history * torch.searchsorted(bounds[:-1], tokens, right=True)


def packed_ends(bounds: Tensor, history: int) -> Tensor:
    """Where each packed sequence ends once every one has `history` rows put before it."""
    sequences = torch.arange(1, bounds.shape[0], device=bounds.device)
    return bounds[1:] + history * sequences


def put_history_before(past: Tensor, x: Tensor, bounds: Tensor) -> Tensor:
    """Packed tokens [tokens, ...] with the rows of `past` [batch, history, ...] before each."""
    batch, history = past.shape[:2]
    places = packed_places(bounds, x.shape[0], history)
    begins = bounds[:-1] + history * torch.arange(batch, device=x.device)
    slots = begins.unsqueeze(1) + torch.arange(history, device=x.device)
    rows = x.new_zeros(x.shape[0] + batch * history, *x.shape[1:])
    rows = rows.index_copy(0, slots.reshape(-1), past.flatten(0, 1).to(x.dtype))
    return rows.index_copy(0, places, x)


def rows_before(rows: Tensor, ends: Tensor, count: int) -> Tensor:
    """The `count` rows before each of `ends`: [..., count, ...]."""
    back = torch.arange(-count, 0, device=rows.device)
    return rows[ends.unsqueeze(-1) + back]


def captured_steps(
    bounds: Tensor, capture_count: Tensor, capacity: int
) -> tuple[Tensor, Tensor]:
    """[batch, capacity] tokens from the start of each sequence, and which of them are wanted."""
    steps = torch.arange(capacity, device=bounds.device)
    wanted = torch.minimum(capture_count.long(), bounds[1:] - bounds[:-1])
    tokens = bounds[:-1].unsqueeze(1) + steps
    return tokens.clamp(max=bounds[-1] - 1), steps < wanted.unsqueeze(1)


def captured_rows(
    x: Tensor, bounds: Tensor, capture_count: Tensor, capacity: int
) -> Tensor:
    """The rows of x [tokens, ...] that are wanted of each sequence: [batch, capacity, ...]."""
    tokens, wanted = captured_steps(bounds, capture_count, capacity)
    return x[tokens].masked_fill(~wanted.unsqueeze(-1), 0)


def varlen_ngram_hash_mapping(
    input_ids: Tensor,
    multipliers: Tensor,
    vocab_sizes: Tensor,
    cumulative_sequence_length: Tensor,
    past_ids: Tensor | None = None,
    head_offsets: Tensor | None = None,
    eos_token_id: Tensor | None = None,
    segment_ids: Tensor | None = None,
    past_segment_ids: Tensor | None = None,
    capture_count: Tensor | None = None,
    *,
    max_ngram_size: int,
    n_head_per_ngram: int,
    pad_id: int,
    reset_on_eos: int = 0,
    state_update_capacity: int = 0,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """com.microsoft VarlenNGramHashMapping: NGramHashMapping of sequences packed end to end."""
    bounds = cumulative_sequence_length.long()
    batch, count = bounds.shape[0] - 1, input_ids.shape[0]
    history = max_ngram_size - 1
    fill = input_ids.new_tensor(pad_id) if eos_token_id is None else eos_token_id
    fill = fill.reshape(())
    if past_ids is None:
        past_ids = fill.expand(batch, history)
    rows = put_history_before(past_ids, input_ids, bounds)
    ends = packed_ends(bounds, history)
    starts: Tensor | None = None
    present_segments: Tensor | None = None
    if segment_ids is not None:
        if past_segment_ids is None:
            past_segment_ids = segment_ids[bounds[:-1]].unsqueeze(1).expand(-1, history)
        segments = put_history_before(past_segment_ids, segment_ids, bounds)
        starts = F.pad(segments[1:] != segments[:-1], (1, 0))
        present_segments = rows_before(segments, ends, history)
    places = packed_places(bounds, count, history)
    hashes = ngram_hashes(
        rows,
        starts,
        places,
        multipliers,
        vocab_sizes,
        head_offsets,
        fill if reset_on_eos and eos_token_id is not None else None,
        fill,
        max_ngram_size,
        n_head_per_ngram,
    )
    update = None
    if capture_count is not None:
        tokens, wanted = captured_steps(bounds, capture_count, state_update_capacity)
        states = rows_before(rows, places[tokens] + 1, history)
        update = states.masked_fill(~wanted.unsqueeze(-1), pad_id)
    return hashes, rows_before(rows, ends, history), present_segments, update


def varlen_causal_conv_with_state(
    x: Tensor,
    weight: Tensor,
    cumulative_sequence_length: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    capture_count: Tensor | None = None,
    *,
    activation: str = "none",
    dilation: int = 1,
    state_update_capacity: int = 0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """com.microsoft VarlenCausalConvWithState: depthwise over sequences packed end to end."""
    bounds = cumulative_sequence_length.long()
    carry = initial_state.shape[2]
    rows = put_history_before(initial_state.mT, x, bounds)
    # One convolution over all; what reaches over a sequence's edge lies in no token's place.
    y = F.conv1d(rows.t(), weight, bias, dilation=dilation, groups=x.shape[1]).t()
    y = y[packed_places(bounds, x.shape[0], carry) - carry]
    y = F.silu(y) if activation in ("silu", "swish") else y
    state = rows_before(rows, packed_ends(bounds, carry), carry).mT
    update = None
    if capture_count is not None:
        update = captured_rows(x, bounds, capture_count, state_update_capacity)
    return y, state, update


def effective_decay(
    decay: Tensor,
    a_log: Tensor | None,
    dt_bias: Tensor | None,
    gate_activation: str,
    lower_bound: float,
) -> Tensor:
    """The decay's logarithm, from its projection where an activation is asked for."""
    decay = decay.float()
    if gate_activation == "none":
        return decay
    heads = decay.shape[1]
    per_head = (heads, 1) if decay.dim() == 3 else (heads,)
    if dt_bias is not None:
        decay = decay + dt_bias.reshape(
            per_head if dt_bias.numel() == heads else decay.shape[1:]
        )
    rate = decay.new_ones(()) if a_log is None else a_log.exp().reshape(per_head)
    if gate_activation in ("sigmoid", "kda"):
        return lower_bound * torch.sigmoid(rate * decay)
    return -rate * F.softplus(decay, threshold=torch.inf)


def gated_delta_net(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    initial_state: Tensor | None = None,
    a_log: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    update_rule: str = "gated_delta",
    scale: float = 0.0,
    qk_l2_norm: int = 0,
    gate_activation: str = "none",
    gate_lower_bound: float = -5.0,
    beta_activation: str = "none",
) -> tuple[Tensor, Tensor]:
    """com.microsoft GatedDeltaNet: linear attention over sequences packed end to end."""
    leading = query.shape[: query.dim() - (1 if key is None else 2)]
    if key is None or value is None:
        assert initial_state is not None
        heads, width, size = initial_state.shape[1:]
        q_width = (query.shape[-1] - heads * width) // 2
        parts = torch.split(query, [q_width, q_width, heads * width], -1)
        query, key = (torch.unflatten(part, -1, (-1, size)) for part in parts[:2])
        value = torch.unflatten(parts[2], -1, (heads, width))
    dtype = query.dtype
    q, k = query.flatten(0, -3).float(), key.flatten(0, -3).float()
    v = value.flatten(0, -3).float()
    tokens, heads, width = v.shape
    if qk_l2_norm:
        q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    # Each head of queries and keys is shared by a group of heads of values.
    q, k = (x.repeat_interleave(heads // x.shape[1], 1) for x in (q, k))
    inputs = [q, k, v]
    has_decay, has_beta = "gated" in update_rule, "delta" in update_rule
    if has_decay and decay is not None:
        flat = decay.reshape(tokens, heads, *decay.shape[len(leading) + 1 :])
        logs = effective_decay(flat, a_log, dt_bias, gate_activation, gate_lower_bound)
        inputs.append(logs.reshape(tokens, -1))
    if has_beta and beta is not None:
        rates = beta.reshape(tokens, heads).float()
        inputs.append(torch.sigmoid(rates) if beta_activation == "sigmoid" else rates)
    owner: Tensor | None = None
    place: Tensor | None = None
    if cu_seqlens is not None:
        bounds = cu_seqlens.long()
        index = torch.arange(tokens, device=q.device)
        owner = torch.searchsorted(bounds[1:].contiguous(), index, right=True)
        place = index - bounds[owner]
        sizes = [bounds.shape[0] - 1, int((bounds[1:] - bounds[:-1]).max())]
        # A token of zeros changes no state.
        inputs = [
            x.new_zeros(*sizes, *x.shape[1:]).index_put((owner, place), x)
            for x in inputs
        ]
    else:
        assert initial_state is not None
        inputs = [torch.unflatten(x, 0, (initial_state.shape[0], -1)) for x in inputs]
    gates = inputs[3] if has_decay and decay is not None else None
    y, state = linear_attention(
        inputs[0].flatten(2),
        inputs[1].flatten(2),
        inputs[2].flatten(2),
        None if initial_state is None else initial_state.mT,
        gates,
        inputs[-1] if has_beta and beta is not None else None,
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=scale,
    )
    y = y.flatten(0, 1) if owner is None or place is None else y[owner, place]
    return y.reshape(*leading, heads, width).to(dtype), state.mT.contiguous()


def hyper_connection_low_rank_mix(
    streams: Tensor,
    norm_scale: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    inject_weight: Tensor,
    prev_block_output: Tensor | None = None,
    prev_post_gate: Tensor | None = None,
    *,
    num_branches: int,
    epsilon: float = 1e-5,
    reduction_scale: float = 1.0,
    silu_alpha: float = 1.0,
    gate_div: float = 1.0,
    gate_mul: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """com.microsoft HyperConnectionLowRankMix: each step in float32, its result in x's type."""
    dtype, shape = streams.dtype, streams.shape
    if prev_block_output is not None and prev_post_gate is not None:
        branches = split_branches(streams, num_branches).float()
        added = prev_post_gate.float().unsqueeze(
            -1
        ) * prev_block_output.float().unsqueeze(-2)
        streams = (branches + added).reshape(shape).to(dtype)
    normed = branchwise_rms_norm(
        streams, norm_scale, num_branches=num_branches, epsilon=epsilon
    )
    scaled = ((normed @ down_weight).float() * silu_alpha).to(dtype)
    hidden = scaled * torch.sigmoid(scaled.float()).to(dtype)
    gates = torch.sigmoid((hidden @ up_weight).float()).to(dtype)
    mixed = split_branches(normed.float() * gates.float(), num_branches).sum(-2)
    inject = ((normed @ inject_weight).float() / gate_div).to(dtype)
    post = (torch.sigmoid(inject.float()).to(dtype).float() * gate_mul).to(dtype)
    return (mixed * reduction_scale).to(dtype), post, streams
