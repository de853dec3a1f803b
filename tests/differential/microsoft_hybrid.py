"""com.microsoft: layers of hybrid language models, and operations that torch has natively."""

from typing import Any

import numpy as np

from .one_node import Case, Rng, Spec, f32, scalar, specification

SPECS: list[Spec] = []
spec = specification(SPECS, "com.microsoft")


@spec(
    "CausalConvWithState",
    kernel=[1, 2, 4],
    length=[1, 5],
    bias=[False, True],
    past=[False, True],
    activation=[None, "silu", "swish", "none"],
    constant=[False, True],
)
def causal_conv(
    rng: Rng,
    *,
    kernel: int,
    length: int,
    bias: bool,
    past: bool,
    activation: str | None,
    constant: bool,
) -> Case:
    x = [f32(rng, 2, 4, length), f32(rng, 4, 1, kernel), f32(rng, 4) if bias else None]
    x.append(f32(rng, 2, 4, kernel - 1) if past else None)
    attrs = {} if activation is None else {"activation": activation}
    return Case(x, attrs, outputs=2, constants=[1, 2] if constant else [])


@spec(
    "LinearAttention",
    rule=["linear", "gated", "delta", "gated_delta", None],
    heads=[(2, 2), (4, 2), (1, 1)],
    length=[1, 5],
    past=[False, True],
    each=[False, True],
    one_rate=[False, True],
    scale=[None, 0.5],
)
def linear_attention(
    rng: Rng,
    *,
    rule: str | None,
    heads: tuple[int, int],
    length: int,
    past: bool,
    each: bool,
    one_rate: bool,
    scale: float | None,
) -> Case:
    q_heads, kv_heads = heads
    size, width = 4, 3
    named = rule or "gated_delta"
    gates = kv_heads * (size if each else 1)
    decay = -rng.random((2, length, gates)).astype(np.float32) if "gated" in named else None
    rates = (2, length, 1 if one_rate else kv_heads)
    x = [
        f32(rng, 2, length, q_heads * size),
        f32(rng, 2, length, kv_heads * size) / 2,
        f32(rng, 2, length, kv_heads * width),
        f32(rng, 2, kv_heads, size, width) if past else None,
        decay,
        rng.random(rates).astype(np.float32) if "delta" in named else None,
    ]
    attrs: dict[str, Any] = {"q_num_heads": q_heads, "kv_num_heads": kv_heads}
    if rule is not None:
        attrs["update_rule"] = rule
    if scale is not None:
        attrs["scale"] = scale
    return Case(x, attrs, outputs=2)


@spec("LinearAttentionGate", rate=[False, True], constant=[False, True], large=[False, True])
def linear_attention_gate(rng: Rng, *, rate: bool, constant: bool, large: bool) -> Case:
    a = f32(rng, 2, 3, 4) * (30 if large else 1)
    x = [a, f32(rng, 4), -(f32(rng, 4) ** 2), f32(rng, 2, 3, 4) if rate else None]
    return Case(x, outputs=2 if rate else 1, constants=[1, 2] if constant else [])


@spec("GatedAdd", shape=[(2, 3, 8), (5, 4)])
def gated_add(rng: Rng, *, shape: tuple[int, ...]) -> Case:
    return Case([f32(rng, *shape), f32(rng, *shape), f32(rng, *shape[:-1], 1)])


@spec("ScaledSiLU", alpha=[None, 1.0, 0.5, -2.0], scale=[None, 1.5], shape=[(2, 3), (4,)])
def scaled_silu(
    rng: Rng, *, alpha: float | None, scale: float | None, shape: tuple[int, ...]
) -> Case:
    x = [f32(rng, *shape), None if scale is None else scalar(scale)]
    return Case(x, {} if alpha is None else {"alpha": alpha})


@spec(
    "GatedRMSNorm",
    groups=[1, 3],
    activation=[None, "silu", "swish", "sigmoid"],
    epsilon=[None, 1e-3],
    constant=[False, True],
)
def gated_rms_norm(
    rng: Rng, *, groups: int, activation: str | None, epsilon: float | None, constant: bool
) -> Case:
    shape = (2, 3, 4 * groups)
    named = (("activation", activation), ("epsilon", epsilon))
    attrs = {k: v for k, v in named if v is not None}
    x = [f32(rng, *shape), f32(rng, 4), f32(rng, *shape)]
    return Case(x, attrs, constants=[1] if constant else [])


