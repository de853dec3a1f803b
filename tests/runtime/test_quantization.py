"""Quantisation helpers against ONNX's node cases."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx.backend.test.case.test_case import TestCase

from int8_weights import int8_weights
from onnx2nn.runtime import packed_weights, qlinear
from onnx2nn.runtime import quantization as qz

from . import ort_nodes as ort
from . import tensor_cases as tc

RNG = np.random.default_rng(7)


def test_fake_quantize_rounds_as_onnx_does() -> None:
    """Every step, halves between them and what saturates; its gradient is 1 inside and 0 outside."""
    x = np.concatenate([np.arange(-400, 400) * np.float32(0.0625), RNG.normal(0, 20, 1000)])
    x = np.append(x, [np.inf, -np.inf, -0.0]).astype(np.float32)
    for scale, zero, low in [(0.125, 3, 0), (0.1, 128, 0), (0.0123, 0, 0), (0.1, -7, -128)]:
        quantum, high = np.float32(scale), low + 255
        steps = np.clip(np.rint(x / quantum) + zero, low, high)
        expected = (steps.astype(np.int32) - zero).astype(np.float32) * quantum
        tensor = torch.from_numpy(x).requires_grad_()
        if low == 0:
            y = qz.fake_quantize_between(tensor, float(quantum), zero, low, high)
        else:
            y = qz.fake_quantize(tensor, float(quantum), zero)
        assert y.detach().numpy().tobytes() == expected.tobytes()
        y.sum().backward()
        inside = (x / quantum >= low - zero) & (x / quantum <= high - zero)
        assert torch.equal(tensor.grad, torch.from_numpy(inside.astype(np.float32)))


@pytest.mark.parametrize("stored", [torch.int8, torch.uint8, torch.int32])
def test_dequantized_takes_up_scales_and_zero_points(stored: torch.dtype) -> None:
    weight = torch.arange(6, dtype=stored).reshape(2, 3)
    scale = torch.tensor([[0.5], [0.25]])
    state = {"a.weight": weight, "a.weight.scale": scale, "norm.scale": scale, "index": weight}
    expected = weight.float() * scale
    if stored != torch.int32:
        state["a.weight.zero_point"] = torch.tensor([[1], [2]], dtype=stored)
        expected = (weight.float() - torch.tensor([[1.0], [2.0]])) * scale
    got = qz.dequantized(state, {"a.weight": torch.empty(2, 3, device="meta")})
    assert list(got) == ["a.weight", "norm.scale", "index"]
    assert torch.equal(got["a.weight"], expected)


@pytest.mark.parametrize("packed", [torch.int8, torch.uint8])
def test_dequantized_unpacks_four_bits_and_blocks(packed: torch.dtype) -> None:
    low = -8 if packed == torch.int8 else 0
    whole = torch.arange(32).reshape(2, 16) % 16 + low
    stored = ((whole[:, ::2] & 15) | (whole[:, 1::2] & 15) << 4).to(torch.uint8).view(packed)
    scale, zero = torch.rand(2, 4), torch.randint(low, low + 16, (2, 4), dtype=packed)
    state = {"w": stored, "w.scale": scale, "w.zero_point": zero}
    got = qz.dequantized(state, {"w": torch.empty(2, 16, device="meta")})["w"]
    spread = [t.float().repeat_interleave(4, 1) for t in (zero, scale)]
    assert torch.equal(got, (whole - spread[0]) * spread[1])


HELPERS = {
    "QLinearMatMul": qlinear.qlinear_matmul,
    "MatMulInteger": qz.matmul_integer,
    "DynamicQuantizeLinear": qz.dynamic_quantize_linear,
}


@pytest.mark.parametrize("case", **tc.named(tc.cases_of(*HELPERS)))
def test_node_case(case: TestCase) -> None:
    tc.check(case, lambda v, a: HELPERS[case.model.graph.node[0].op_type](*v))


def random_integers(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


def f32(value: Any) -> np.ndarray:
    return np.array(value, np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_qlinear_binary(op: str, dtype: Any) -> None:
    zero = [np.array(v, dtype) for v in (3, 100, 20)]
    a, b = random_integers(2, 3, 8, dtype=dtype), random_integers(3, 1, dtype=dtype)
    x = [a, f32(0.02), zero[0], b, f32(0.03), zero[1], f32(0.05), zero[2]]
    helper = qlinear.qlinear_add if op == "QLinearAdd" else qlinear.qlinear_mul
    ort.assert_close(helper(*ort.tensors(x)), ort.run_node(op, x)[0])


@pytest.mark.parametrize("axis", [1, -1])
def test_qlinear_concat(axis: int) -> None:
    x = [f32(0.04), np.uint8(9)]
    for scale, zero in ((0.02, 4), (0.05, 200)):
        x += [random_integers(2, 3, 3), f32(scale), np.uint8(zero)]
    x = [np.asarray(v) for v in x]
    wanted = ort.run_node("QLinearConcat", x, axis=axis)[0]
    ort.assert_close(qlinear.qlinear_concat(*ort.tensors(x), axis=axis), wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_qlinear_activations(dtype: Any) -> None:
    zero = np.array(3, dtype), np.array(-5 if dtype == np.int8 else 5, dtype)
    x = [random_integers(3, 33, dtype=dtype), f32(0.03), zero[0], f32(0.01), zero[1]]
    t = ort.tensors(x)
    ort.assert_close(qlinear.qlinear_sigmoid(*t), ort.run_node("QLinearSigmoid", x)[0])
    wanted = ort.run_node("QLinearLeakyRelu", x, alpha=0.1)[0]
    ort.assert_close(qlinear.qlinear_leaky_relu(*t, alpha=0.1), wanted)


@pytest.mark.parametrize("opset", [12, 13])
@pytest.mark.parametrize("axis", [1, -1])
def test_qlinear_softmax(opset: int, axis: int) -> None:
    x = [random_integers(2, 3, 5), f32(0.02), np.uint8(7), f32(1 / 256), np.uint8(0)]
    x = [np.asarray(v) for v in x]
    wanted = ort.run_node("QLinearSoftmax", x, extra={"opset": opset}, axis=axis)[0]
    got = qlinear.qlinear_softmax(*ort.tensors(x), opset=opset, axis=axis)
    ort.assert_close(got, wanted)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"kernel_shape": [2, 3], "ceil_mode": 1, "strides": [2, 2]},
        {"kernel_shape": [2, 2], "channels_last": 1},
    ],
)
def test_qlinear_average_pool(attributes: dict[str, Any]) -> None:
    shape = (2, 7, 8, 3) if attributes.get("channels_last") else (2, 3, 7, 8)
    x = [
        random_integers(*shape),
        f32(0.02),
        np.array(7, np.uint8),
        f32(0.03),
        np.array(5, np.uint8),
    ]
    wanted = ort.run_node("QLinearAveragePool", x, **attributes)[0]
    ort.assert_close(qlinear.qlinear_average_pool(*ort.tensors(x), **attributes), wanted)


@pytest.mark.parametrize("channels_last", [0, 1])
def test_qlinear_global_average_pool(channels_last: int) -> None:
    x = [random_integers(2, 3, 4, 5), f32(0.02), np.uint8(7), f32(0.01), np.uint8(5)]
    x = [np.asarray(v) for v in x]
    wanted = ort.run_node("QLinearGlobalAveragePool", x, channels_last=channels_last)[0]
    got = qlinear.qlinear_global_average_pool(*ort.tensors(x), channels_last=channels_last)
    ort.assert_close(got, wanted)


@pytest.mark.parametrize("trans", [(0, 0), (1, 1)])
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("per_column", [False, True])
def test_qgemm(trans: tuple[int, int], quantised: bool, per_column: bool) -> None:
    a = random_integers(*((4, 5)[:: -1 if trans[0] else 1]))
    b = int8_weights(RNG, *((5, 6)[:: -1 if trans[1] else 1]))
    b_scale = f32(RNG.random(6)) if per_column else f32(0.02)
    b_zero = random_integers(6, dtype=np.int8) if per_column else np.array(3, np.int8)
    c = RNG.integers(-100, 100, 6).astype(np.int32)
    x = [a, f32(0.03), np.array(9, np.uint8), b, b_scale, b_zero, c]
    if quantised:
        x += [f32(0.7), np.array(128, np.uint8)]
    options = {"transA": trans[0], "transB": trans[1], "alpha": 1.5}
    wanted = ort.run_node("QGemm", x, **options)[0]
    ort.assert_close(qlinear.qgemm(*ort.tensors(x), **options), wanted)


@pytest.mark.parametrize("per_column", [False, True])
def test_integer_products_to_float(per_column: bool) -> None:
    b = int8_weights(RNG, 2, 5, 6)
    scale = f32(RNG.random((2, 1, 6))) if per_column else f32([0.02])
    zero = random_integers(2, 1, 6, dtype=np.int8) if per_column else np.array([4], np.int8)
    if per_column:
        b, scale, zero = b[0], scale[0, 0], zero[0, 0]
    bias = f32(RNG.random(6))
    a = random_integers(2, 4, 5)
    x = [a, b, f32([0.1]), scale, np.array([7], np.uint8), zero, bias]
    wanted = ort.run_node("MatMulIntegerToFloat", x)[0]
    ort.assert_close(qz.matmul_integer_to_float(*ort.tensors(x)), wanted)
    x = [f32(RNG.normal(size=(2, 4, 5))), b, scale, zero, bias]
    wanted = ort.run_node("DynamicQuantizeMatMul", x)[0]
    ort.assert_close(qz.dynamic_quantize_matmul(*ort.tensors(x)), wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("zero", [0, 1, 77])
def test_qlinear_add_decides_halves_as_onnx_runtime_does(dtype: type, zero: int) -> None:
    """Where the sum's step is twice that of the parts, half of all sums lie between two integers."""
    every = np.arange(256).astype(dtype)
    a, b = (x.ravel() for x in np.meshgrid(every, every))
    one, two = np.float32(0.03125), np.float32(0.0625)
    zeros = [np.array(z, dtype) for z in (3, 5, zero)]
    x = [a, one, zeros[0], b, one, zeros[1], two, zeros[2]]
    wanted = ort.run_node("QLinearAdd", [np.asarray(v) for v in x])[0]
    ort.assert_close(qlinear.qlinear_add(*ort.tensors([np.asarray(v) for v in x])), wanted, 0)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("grouped", [False, True])
