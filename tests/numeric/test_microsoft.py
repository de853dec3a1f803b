"""Operators of com.microsoft against ONNX Runtime, whose answers decide."""

from typing import Any

import numpy as np
import pytest
import torch

import onnx2nn
import onnx2nn._native as native
from int8_weights import int8_weights
from onnx2nn.runtime.multi_head import ms_attention

from .harness import Array, check, node_model, source_of

RNG = np.random.default_rng(5)


def f32(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def u8(*shape: int) -> Array:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def scale(value: float) -> Array:
    return np.array(value, np.float32)


def zero(value: int, dtype: Any = np.uint8) -> Array:
    return np.array(value, dtype)


def ms(op_type: str, inputs: list[Array | None], **kwargs: Any) -> str:
    return check(op_type, inputs, domain="com.microsoft", opset=1, **kwargs)


# ---------------------------------------------------------------- elementwise and norms


@pytest.mark.parametrize("op_type", ["Gelu", "FastGelu", "QuickGelu"])
@pytest.mark.parametrize("shape", [(2, 3), (5,), (0, 4)])
def test_gelu(op_type: str, shape: tuple[int, ...]) -> None:
    ms(op_type, [f32(*shape)], dynamic=True)


def test_biased_gelu() -> None:
    assert "F.gelu(" in ms("BiasGelu", [f32(2, 3, 8), f32(8)], constants=[1])
    assert "approximate=" in ms("FastGelu", [f32(2, 3, 8), f32(8)], constants=[1])
    ms("QuickGelu", [f32(2, 3)], attrs={"alpha": 0.5})


@pytest.mark.parametrize("outputs", [1, [True, False, False, True]])
@pytest.mark.parametrize("constants", [[], [2, 3, 4]])
@pytest.mark.parametrize("bias", [False, True])
def test_skip_layer_norm(outputs: Any, constants: list[int], bias: bool) -> None:
    x = [f32(2, 3, 8), f32(2, 3, 8), f32(8), f32(8)] + ([f32(8)] if bias else [])
    kept = [i for i in constants if i < len(x)]
    text = ms("SkipLayerNormalization", x, outputs=outputs, constants=kept, attrs={"epsilon": 1e-5})
    assert ("nn.LayerNorm(" in text) == bool(constants)


@pytest.mark.parametrize("outputs", [1, [True, False, False, True]])
@pytest.mark.parametrize("constants", [[], [2]])
def test_skip_rms_norm(outputs: Any, constants: list[int]) -> None:
    x = [f32(2, 3, 8), f32(2, 3, 8), f32(8)]
    options = {"outputs": outputs, "constants": constants, "attrs": {"epsilon": 1e-5}}
    text = ms("SkipSimplifiedLayerNormalization", x, **options)
    assert ("nn.RMSNorm(" in text) == bool(constants)


@pytest.mark.parametrize("attrs", [{}, {"axis": -1, "epsilon": 1e-6}, {"axis": 1}])
def test_simplified_layer_norm(attrs: dict[str, Any]) -> None:
    gamma = f32(3, 8) if attrs.get("axis") == 1 else f32(8)
    x = [f32(2, 3, 8), gamma]
    check("SimplifiedLayerNormalization", x, opset=17, attrs=attrs, constants=[1])


# ---------------------------------------------------------------- products and convolutions


@pytest.mark.parametrize(
    "attrs",
    [{}, {"alpha": 0.5}, {"transA": 1}, {"transB": 1, "alpha": 2.0}, {"transBatchA": 1}],
)
def test_fused_matmul(attrs: dict[str, Any]) -> None:
    ms("FusedMatMul", [f32(3, 3, 3), f32(3, 3, 3)], attrs=attrs)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Tanh", "HardSigmoid"])
def test_fused_gemm(activation: str) -> None:
    attrs: dict[str, Any] = {"transB": 1, "activation": activation}
    if activation in ("LeakyRelu", "HardSigmoid"):
        attrs["activation_alpha"] = 0.3
    if activation == "HardSigmoid":
        attrs["activation_beta"] = 0.4
    ms("FusedGemm", [f32(2, 4), f32(3, 4), f32(3)], attrs=attrs, constants=[1, 2])


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("activation", [("Relu", []), ("Clip", [-0.5, 0.5]), ("LeakyRelu", [0.2])])
def test_fused_conv(activation: tuple[str, list[float]], added: bool) -> None:
    attrs: dict[str, Any] = {"activation": activation[0], "pads": [1, 1, 1, 1]}
    if activation[1]:
        attrs["activation_params"] = activation[1]
    x = [f32(1, 3, 6, 6), f32(4, 3, 3, 3), f32(4)] + ([f32(1, 4, 6, 6)] if added else [])
    ms("FusedConv", x, attrs=attrs, constants=[1, 2])


# ---------------------------------------------------------------- what ai.onnx has too


def test_like_standard() -> None:
    ms("Inverse", [f32(2, 3, 3)])
    ms("Trilu", [f32(2, 3, 4), np.array(1, np.int64)], attrs={"upper": 0}, constants=[1])
    pads = np.array([0, 1, 2, 0], np.int64)
    ms("Pad", [f32(2, 3), pads, np.array([1.5], np.float32)], constants=[1, 2])
    ms("ExpandDims", [f32(2, 3), np.array([1], np.int32)], constants=[1])
    grid = (RNG.random((1, 2, 2, 2)) * 2 - 1).astype(np.float32)
    ms("GridSample", [f32(1, 2, 4, 5), grid])
    ms("GatherND", [f32(2, 3), np.array([[0, 1], [1, 2]], np.int64)])
    unique = RNG.integers(0, 4, 9).astype(np.float32)
    ms("Unique", [unique], outputs=3)
    ms("CDist", [f32(3, 4), f32(5, 4)], attrs={"metric": "euclidean"}, atol=1e-4)


def test_crop_and_resize() -> None:
    rois = np.array([[0.1, 0.1, 0.8, 0.9], [0.0, 0.2, 1.1, 0.7]], np.float32)
    index, size = np.array([0, 1], np.int32), np.array([3, 4], np.int32)
    for mode in ("bilinear", "nearest"):
        ms(
            "CropAndResize",
            [f32(2, 3, 6, 7), rois, index, size],
            attrs={"mode": mode, "extrapolation_value": 0.5},
            constants=[3],
        )


def test_bifurcation() -> None:
    tokens = [np.array([1, 2, 3, 4, 5, 1, 2], np.int64), np.array([9, 1, 2], np.int64)]
    start = np.array(0, np.int64)
    ms("BifurcationDetector", [*tokens, start, np.array([1, 2, 7, 4, 5, 1, 2, 3])], outputs=2)


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("mask", [None, "lengths", "keys"])
@pytest.mark.parametrize("attrs", [{}, {"unidirectional": 1}, {"scale": 0.2}])
def test_attention(past: int, mask: str | None, attrs: dict[str, Any]) -> None:
    index = None
    if mask == "lengths":
        index = np.array([3 + past, 2 + past], np.int32)
    elif mask == "keys":
        index = np.ones((2, 3 + past), np.int32)
        index[1, -1] = 0
    state = f32(2, 2, 2, past, 8) if past else None
    x = [f32(2, 3, 16), f32(16, 48), f32(48), index, state]
    while x[-1] is None:
        x.pop()
    options = {"attrs": {"num_heads": 2, **attrs}, "constants": [1, 2], "atol": 1e-4}
    source = ms("Attention", x, outputs=2 if past else 1, **options)
    assert source.count("\ndef ") == 1  # that of load
    assert source.count("nn.Linear(16, 48)") == source.count("scaled_dot_product_attention") == 1


@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("axes", [3, 4])
def test_attention_with_masks_of_more_axes(past: int, unidirectional: int, axes: int) -> None:
    """ONNX Runtime's CPU kernel takes no mask of four: the helper for unknown ranks is asked."""
    total = 3 + past
    shape = (2, 3, total) if axes == 3 else (2, 1, 9, 9)
    mask = (RNG.random(shape) < 0.7).astype(np.int32)
    x = [f32(2, 3, 16), f32(16, 48), f32(48), mask, f32(2, 2, 2, past, 8) if past else None]
    attrs = {"num_heads": 2, "unidirectional": unidirectional}
    inputs = x if past else x[:4]
    model, feeds = node_model(
        "Attention", inputs, opset=1, domain="com.microsoft", attrs=attrs, constants=[1, 2]
    )
    y = onnx2nn.load(model)(*(torch.from_numpy(v) for v in feeds.values()))
    given = [None if v is None else torch.from_numpy(v) for v in x]
    expected, _ = ms_attention(*given, **attrs)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "cross", "past", "bias"])
