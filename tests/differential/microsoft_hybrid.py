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