def test_matmul_nbits(bits: int, zeros: str, grouped: bool) -> None:
    if grouped and (bits == 2 or zeros == "packed"):
        pytest.skip("ONNX Runtime's CPU kernel takes g_idx with neither 2 bits nor zero points")
    n, k, block = 6, 40, 16
    blocks = -(-k // block)
    packed = random_integers(n, blocks, block * bits // 8)
    scales = f32(RNG.random(n * blocks) + 0.1)
    zero_points = None
    if zeros == "packed":
        zero_points = random_integers(n * -(-blocks * bits // 8))
    elif zeros == "float":
        zero_points = f32(RNG.random(n * blocks) * 3)
    g_idx = RNG.integers(0, blocks, blocks * block).astype(np.int32) if grouped else None
    x = [f32(RNG.normal(size=(2, 3, k))), packed, scales, zero_points, g_idx, f32(RNG.random(n))]
    options = {"K": k, "N": n, "block_size": block, "bits": bits}
    try:
        wanted = ort.run_node("MatMulNBits", x, **options)[0]
    except Exception as error:
        pytest.skip(f"ONNX Runtime refuses it: {str(error)[:80]}")
    ort.assert_close(packed_weights.matmul_nbits(*ort.tensors(x), **options), wanted, 1e-4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("index_shape", [(2, 3), ()])
def test_gather_block_quantized(bits: int, zeros: bool, index_shape: tuple[int, ...]) -> None:
    rows, columns, block = 5, 32, 16
    data = random_integers(rows, columns * bits // 8)
    scales = f32(RNG.random((rows, columns // block)) + 0.1)
    zero_points = random_integers(rows, -(-columns // block * bits // 8)) if zeros else None
    indices = RNG.integers(0, rows, index_shape).astype(np.int64)
    x = [data, indices, scales, zero_points]
    options = {"gather_axis": 0, "quantize_axis": 1, "block_size": block, "bits": bits}
    wanted = ort.run_node("GatherBlockQuantized", x, **options)[0]
    got = packed_weights.gather_block_quantized(*ort.tensors(x), **options, packed=True)
    ort.assert_close(got, wanted)


@pytest.mark.parametrize("signed", [False, True])
def test_gather_block_quantized_by_nibbles(signed: bool) -> None:
    name = "int4" if signed else "uint4"
    low = -8 if signed else 0
    data = RNG.integers(low, low + 16, (5, 32))
    zero_points = RNG.integers(low, low + 16, (5, 2))
    scales, indices = f32(RNG.random((5, 2)) + 0.1), np.array([[0, 4, 2]])
    element = getattr(ml_dtypes, name)
    wanted = (data - zero_points.repeat(16, 1)).astype(np.float32) * scales.repeat(16, 1)
    carried = np.int8 if signed else np.uint8
    assert data.astype(element).astype(carried).tolist() == data.tolist()
    x = [data.astype(carried), indices, scales, zero_points.astype(carried)]
    got = packed_weights.gather_block_quantized(*ort.tensors(x), block_size=16)
    ort.assert_close(got, wanted[indices])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("full", [False, True])
def test_dynamic_quantize_lstm(direction: str, per_channel: bool, batch: int, full: bool) -> None:
    count, steps, size, hidden = (2 if direction == "bidirectional" else 1), 4, 5, 8

    def scale() -> np.ndarray:
        return f32(RNG.random((count, 4 * hidden) if per_channel else count) * 0.004 + 0.001)

    def zero() -> np.ndarray:
        shape = (count, 4 * hidden) if per_channel else (count,)
        return np.zeros(shape, np.int8) if per_channel else random_integers(*shape, dtype=np.int8)

    def real(*shape: int) -> np.ndarray | None:
        return f32(RNG.normal(size=shape)) if full else None

    x = [
        f32(RNG.normal(size=(steps, batch, size))),
        int8_weights(RNG, count, size, 4 * hidden),
        int8_weights(RNG, count, hidden, 4 * hidden),
        real(count, 8 * hidden),
        np.array([4, 2, 3][:batch], np.int32) if full else None,
        real(count, batch, hidden),
        real(count, batch, hidden),
        real(count, 3 * hidden),
        scale(),
        zero(),
        scale(),
        zero(),
    ]
    options = {"hidden_size": hidden, "direction": direction}
    wanted = ort.run_node("DynamicQuantizeLSTM", x, 3, **options)
    got = qz.dynamic_quantize_lstm(*ort.tensors(x), direction=direction)
    for y, z in zip(got, wanted):
        # A hidden state on the edge between two integers may go either way.
        ort.assert_close(y, z, 5e-3)