def test_multi_head_attention(form: str) -> None:
    q, k, v = f32(2, 3, 16), f32(2, 3, 16), f32(2, 3, 16)
    x: list[Array | None] = [q, k, v]
    if form == "cross":
        x = [q, f32(2, 2, 5, 8), f32(2, 2, 5, 8)]
    elif form == "past":
        x = [q, k, v, None, None, None, f32(2, 2, 4, 8), f32(2, 2, 4, 8)]
    elif form == "bias":
        x = [q, k, v, f32(48), np.array([3, 2], np.int32), f32(2, 2, 3, 3)]
    outputs = 3 if form == "past" else 1
    ms("MultiHeadAttention", x, outputs=outputs, attrs={"num_heads": 2}, atol=1e-4)


@pytest.mark.parametrize("past", [0, 5])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "attrs", [{}, {"do_rotary": 1}, {"local_window_size": 3}, {"softcap": 2.0}]
)
def test_group_query_attention(past: int, packed: bool, attrs: dict[str, Any]) -> None:
    length = 1 if past else 6
    total = past + length
    x: list[Array | None] = [f32(2, length, 64), f32(2, length, 32), f32(2, length, 32)]
    if packed:
        x = [f32(2, length, 128), None, None]
    cache = [f32(2, 2, past, 16), f32(2, 2, past, 16)] if past else [None, None]
    x += [*cache, np.full(2, total - 1, np.int32), np.array(total, np.int32)]
    if attrs.get("do_rotary"):
        x += [f32(16, 8), f32(16, 8)]
    attrs = {"num_heads": 4, "kv_num_heads": 2, **attrs}
    ms("GroupQueryAttention", x, outputs=3, attrs=attrs, atol=1e-4)


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(offset: bool, interleaved: int) -> None:
    ids = np.array([2]) if offset else RNG.integers(0, 10, (2, 3))
    x = [f32(2, 3, 32), ids.astype(np.int64), f32(10, 4), f32(10, 4)]
    ms("RotaryEmbedding", x, attrs={"interleaved": interleaved}, constants=[2, 3])