@spec("UnfoldTensor", dim=[None, 0, 1, -1], size=[1, 3], step=[None, 2], dynamic=[False, True])
def unfold(rng: Rng, *, dim: int | None, size: int, step: int | None, dynamic: bool) -> Case:
    named = (("dim", dim), ("step", step))
    attrs: dict[str, Any] = {k: v for k, v in named if v is not None}
    return Case([f32(rng, 4, 5, 6)], attrs | {"size": size}, dynamic=dynamic)


@spec("IsAllFinite", value=[0.0, np.inf, -np.inf, np.nan], only=[None, "isinf_only", "isnan_only"])
def is_all_finite(rng: Rng, *, value: float, only: str | None) -> Case:
    """ONNX Runtime's kernels are for other devices."""
    x = [f32(rng, 2, 3), f32(rng, 4)]
    x[1][2] = value
    bad = np.isinf(value) and only != "isnan_only"
    bad = bad or (np.isnan(value) and only != "isinf_only")
    return Case(x, {only: 1} if only else {}, expected=[np.array(not bad)])


@spec("NGramRepeatBlock", size=[1, 2, 3, 5], length=[1, 3, 12], dynamic=[False, True])
def ngram_repeat_block(rng: Rng, *, size: int, length: int, dynamic: bool) -> Case:
    ids = rng.integers(0, 3, (4, length))
    return Case([ids, f32(rng, 4, 5)], {"ngram_size": size}, dynamic=dynamic)


# ---------------------------------------------------------------- parallel streams

HALVES = [np.float32, np.float32, np.float16]


def near_half(dtype: Any) -> dict[str, float]:
    return {"rtol": 5e-3, "atol": 5e-3} if dtype == np.float16 else {}


@spec(
    "BranchwiseRMSNorm",
    flat=[False, True],
    scale=[None, "whole", "branch", "feature"],
    rank=[1, 2, 3],
    epsilon=[None, 0.1],
    dtype=HALVES,
    scale_dtype=HALVES,
    constant=[False, True],
)
def branchwise_rms_norm(
    rng: Rng,
    *,
    flat: bool,
    scale: str | None,
    rank: int,
    epsilon: float | None,
    dtype: Any,
    scale_dtype: Any,
    constant: bool,
) -> Case:
    lead = (2, 3, 4)[: rank - 1]
    x = f32(rng, *lead, 3 * 8) if flat else f32(rng, *lead, 3, 8)
    shapes = {"whole": (24,), "branch": (3, 8), "feature": (8,)}
    gamma = None if scale is None else f32(rng, *shapes[scale]).astype(scale_dtype)
    attrs: dict[str, Any] = {"num_branches": 3} if flat else {}
    if epsilon is not None:
        attrs["epsilon"] = epsilon
    given = [x.astype(dtype), gamma]
    return Case(given, attrs, constants=[1] if constant else [], **near_half(dtype))


@spec(
    "HyperConnectionPreMix",
    "HyperConnectionPostMix",
    flat=[False, True],
    gates=["branch", "column", "feature", "flat"],
    scale=[None, 0.5],
    mixed=[False, True],
    lead=[(2, 3), (4,), ()],
    dtype=HALVES,
    gate_dtype=HALVES,
)
def hyper_connection(
    rng: Rng,
    *,
    op_type: str,
    flat: bool,
    gates: str,
    scale: float | None,
    mixed: bool,
    lead: tuple[int, ...],
    dtype: Any,
    gate_dtype: Any,
) -> Case | None:
    pre = op_type == "HyperConnectionPreMix"
    if gates == "flat" and not (pre and flat):
        return None
    x = f32(rng, *lead, 3 * 8) if flat else f32(rng, *lead, 3, 8)
    shapes = {"branch": (3,), "column": (3, 1), "feature": (3, 8), "flat": (24,)}
    gate = f32(rng, *lead, *shapes[gates]).astype(gate_dtype)
    attrs: dict[str, Any] = {"num_branches": 3} if flat else {}
    if pre and scale is not None:
        attrs["reduction_scale"] = scale
    inputs: list[Any] = [x.astype(dtype), gate]
    if not pre:
        mix = f32(rng, *lead, 3, 3).astype(gate_dtype) if mixed else None
        inputs = [inputs[0], f32(rng, *lead, 8).astype(dtype), gate, mix]
    return Case(inputs, attrs, **near_half(dtype))


