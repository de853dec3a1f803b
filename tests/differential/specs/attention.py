"""Attention, its caches and positions, and what takes its place."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from ..draw import Draw, Node, kind_of
from ..engine import Row


def attention(d: Draw) -> Node:
    batch, groups, kv_heads = d.integer(1, 2), d.integer(1, 2), d.integer(1, 2)
    heads = groups * kv_heads
    length, keys = d.integer(1, 4), d.integer(1, 5)
    size, v_size = d.pick(2, 4, 8), d.pick(2, 4, 8)
    q_type, v_type = d.t("T1"), d.t("T2")
    flat = d.chance(0.4)

    def x(n: int, many: int, width: int, dtype: Any) -> Any:
        return d.x((batch, n, many * width) if flat else (batch, many, n, width), dtype, -2, 2)

    q, k, v = (
        x(length, heads, size, q_type),
        x(keys, kv_heads, size, q_type),
        x(keys, kv_heads, v_size, v_type),
    )
    attrs = d.attrs(is_causal=[0, 1], scale=[0.3, 1.0], softcap=[0.0, 2.0])
    if flat:
        attrs |= {"q_num_heads": heads, "kv_num_heads": kv_heads}
    past = d.integer(0, 3) if d.chance(0.4) else None
    total = keys + (past or 0)
    inputs: list[Any] = [q, k, v, None, None, None]
    if d.chance(0.5):
        mask = d.pick((length, total), (1, 1, length, total), (batch, heads, length, total))
        kind = d.t("U", "bool", "float", "int", common=0)
        if kind_of(kind) == "f":
            kind = q_type
        m = d.x(mask, kind, -2, 2)
        if kind == np.bool_:
            # Rows of nothing at all are a case of their own in each revision.
            m[..., 0] = True
            attrs["is_causal"] = 0
        inputs[3] = m
    if past is not None:
        inputs[4] = d.x((batch, kv_heads, past, size), q_type, -2, 2)
        inputs[5] = d.x((batch, kv_heads, past, v_size), v_type, -2, 2)
    elif d.opset >= 24 and d.chance(0.3):
        inputs += [d.rng.integers(1, keys + 1, (batch,))]
        attrs["is_causal"] = 0
    if attrs.get("is_causal") and past is None and d.opset < 25 and length > keys:
        attrs["is_causal"] = 0
    outputs: Any = 1
    if past is not None:
        outputs = d.pick(3, 4, 3)
        if outputs == 4:
            attrs["qk_matmul_output_mode"] = d.integer(0, 3)
    elif len(inputs) == 6 and d.chance(0.3):
        outputs = [True, False, False, True]
        attrs["qk_matmul_output_mode"] = d.integer(0, 3)
    while inputs[-1] is None:
        inputs.pop()
    return Node(inputs, attrs, outputs)


def rotary(d: Draw) -> Node:
    batch, heads, length = d.integer(1, 2), d.integer(1, 3), d.integer(1, 4)
    size = d.pick(2, 4, 8)
    part = d.pick(0, 0, *range(2, size + 1, 2))
    half = (part or size) // 2
    dtype = d.t("T")
    flat = d.chance(0.4)
    x = d.x((batch, length, heads * size) if flat else (batch, heads, length, size), dtype)
    attrs: dict[str, Any] = d.attrs(interleaved=[0, 1])
    if flat:
        attrs["num_heads"] = heads
    if part:
        attrs["rotary_embedding_dim"] = part
    angle = d.chance(0.5)
    shape = (7, half) if angle else (batch, length, half)
    inputs = [x, d.const(d.x(shape, dtype, -1, 1)), d.const(d.x(shape, dtype, -1, 1))]
    if angle:
        inputs.append(d.rng.integers(0, 7, (batch, length)))
    return Node(inputs, attrs)


def tensor_scatter(d: Draw) -> Node:
    shape = tuple(d.integer(1, 4) for _ in range(d.integer(2, 4)))
    axis = d.integer(1, len(shape) - 1)
    size = shape[axis]
    count = d.integer(1, size)
    update = list(shape)
    update[axis] = count
    attrs = d.attrs(mode=["linear", "circular"])
    given = axis - (len(shape) if d.chance(0.5) else 0)
    if given != -2 or d.chance(0.5):
        attrs["axis"] = given
    inputs: list[Any] = [d.x(shape, "T"), d.x(update, "T")]
    if d.chance(0.7):
        most = size - 1 if attrs.get("mode") == "circular" else size - count
        inputs.append(d.rng.integers(0, most + 1, shape[:1]))
    return Node(inputs, attrs)


def linear_attention(d: Draw) -> Node:
    batch, groups, heads = d.integer(1, 2), d.integer(1, 2), d.integer(1, 2)
    length, size, v_size = d.integer(1, 5), d.pick(2, 4), d.pick(2, 3)
    rule = d.pick("linear", "gated", "delta", "gated_delta")
    dtype = d.t("T")
    inputs: list[Any] = [
        d.x((batch, length, groups * heads * size), dtype, -1, 1),
        d.x((batch, length, heads * size), dtype, -0.5, 0.5),
        d.x((batch, length, heads * v_size), dtype, -1, 1),
        d.maybe(d.x((batch, heads, size, v_size), d.t("S"), -1, 1)),
        None,
        None,
    ]
    if "gated" in rule:
        inputs[4] = d.x((batch, length, heads * d.pick(1, size)), dtype, -1, 0)
    if "delta" in rule:
        inputs[5] = d.x((batch, length, d.pick(1, heads)), dtype, 0, 1)
    while inputs[-1] is None:
        inputs.pop()
    attrs = {"q_num_heads": groups * heads, "kv_num_heads": heads}
    if rule != "gated_delta" or d.chance(0.5):
        attrs["update_rule"] = rule
    return Node(inputs, attrs | d.attrs(scale=[0.0, 0.7], chunk_size=[1, 2, 64]), 2)


def causal_conv(d: Draw) -> Node:
    batch, channels, length, k = (d.integer(1, 4) for _ in range(4))
    dtype = d.t("T")
    inputs: list[Any] = [
        d.x((batch, channels, length), dtype, -2, 2),
        d.const(d.x((channels, 1, k), dtype, -2, 2)),
        d.maybe(d.const(d.x((channels,), dtype, -2, 2))),
        d.maybe(d.x((batch, channels, k - 1), dtype, -2, 2)),
    ]
    while inputs[-1] is None:
        inputs.pop()
    return Node(inputs, d.attrs(activation=["none", "silu", "swish"]), d.pick(1, 2))


def modifier(d: Draw, dtype: int) -> Any:
    value = helper.make_tensor("c", dtype, (), [0.5])
    return helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=value),
            helper.make_node(d.pick("Mul", "Add"), ["s", "c"], ["m"]),
        ],
        "modifier",
        [helper.make_tensor_value_info("s", dtype, [None] * 4)],
        [helper.make_tensor_value_info("m", dtype, [None] * 4)],
    )


def flex_attention(d: Draw) -> Node:
    batch, groups, kv_heads = d.integer(1, 2), d.integer(1, 2), d.integer(1, 2)
    length, keys, size, v_size = d.integer(1, 4), d.integer(1, 4), d.pick(2, 4), d.pick(2, 3)
    dtype = d.t("T1")
    q = d.x((batch, groups * kv_heads, length, size), dtype, -2, 2)
    k = d.x((batch, kv_heads, keys, size), dtype, -2, 2)
    v = d.x((batch, kv_heads, keys, v_size), dtype, -2, 2)
    attrs: dict[str, Any] = d.attrs(scale=[0.3, 1.0])
    inner = TensorProto.DOUBLE if dtype == np.float64 else TensorProto.FLOAT
    if d.chance(0.5):
        attrs["score_mod"] = modifier(d, inner)
    if d.chance(0.4):
        attrs["prob_mod"] = modifier(d, inner)
    return Node([q, k, v], attrs)


def simplified_layer_norm(d: Draw) -> Node:
    shape = tuple(d.integer(1, 4) for _ in range(d.integer(1, 4)))
    x = d.x(shape, "float32", -3, 3)
    scale = d.x(shape[-1:], "float32", 0.5, 2)
    epsilon = d.pick(1e-5, 1e-2)
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + epsilon) * scale
    attrs = {"epsilon": epsilon, "axis": -1}
    return Node([x, d.const(scale)], attrs, expected=[want.astype(np.float32)])


HALF = {"float16": 1.5e-2, "bfloat16": 6e-2}
# The reference scales the products in float32.
SCALED = {**HALF, "float64": 3e-6}
ROWS = {
    "Attention": Row(attention, rtol=SCALED),
    "RotaryEmbedding": Row(rotary),
    "TensorScatter": Row(tensor_scatter),
    "LinearAttention": Row(linear_attention, rtol=HALF),
    "CausalConvWithState": Row(causal_conv, rtol=HALF),
    "SimplifiedLayerNormalization": Row(simplified_layer_norm),
}
PREVIEW = {"FlexAttention": Row(flex_attention, rtol=HALF)}