@pytest.mark.parametrize("segments", [False, True])
def test_embed_layer_norm(segments: bool) -> None:
    ids = RNG.integers(0, 10, (2, 4)).astype(np.int32)
    kinds = RNG.integers(0, 2, (2, 4)).astype(np.int32) if segments else None
    table = f32(2, 8) if segments else None
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
    x = [ids, kinds, f32(10, 8), f32(6, 8), table, f32(8), f32(8), mask]
    weights = [2, 3, 5, 6] + ([4] if segments else [])
    ms("EmbedLayerNormalization", x, outputs=2, constants=weights, atol=1e-4)


def test_experts() -> None:
    x = [f32(6, 32), f32(6, 4), f32(4, 16, 32), f32(4, 16), f32(4, 32, 16), f32(4, 32)]
    ms("MoE", x, attrs={"k": 2, "activation_type": "silu"}, constants=[2, 3, 4, 5], atol=1e-3)
    sizes = [u8(4, 32, 16), (RNG.random((4, 32)) * 0.1).astype(np.float32)]
    q = [f32(6, 32), f32(6, 4), *sizes, None, *sizes]
    ms("QMoE", q, attrs={"k": 1}, constants=[2, 3, 5, 6], atol=1e-2, rtol=1e-3)


# ---------------------------------------------------------------- quantised


def quantised(*shape: int) -> list[Array]:
    return [u8(*shape), scale(0.02), zero(120)]


def test_qlinear_elementwise() -> None:
    out = [scale(0.05), zero(100)]
    ms("QLinearAdd", [*quantised(2, 3), *quantised(3), *out], constants=[1, 2, 4, 5, 6, 7])
    ms("QLinearMul", [*quantised(2, 3), *quantised(2, 1), *out])
    ms("QLinearSigmoid", [*quantised(2, 30), scale(1 / 256), zero(0)])
    ms("QLinearLeakyRelu", [*quantised(2, 30), *out], attrs={"alpha": 0.2})
    softmax = {"opset": 13, "axis": -1}
    ms("QLinearSoftmax", [*quantised(2, 30), scale(1 / 256), zero(0)], attrs=softmax)
    ms("QLinearConcat", [*out, *quantised(2, 3), *quantised(2, 5)], attrs={"axis": 1})
    condition = RNG.random((2, 3)) > 0.5
    ms("QLinearWhere", [condition, *quantised(2, 3), *quantised(3), *out])


@pytest.mark.parametrize("last", [0, 1])
def test_qlinear_pools(last: int) -> None:
    shape = (1, 6, 6, 3) if last else (1, 3, 6, 6)
    out = [scale(0.03), zero(110)]
    attrs = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "channels_last": last}
    ms("QLinearAveragePool", [*quantised(*shape), *out], attrs=attrs)
    ms("QLinearGlobalAveragePool", [*quantised(*shape), *out], attrs={"channels_last": last})