@spec(
    "EngramGate",
    normed=[False, True],
    epsilon=[None, 0.1],
    dtype=HALVES,
    small=[False, True],
    constant=[False, True],
)
def engram_gate(
    rng: Rng, *, normed: bool, epsilon: float | None, dtype: Any, small: bool, constant: bool
) -> Case:
    size = 1e-4 if small else 1.0
    x = [f32(rng, 2, 3, 4, 8) * size, f32(rng, 2, 3, 4, 8), f32(rng, 2, 3, 8)]
    x += [f32(rng, 4, 8), f32(rng, 4, 8), f32(rng, 4, 8) if normed else None]
    given = [None if part is None else part.astype(dtype) for part in x]
    attrs = {} if epsilon is None else {"epsilon": epsilon}
    fixed = [3, 4, 5] if constant else []
    return Case(given, attrs, outputs=2 if normed else 1, constants=fixed, **near_half(dtype))


@spec(
    "MoEGroupRouter",
    groups=[(1, 1), (2, 1), (4, 2), (4, 4)],
    chosen=[1, 2, 3],
    group_topk=[None, 1, 5],
    sentinel=[None, -1.0],
    lead=[(5,), (2, 3)],
    dtype=HALVES,
)
def moe_group_router(
    rng: Rng,
    *,
    groups: tuple[int, int],
    chosen: int,
    group_topk: int | None,
    sentinel: float | None,
    lead: tuple[int, ...],
    dtype: Any,
) -> Case:
    attrs: dict[str, Any] = {"n_group": groups[0], "topk_group": groups[1], "top_k": chosen}
    named = (("group_topk", group_topk), ("router_sentinel", sentinel))
    attrs |= {k: v for k, v in named if v is not None}
    # Scores that are far apart: how halves of them round decides nothing.
    logits = rng.permutation(int(np.prod((*lead, 16)))).reshape(*lead, 16) % 37 / 6 - 3
    return Case([logits.astype(dtype), f32(rng, 16) / 9], attrs, **near_half(dtype))


@spec("MoEGroupRouter", lead=[(5,), (2, 3)], projected=[False, True], dtype=HALVES)
def moe_router_scores(
    rng: Rng, *, lead: tuple[int, ...], projected: bool, dtype: Any
) -> Case | None:
    if projected and len(lead) > 1:
        return None  # ONNX Runtime refuses it
    width = 256 if projected else 16
    x = [f32(rng, *lead, width).astype(dtype), f32(rng, 16)]
    if projected:
        x.append((f32(rng, 16, width) / 16).astype(dtype))
    return Case(x, {"top_k": 2}, outputs=[False, True, True], **near_half(dtype))


# ---------------------------------------------------------------- hashed n-grams


def ngram_inputs(rng: Rng, size: int, heads: int, dtype: Any, offsets: bool) -> list[Any]:
    """Multipliers, sizes and offsets of the heads."""
    many = (size - 1) * heads
    sizes = rng.choice([3, 7, 101, 65537], many).astype(dtype)
    multipliers = rng.integers(1, 2**30, size).astype(dtype) * 2 + 1
    return [multipliers, sizes, rng.integers(0, 1000, many).astype(dtype) if offsets else None]


@spec(
    "NGramHashMapping",
    size=[2, 3, 4],
    heads=[1, 2],
    length=[1, 6],
    past=[False, True],
    offsets=[False, True],
    eos=[None, 0, 1],
    segments=[False, True],
    dtype=[np.int32, np.int64],
    negative=[False, True],
)
def ngram_hash_mapping(
    rng: Rng,
    *,
    size: int,
    heads: int,
    length: int,
    past: bool,
    offsets: bool,
    eos: int | None,
    segments: bool,
    dtype: Any,
    negative: bool,
) -> Case:
    low = -5 if negative else 0
    ids = rng.integers(low, 6, (2, length)).astype(dtype)
    before = rng.integers(low, 6, (2, size - 1)).astype(dtype) if past else None
    multipliers, sizes, added = ngram_inputs(rng, size, heads, dtype, offsets)
    end = None if eos is None else np.array(2, dtype)
    parts = np.sort(rng.integers(0, 3, (2, length))).astype(np.int32) if segments else None
    attrs = {"max_ngram_size": size, "n_head_per_ngram": heads, "pad_id": 9}
    if eos is not None:
        attrs["reset_on_eos"] = eos
    return Case([ids, multipliers, sizes, before, added, end, parts], attrs, outputs=2)


BOUNDS = [[0, 3, 4, 9], [0, 6], [0, 1, 2]]


