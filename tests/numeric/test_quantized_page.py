"""Quantised networks: their pages, their weights in integers, and that they can be fine-tuned."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

import onnx2nn
from pages import imported

from .harness import Array, expected_outputs


class Builder:
    """Nodes, constants and quantisers of a graph; `quantised` False leaves the latter out."""

    def __init__(self, quantised: bool) -> None:
        self.rng = np.random.default_rng(3)
        self.quantised = quantised
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def activation(self, x: str, scale: float, zero: int) -> str:
        if not self.quantised:
            return x
        self.constants |= {f"{x}_scale": np.float32(scale), f"{x}_zero": np.uint8(zero)}
        args = [f"{x}_scale", f"{x}_zero"]
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [x, *args]), *args])

    def weight(self, name: str, shape: list[int], axis: int | None = 0, zero: int = 0) -> str:
        """A weight of int8 with a scale for each slice along `axis`, or one for all."""
        integers = self.rng.integers(-127, 128, shape).astype(np.int8)
        count = [] if axis is None else [shape[axis]]
        scale = (self.rng.random(count) * 0.002 + 0.001).astype(np.float32)
        broadcast = scale if axis is None else scale.reshape([-1] + [1] * (len(shape) - 1 - axis))
        if not self.quantised:
            self.constants[name] = ((integers.astype(np.float32) - zero) * broadcast).astype("f4")
            return name
        self.constants[f"{name}_quantized"] = integers
        self.constants[f"{name}_scale"] = scale
        self.constants[f"{name}_zero"] = np.full(count, zero, np.int8)
        return self.add(
            "DequantizeLinear",
            [f"{name}_quantized", f"{name}_scale", f"{name}_zero"],
            **({} if axis is None else {"axis": axis}),
        )

    def bias(self, name: str, size: int) -> str:
        integers = self.rng.integers(-900, 900, size).astype(np.int32)
        scale = np.full(size, 1e-4, np.float32)
        if not self.quantised:
            self.constants[name] = integers.astype(np.float32) * scale
            return name
        self.constants |= {f"{name}_quantized": integers, f"{name}_scale": scale}
        return self.add("DequantizeLinear", [f"{name}_quantized", f"{name}_scale"], axis=0)

    def model(self, y: str, shape: list[int]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in self.constants.items()],
        )
        imports = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def network(quantised: bool) -> onnx.ModelProto:
    """A classifier of four convolutions, one of them in a residual block."""
    b = Builder(quantised)
    x = b.activation("image", 0.02, 128)
    for i, (inner, outer, stride) in enumerate([(3, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2)]):
        w = b.weight(f"layers.{i}.conv.weight", [outer, inner, 3, 3])
        bias = b.bias(f"layers.{i}.conv.bias", outer)
        y = b.add("Conv", [x, w, bias], pads=[1] * 4, strides=[stride] * 2)
        y = b.activation(b.add("Relu", [y]), 0.01, 0)
        x = b.activation(b.add("Add", [x, y]), 0.015, 0) if inner == outer else y
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x])])
    w = b.weight("head.weight", [10, 32])
    return b.model(b.add("Gemm", [x, w, b.bias("head.bias", 10)], transB=1), [3, 16, 16])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The ONNX file of the quantised network, and the module of its written source."""
    folder = tmp_path_factory.mktemp("quantised")
    onnx.save(network(True), str(folder / "net.onnx"))
    onnx2nn.convert(folder / "net.onnx", folder / "net.py")
    return folder / "net.onnx", imported(folder / "net.py")


def images() -> Array:
    return np.random.default_rng(5).normal(size=(4, 3, 16, 16)).astype(np.float32)


def test_a_quantised_page_is_about_as_long_as_the_float_one() -> None:
    quantised = onnx2nn.convert(network(True).SerializeToString()).source
    plain = onnx2nn.convert(network(False).SerializeToString()).source
    assert quantised.count("\n") <= 1.5 * plain.count("\n")
    assert "float8" not in quantised
    assert quantised.count("nn.Conv2d(") == plain.count("nn.Conv2d(")
    assert quantised.count("nn.Linear(") == plain.count("nn.Linear(")


def test_written_and_loaded_modules_give_the_oracles_answer(written: tuple[Path, Any]) -> None:
    path, module = written
    (expected,) = expected_outputs(onnx.load(str(path)), {"image": images()})
    loaded, read = onnx2nn.load(path), module.load()
    y = loaded(torch.from_numpy(images()))
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(y, read(torch.from_numpy(images())))
    for key, tensor in read.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_weights_stay_integers_in_the_file_and_are_parameters(written: tuple[Path, Any]) -> None:
    path, module = written
    state = load_file(path.with_suffix(".safetensors"))
    float_state = onnx2nn.load(network(False)).state_dict()
    net = module.load()
    assert set(net.state_dict()) == set(float_state)
    for key, parameter in net.named_parameters():
        assert state[key].dtype == (torch.int8 if key.endswith("weight") else torch.int32)
        assert torch.equal(parameter, float_state[key]), key
    assert set(state) == {k + end for k in float_state for end in ("", ".scale")}
    assert not list(net.buffers())


def test_weights_may_stay_integers_in_memory(written: tuple[Path, Any]) -> None:
    x = torch.from_numpy(images())
    packed = onnx2nn.load(written[0], keep_quantized=True)
    assert torch.equal(packed(x), onnx2nn.load(written[0])(x))
    assert not list(packed.parameters())
    assert {b.dtype for b in packed.buffers()} == {torch.int8, torch.int32, torch.float32}
    with pytest.raises(TypeError, match="keep_quantized"):
        onnx2nn.load(written[0], keep_quantized="yes")  # type: ignore[arg-type]


def test_a_quantised_network_can_be_fine_tuned(written: tuple[Path, Any]) -> None:
    net = written[1].load().train()
    x, target = torch.from_numpy(images()), torch.tensor([1, 2, 3, 4])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("zero", [0, 3])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize(
    "op", ["MatMul", "Gemm", "ConvTranspose", "Shared", "Add", "Second", "Gather"]
)
def test_weights_of_every_layout(op: str, axis: int | None, zero: int) -> None:
    """Transposed, shared by two readers of their own node, and read by no module."""
    b = Builder(True)
    shape = [8, 6, 3, 3] if op == "ConvTranspose" else [8, 8] if op == "Shared" else [8, 6]
    w = b.weight("w.weight", shape, axis, zero)
    if op == "ConvTranspose":
        image = b.add("Reshape", ["image", "shape"])
        b.constants["shape"] = np.array([-1, 8, 1, 1])
        y = b.add("ConvTranspose", [image, w])
    elif op == "Shared":
        again = b.nodes[0]
        second = b.add("DequantizeLinear", list(again.input))
        b.nodes[-1].attribute.extend(again.attribute)
        y = b.add("MatMul", [b.add("MatMul", ["image", w]), second])
    elif op == "Second":
        y = b.add("Add", [b.add("MatMul", ["image", w]), b.add("ReduceSum", [w], keepdims=0)])
    elif op == "Gather":
        y = b.add("Gather", [w, b.add("Cast", ["image"], to=TensorProto.INT64)])
    elif op == "Add":
        y = b.add("MatMul", ["image", b.add("Mul", [w, w])])
    else:
        y = b.add(op, ["image", w])
    model = b.model(y, [8])
    x = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    (expected,) = expected_outputs(model, {"image": x})
    for simplify in (True, False):
        net = onnx2nn.load(model, simplify=simplify)
        np.testing.assert_allclose(
            net(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-6
        )
        assert sum(p.numel() for p in net.parameters()) == np.prod(shape)