@pytest.mark.parametrize("last", [0, 1])
def test_qlinear_conv(last: int) -> None:
    shape = (1, 6, 6, 3) if last else (1, 3, 6, 6)
    x = [
        *quantised(*shape),
        int8_weights(RNG, 4, 3, 3, 3),
        scale(0.01),
        zero(0, np.int8),
        scale(1.5),
        zero(128),
    ]
    ms("QLinearConv", x, attrs={"channels_last": last, "pads": [1] * 4}, constants=[3])


def test_quantised_products() -> None:
    a, b = quantised(3, 8), [int8_weights(RNG, 8, 5), scale(0.01), zero(3, np.int8)]
    bias = RNG.integers(-9, 9, 5).astype(np.int32)
    ms("QGemm", [*a, *b, bias, scale(0.5), zero(128)], constants=[3, 4, 5, 6])
    ms("QGemm", [*a, *b], atol=1e-4)
    floats = [f32(5)]
    order = [a[0], b[0], a[1], b[1], a[2], b[2], *floats]
    ms("MatMulIntegerToFloat", order, atol=1e-4)
    ms("DynamicQuantizeMatMul", [f32(3, 8), b[0], b[1], b[2], *floats], constants=[1], atol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_matmul_nbits(bits: int, zeros: bool) -> None:
    n, k, block = 6, 64, 32
    blocks = k // block
    x: list[Array] = [f32(2, 3, k), u8(n, blocks, block * bits // 8)]
    x.append((RNG.random((n, blocks)) * 0.1).astype(np.float32))
    if zeros:
        x.append(u8(n, -(-blocks * bits // 8)))
    attrs = {"K": k, "N": n, "block_size": block, "bits": bits}
    text = ms("MatMulNBits", x, attrs=attrs, constants=list(range(1, len(x))), atol=1e-3)
    # Of two bits the helper reads what is packed; other weights are packed in the file alone.
    assert ("torch.uint8" if bits == 2 else "nn.Linear(") in text


@pytest.mark.parametrize("bits", [4, 8])
def test_gather_block_quantized(bits: int) -> None:
    data = u8(10, 64 * bits // 8)
    scales = (RNG.random((10, 4)) * 0.1).astype(np.float32)
    ids = RNG.integers(0, 10, (2, 3)).astype(np.int64)
    attrs = {"block_size": 16, "bits": bits, "gather_axis": 0, "quantize_axis": 1}
    ms("GatherBlockQuantized", [data, ids, scales], attrs=attrs, constants=[0, 2])


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_dynamic_quantize_lstm(direction: str) -> None:
    n = 2 if direction == "bidirectional" else 1
    w, r = int8_weights(RNG, n, 4, 12), int8_weights(RNG, n, 3, 12)
    scales = [np.full(n, 0.01, np.float32), np.zeros(n, np.int8)]
    x = [f32(5, 2, 4), w, r, f32(n, 24), None, None, None, None, *scales, *scales]
    attrs = {"direction": direction, "hidden_size": 3}
    ms("DynamicQuantizeLSTM", x, outputs=3, attrs=attrs, constants=[1, 2, 3], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_quantize_linear(dtype: Any) -> None:
    ms("QuantizeLinear", [f32(2, 3), scale(0.01), zero(3, dtype)])
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, (2, 3)).astype(dtype)
    ms("DequantizeLinear", [x, np.array([0.1, 0.2, 0.3], np.float32), zero(1, dtype).repeat(3)])


def test_sources_read_well() -> None:
    x = [f32(2, 3, 8), f32(2, 3, 8), f32(8), f32(8)]
    model, _ = node_model(
        "SkipLayerNormalization", x, opset=1, domain="com.microsoft", constants=[2, 3]
    )
    assert "self.layer_norm_1(x0 + x1)" in source_of(model)


def test_mean_of_simplified_norm_is_zero() -> None:
    x = [f32(2, 3, 8), f32(2, 3, 8), f32(8)]
    ms("SkipSimplifiedLayerNormalization", x, outputs=4, attrs={"epsilon": 1e-5})


def test_weight_without_axes() -> None:
    """A product whose first factor is missing, and whose weight is a number: no crash."""
    model, _ = node_model(
        "FusedGemm", [None, scale(1.0), f32(2)], opset=1, constants=[1], domain="com.microsoft"
    )
    native.convert(model.SerializeToString(), {})