@spec(
    "VarlenNGramHashMapping",
    bounds=BOUNDS,
    size=[2, 3, 4],
    past=[False, True],
    offsets=[False, True],
    eos=[None, 0, 1],
    segments=[None, "now", "both"],
    capacity=[0, 2],
    dtype=[np.int32, np.int64],
)
def varlen_ngram_hash_mapping(
    rng: Rng,
    *,
    bounds: list[int],
    size: int,
    past: bool,
    offsets: bool,
    eos: int | None,
    segments: str | None,
    capacity: int,
    dtype: Any,
) -> Case:
    batch = len(bounds) - 1
    ids = rng.integers(0, 6, bounds[-1]).astype(dtype)
    before = rng.integers(0, 6, (batch, size - 1)).astype(dtype) if past else None
    multipliers, sizes, added = ngram_inputs(rng, size, 2, dtype, offsets)
    end = None if eos is None else np.array(2, dtype)
    parts = None if segments is None else rng.integers(0, 2, bounds[-1]).astype(np.int32)
    past_parts = rng.integers(0, 2, (batch, size - 1)).astype(np.int32)
    count = rng.integers(0, 4, batch).astype(np.int32) if capacity else None
    x = [ids, multipliers, sizes, np.array(bounds, np.int32), before, added, end, parts]
    x += [past_parts if segments == "both" else None, count]
    attrs = {"max_ngram_size": size, "n_head_per_ngram": 2, "pad_id": 9}
    attrs["state_update_capacity"] = capacity
    if eos is not None:
        attrs["reset_on_eos"] = eos
    return Case(x, attrs, outputs=[True, True, segments is not None, capacity > 0])


# ---------------------------------------------------------------- packed sequences


@spec(
    "VarlenCausalConvWithState",
    bounds=BOUNDS,
    kernel=[1, 2, 4],
    dilation=[None, 2],
    bias=[False, True],
    activation=[None, "silu", "none"],
    capacity=[0, 2],
    dtype=HALVES,
    constant=[False, True],
)
def varlen_causal_conv(
    rng: Rng,
    *,
    bounds: list[int],
    kernel: int,
    dilation: int | None,
    bias: bool,
    activation: str | None,
    capacity: int,
    dtype: Any,
    constant: bool,
) -> Case:
    batch, carry = len(bounds) - 1, (kernel - 1) * (dilation or 1)
    x: list[Any] = [
        f32(rng, bounds[-1], 4).astype(dtype),
        f32(rng, 4, 1, kernel).astype(dtype),
        np.array(bounds, np.int32),
        f32(rng, 4).astype(dtype) if bias else None,
        f32(rng, batch, 4, carry).astype(dtype),
        rng.integers(0, 4, batch).astype(np.int32) if capacity else None,
    ]
    attrs: dict[str, Any] = {"state_update_capacity": capacity}
    named = (("dilation", dilation), ("activation", activation))
    attrs |= {k: v for k, v in named if v is not None}
    return Case(
        x,
        attrs,
        outputs=3 if capacity else 2,
        constants=[1, 3] if constant else [],
        **near_half(dtype),
    )


