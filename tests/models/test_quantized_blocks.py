"""Weights of four and eight bits in blocks: layers of them, packed in the file; scales without end."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from torch import nn

import onnx2nn

RNG = np.random.default_rng(0)
BLOCK = 16


def saved(
    path: Path,
    nodes: list[Any],
    weights: list[Any],
    ids: bool = False,
    domains: tuple[tuple[str, int], ...] = (("", 21), ("com.microsoft", 1)),
) -> Path:
    given = (
        helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 5])
        if ids
        else helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5, 32])
    )
    graph = helper.make_graph(
        nodes,
        "blocks",
        [given],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    opsets = [helper.make_opsetid(d, v) for d, v in domains]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def floats(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)


def four_bits(name: str, *shape: int, signed: bool = False) -> Any:
    count = int(np.prod(shape))
    data = RNG.integers(0, 256, count // 2, dtype=np.uint8).tobytes()
    return helper.make_tensor(
        name, TensorProto.INT4 if signed else TensorProto.UINT4, shape, data, raw=True
    )


def scales(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(RNG.uniform(0.01, 0.1, shape).astype(np.float32), name)


def packed_bytes(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(RNG.integers(0, 256, shape, dtype=np.uint8), name)


def nbits(
    path: Path, *, bits: int = 4, zeros: bool = False, bias: bool = False, level: int = 0
) -> Path:
    blocks = 32 // BLOCK
    weights = [
        packed_bytes("fc.weight_Q4", 24, blocks, BLOCK * bits // 8),
        scales("fc.weight_Q4_scales", 24 * blocks),
    ]
    inputs = ["x", "fc.weight_Q4", "fc.weight_Q4_scales", "", "", ""]
    if zeros:
        weights.append(packed_bytes("zeros", 24 * blocks * bits // 8))
        inputs[3] = "zeros"
    if bias:
        weights.append(floats("fc.bias", 24))
        inputs[5] = "fc.bias"
    while not inputs[-1]:
        inputs.pop()
    attributes = {"K": 32, "N": 24, "bits": bits, "block_size": BLOCK, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **attributes)
    return saved(path, [node], weights)


def gemm_of_blocks(path: Path, *, signed: bool) -> Path:
    weights = [
        four_bits("fc.weight", 24, 32, signed=signed),
        scales("scale", 24, 2),
        four_bits("zero", 24, 2, signed=signed),
        floats("fc.bias", 24),
    ]
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["fc.weight", "scale", "zero"], ["w"], axis=1, block_size=BLOCK
        ),
        helper.make_node("Flatten", ["x"], ["flat"], axis=2),
        helper.make_node("Gemm", ["flat", "w", "fc.bias"], ["y"], transB=1),
    ]
    return saved(path, nodes, weights)


def product_of_blocks(path: Path) -> Path:
    """The weight lies the other way round, which packed elements cannot."""
    weights = [four_bits("w4", 32, 24, signed=True), scales("scale", 2, 24)]
    nodes = [
        helper.make_node("DequantizeLinear", ["w4", "scale"], ["w"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return saved(path, nodes, weights)


def table(path: Path, *, packed: bool) -> Path:
    weights = [
        packed_bytes("embed.weight", 50, 16) if packed else four_bits("embed.weight", 50, 32),
        scales("embed.scale", 50, 2),
    ]
    node = helper.make_node(
        "GatherBlockQuantized",
        ["embed.weight", "x", "embed.scale"],
        ["y"],
        domain="com.microsoft",
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    return saved(path, [node], weights, ids=True)


CASES: dict[str, Any] = {
    "nbits": nbits,
    "nbits, zero points": lambda p: nbits(p, zeros=True),
    "nbits, bias": lambda p: nbits(p, zeros=True, bias=True),
    "nbits, rounded rows": lambda p: nbits(p, level=4),
    "nbits of a byte": lambda p: nbits(p, bits=8, zeros=True),
    "gemm": lambda p: gemm_of_blocks(p, signed=False),
    "gemm, signed": lambda p: gemm_of_blocks(p, signed=True),
    "product": product_of_blocks,
    "table, packed": lambda p: table(p, packed=True),
    "table": lambda p: table(p, packed=False),
}


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, CASES[request.param](tmp_path / "m.onnx")


def drawn(case: str) -> torch.Tensor:
    if case.startswith("table"):
        return torch.from_numpy(RNG.integers(0, 50, (3, 5)))
    return torch.from_numpy(RNG.normal(size=(3, 5, 32)).astype(np.float32))


def test_they_are_layers(model: tuple[str, Path], tmp_path: Path) -> None:
    case, path = model
    source = onnx2nn.convert(path, tmp_path / "net.py").source
    kind = nn.Embedding if case.startswith("table") else nn.Linear
    assert f"nn.{kind.__name__}(" in source
    for helper_ in ("matmul_nbits", "gather_block", "unpack_bits"):
        assert helper_ not in source
    loaded = onnx2nn.load(path)
    x = drawn(case)
    # Its own products in blocks round the other factor.
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    want = onnxruntime.InferenceSession(path, plain).run(None, {"x": x.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), torch.from_numpy(want), rtol=1e-5, atol=1e-5)
    (layer,) = [m for m in loaded.modules() if isinstance(m, kind)]
    assert layer.weight.dtype == torch.float32
    loaded(drawn(case)).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


def test_four_bits_are_half_a_byte_in_the_file(model: tuple[str, Path], tmp_path: Path) -> None:
    case, path = model
    onnx2nn.convert(path, tmp_path / "net.py")
    state = load_file(tmp_path / "net.safetensors")
    (stored,) = [
        t for t in state.values() if t.dim() == 2 and not t.is_floating_point() and t.numel() > 200
    ]
    whole = case in ("nbits of a byte", "product")
    elements = 50 * 32 if case.startswith("table") else 24 * 32
    assert stored.numel() == (elements if whole else elements // 2)


def test_kept_quantized_it_gives_the_same(model: tuple[str, Path]) -> None:
    case, path = model
    x = drawn(case)
    with torch.no_grad():
        kept = onnx2nn.load(path, keep_quantized=True)
        assert not any(p.dim() == 2 for p in kept.parameters())
        assert kept(x).equal(onnx2nn.load(path)(x))


def test_a_state_dict_has_real_weights(model: tuple[str, Path], tmp_path: Path) -> None:
    case, path = model
    onnx2nn.convert(path, tmp_path / "net.pt")
    x = drawn(case)
    with torch.no_grad():
        want = onnx2nn.load(path)(x)
        assert torch.jit.load(str(tmp_path / "net.pt"))(x).allclose(want, atol=1e-5)


@pytest.mark.parametrize("zero", [-128, 5])
def test_an_infinite_scale_is_what_onnxruntime_makes_of_it(tmp_path: Path, zero: int) -> None:
    """A mask of -inf that was calibrated: all scores are lost, and what follows is finite again."""
    nodes, weights = [], []

    def rounded(name: str, scale: float, zero_point: int) -> str:
        weights.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_s"))
        weights.append(numpy_helper.from_array(np.array(zero_point, np.int8), f"{name}_z"))
        steps = [f"{name}_s", f"{name}_z"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *steps], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *steps], [f"{name}_d"]))
        return f"{name}_d"

    mask = np.where(np.tri(5, dtype=bool), 0, -np.inf).astype(np.float32)
    weights.append(
        numpy_helper.from_array(np.ascontiguousarray(mask[:, :, None].repeat(32, 2)), "mask")
    )
    nodes.append(helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1))
    nodes.append(helper.make_node("Unsqueeze", ["mean", "axis"], ["row"]))
    weights.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    nodes.append(helper.make_node("Add", ["row", "mask"], ["scores"]))
    nodes.append(helper.make_node("Softmax", [rounded("scores", np.inf, zero)], ["shares"], axis=2))
    nodes.append(helper.make_node("Identity", [rounded("shares", 1 / 255, -128)], ["y"]))
    path = saved(tmp_path / "m.onnx", nodes, weights, domains=(("", 17),))
    onnx2nn.convert(path, tmp_path / "net.py")
    report = onnx2nn.verify(path, tmp_path / "net.py", nodes="always")
    assert report.ok, report
    x = RNG.normal(size=(2, 5, 32)).astype(np.float32)
    want = onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
    np.testing.assert_array_equal(onnx2nn.load(path)(torch.from_numpy(x)).numpy(), want)