@spec(
    "GatedDeltaNet",
    bounds=[*BOUNDS, None, None],
    rule=[None, "linear", "gated", "delta", "gated_delta"],
    heads=[(1, 1), (2, 2), (2, 4)],
    packed=[False, True],
    rank=[3, 4],
    state=[False, True],
    each=[False, True],
    gate=[None, "none", "softplus", "sigmoid"],
    wide_bias=[False, True],
    rate=[None, "sigmoid"],
    norm=[0, 1],
    scale=[None, 0.5],
    dtype=HALVES,
)
def gated_delta_net(
    rng: Rng,
    *,
    bounds: list[int] | None,
    rule: str | None,
    heads: tuple[int, int],
    packed: bool,
    rank: int,
    state: bool,
    each: bool,
    gate: str | None,
    wide_bias: bool,
    rate: str | None,
    norm: int,
    scale: float | None,
    dtype: Any,
) -> Case | None:
    shared, many = heads
    size, width, batch, tokens = 4, 3, 2, 6
    if bounds is not None:
        batch, tokens = len(bounds) - 1, bounds[-1]
        if rank == 4:
            return None
    if (packed or bounds is None) and not state:
        return None
    lead = (batch, tokens // batch) if rank == 4 else (tokens,)
    q, k = (f32(rng, *lead, shared, size) / 2 for _ in range(2))
    v = f32(rng, *lead, many, width)
    if packed:
        q = np.concatenate([part.reshape(*lead, -1) for part in (q, k, v)], -1)
    named = rule or "gated_delta"
    decay = -rng.random((*lead, many, *([size] if each else []))).astype(np.float32)
    fused = gate in ("softplus", "sigmoid") and "gated" in named
    bias = f32(rng, many, size) if each and wide_bias else f32(rng, many)
    x = [
        q.astype(dtype),
        None if packed else k.astype(dtype),
        None if packed else v.astype(dtype),
        None if bounds is None else np.array(bounds, np.int32),
        decay if "gated" in named else None,
        rng.random((*lead, many)).astype(np.float32) if "delta" in named else None,
        f32(rng, batch, many, width, size) if state else None,
        f32(rng, many) / 2 if fused else None,
        bias if fused else None,
    ]
    attrs: dict[str, Any] = {"qk_l2_norm": norm}
    options = [("update_rule", rule), ("beta_activation", rate if "delta" in named else None)]
    options += [("gate_activation", gate if fused or gate == "none" else None), ("scale", scale)]
    attrs |= {k: v for k, v in options if v is not None}
    return Case(x, attrs, outputs=2, **near_half(dtype))


@spec(
    "HyperConnectionLowRankMix",
    lead=[(2, 3), (4,)],
    before=[False, True],
    scales=[{}, {"reduction_scale": 0.5, "silu_alpha": 2.0, "gate_div": 3.0, "gate_mul": 0.5}],
    epsilon=[None, 0.1],
    outputs=[2, 3],
)
def hyper_connection_low_rank_mix(
    rng: Rng,
    *,
    lead: tuple[int, ...],
    before: bool,
    scales: dict[str, float],
    epsilon: float | None,
    outputs: int,
) -> Case:
    c, h, r = 3, 8, 5
    x: list[Any] = [f32(rng, *lead, c * h), f32(rng, c * h), f32(rng, c * h, r) / 4]
    x += [f32(rng, r, c * h), f32(rng, c * h, c) / 4]
    x += [f32(rng, *lead, h), f32(rng, *lead, c)] if before else [None, None]
    s = x[0].reshape(*lead, c, h).astype(np.float64)
    if before:
        s = s + x[6][..., None] * x[5][..., None, :]
    normed = s / np.sqrt((s**2).mean(-1, keepdims=True) + (epsilon or 1e-5))
    flat = normed.reshape(*lead, c * h) * x[1]
    z = scales.get("silu_alpha", 1.0) * (flat @ x[2])
    gates = 1 / (1 + np.exp(-((z / (1 + np.exp(-z))) @ x[3])))
    pre = (flat * gates).reshape(*lead, c, h).sum(-2) * scales.get("reduction_scale", 1.0)
    inject = (flat @ x[4]) / scales.get("gate_div", 1.0)
    post = scales.get("gate_mul", 1.0) / (1 + np.exp(-inject))
    expected = [y.astype(np.float32) for y in (pre, post, s.reshape(*lead, c * h))]
    attrs = {"num_branches": c, **scales} | ({} if epsilon is None else {"epsilon": epsilon})
    return Case(x, attrs, outputs=outputs, expected=expected[:outputs])


@spec(
    "SwiGLU",
    apart=[False, True],
    limit=[None, 0.0, 0.75],
    alpha=[None, 1.702],
    beta=[None, 1.0],
    rounded=[0, 1],
    dtype=HALVES,
)
def clamped_swiglu(
    rng: Rng,
    *,
    apart: bool,
    limit: float | None,
    alpha: float | None,
    beta: float | None,
    rounded: int,
    dtype: Any,
) -> Case:
    gate, up = (f32(rng, 2, 3, 4).astype(dtype) for _ in range(2))
    x = [gate, up] if apart else [np.concatenate([gate, up], -1)]
    g, v = gate.astype(np.float64), up.astype(np.float64)
    if limit:
        g, v = np.minimum(g, limit), np.clip(v, -limit, limit)
    y = g / (1 + np.exp(-(alpha or 1.0) * g)) * (v + (beta or 0.0))
    named = (("limit", limit), ("activation_alpha", alpha), ("activation_beta", beta))
    attrs: dict[str, Any] = {k: v for k, v in named if v is not None}
    attrs["round_activation"] = rounded
    return Case(x, attrs, expected=[y.astype(dtype)], **near_half(dtype))
