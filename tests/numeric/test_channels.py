"""Graphs with channels last in the manner of tf2onnx: a Transpose before and after each convolution."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx2nn

RNG = np.random.default_rng(7)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


class Net:
    """Nodes one after the other, on images of 8 x 10 with three channels last."""

    def __init__(self, rank: int = 4, opset: int = 17) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rank, self.opset = rank, opset

    def weight(self, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op_type: str, *inputs: Any, outputs: int = 1, **attrs: Any) -> Any:
        given = [i if isinstance(i, str) else self.weight(i) for i in inputs]
        names = [f"y{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op_type, given, names, **attrs))
        return names[0] if outputs == 1 else names

    def first(self, x: str) -> str:
        return str(self.add("Transpose", x, perm=[0, self.rank - 1, *range(1, self.rank - 1)]))

    def last(self, x: str) -> str:
        return str(self.add("Transpose", x, perm=[0, *range(2, self.rank), 1]))

    def conv(self, x: str, inputs: int, outputs: int, **attrs: Any) -> str:
        kernel = f32(outputs, inputs, *[3] * (self.rank - 2)) / np.float32(3 * inputs**0.5)
        pads = [1] * (2 * self.rank - 4)
        return self.last(self.add("Conv", self.first(x), kernel, pads=pads, **attrs))

    def pool(self, x: str) -> str:
        pooled = self.add(
            "MaxPool",
            self.first(x),
            kernel_shape=[2] * (self.rank - 2),
            strides=[2] * (self.rank - 2),
        )
        return self.last(pooled)

    def model(self, *outputs: str, batch: Any = "n") -> onnx.ModelProto:
        shape = [batch, *[8, 10, 6][: self.rank - 2], 3]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in outputs],
            self.weights,
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=8, producer_name="tf2onnx"
        )


def transposes(model: onnx.ModelProto, folder: Path) -> tuple[int, str]:
    """How many transposes the right source has; and the source."""
    onnx.save(model, str(folder / "m.onnx"))
    onnx2nn.convert(folder / "m.onnx", folder / "net.py")
    report = onnx2nn.verify(folder / "m.onnx", folder / "net.py", nodes="always")
    source = (folder / "net.py").read_text()
    assert report.ok, (report, report.notes, report.first_difference, source)
    return source.count(".permute(") + source.count(".transpose("), source


def halves(n: Net, x: str) -> list[str]:
    found: list[str] = n.add("Split", x, outputs=2, axis=3)
    return found


# What may lie between two convolutions, of a value with four channels last.
BETWEEN: dict[str, Callable[[Net, str], str]] = {
    "nothing": lambda n, x: x,
    "a bias and an activation": lambda n, x: n.add("Relu", n.add("Add", x, f32(4))),
    "a scale on the left": lambda n, x: n.add("Mul", f32(4), x),
    "a number": lambda n, x: n.add("Mul", x, np.float32(0.5)),
    "a whole constant": lambda n, x: n.add("Add", x, f32(1, 8, 10, 4)),
    "a constant for rows": lambda n, x: n.add("Add", x, f32(10, 1)),
    "swish": lambda n, x: n.add("Mul", x, n.add("Sigmoid", x)),
    "relu6": lambda n, x: n.add("Clip", x, np.float32(0), np.float32(6)),
    "leaky": lambda n, x: n.add("LeakyRelu", x, alpha=0.1),
    "prelu": lambda n, x: n.add("PRelu", x, f32(4)),
    "a norm in its arithmetic": lambda n, x: n.add(
        "Add", n.add("Mul", n.add("Sub", x, f32(4)), f32(4)), f32(4)
    ),
    "a pad": lambda n, x: n.add(
        "Slice",
        n.add("Pad", x, np.array([0, 1, 0, 0, 0, 0, 2, 0])),
        np.array([1, 0]),
        np.array([9, 10]),
        np.array([1, 2]),
    ),
    "softmax over channels": lambda n, x: n.add("Softmax", x, axis=-1),
    "a shortcut": lambda n, x: n.add("Add", x, n.add("Relu", n.conv(n.add("Tanh", x), 4, 4))),
    "halves joined again": lambda n, x: n.add(
        "Concat", *[n.add(f, h) for f, h in zip(("Exp", "Tanh"), halves(n, x))], axis=-1
    ),
    "a gate by channels": lambda n, x: n.add(
        "Mul", x, n.add("Sigmoid", n.add("ReduceMean", x, axes=[1, 2], keepdims=1))
    ),
    "a larger image": lambda n, x: n.pool(
        n.add("Resize", x, "", np.array([1, 2, 2, 1], np.float32), mode="nearest")
    ),
    "an image of a size": lambda n, x: n.add(
        "Resize", x, "", "", np.array([2, 8, 10, 4]), mode="linear"
    ),
    "a choice": lambda n, x: n.add("Where", n.add("Greater", x, f32(4)), x, n.add("Neg", x)),
    "tiles": lambda n, x: n.pool(n.add("Tile", x, np.array([1, 2, 2, 1]))),
    "the strongest": lambda n, x: n.add("Max", x, n.add("Mul", x, f32(4))),
    "quantised": lambda n, x: n.add(
        "DequantizeLinear",
        n.add("QuantizeLinear", x, np.float32(0.05), np.int8(0)),
        np.float32(0.05),
        np.int8(0),
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_only_the_border_is_transposed(name: str, tmp_path: Path) -> None:
    n = Net()
    y = n.conv(BETWEEN[name](n, n.conv("x", 3, 4)), 4, 5)
    batch = 2 if name == "an image of a size" else "n"
    count, source = transposes(n.model(y, batch=batch), tmp_path)
    assert count == 2, source


@pytest.mark.parametrize("rank", [3, 5])
def test_sequences_and_volumes(rank: int, tmp_path: Path) -> None:
    n = Net(rank)
    y = n.conv(n.add("Relu", n.add("Add", n.conv("x", 3, 4), f32(4))), 4, 5)
    count, source = transposes(n.model(y), tmp_path)
    assert count == 2, source


ENDS: dict[str, Callable[[Net, str], str]] = {
    "a mean": lambda n, x: n.add("ReduceMean", x, axes=[1, 2], keepdims=0),
    "a mean that is squeezed": lambda n, x: n.add(
        "Squeeze", n.add("ReduceMean", x, axes=[1, 2], keepdims=1), np.array([1, 2])
    ),
    "the largest": lambda n, x: n.add("ReduceMax", x, axes=[-2, -3], keepdims=0),
    "a class for each place": lambda n, x: n.add(
        "Cast", n.add("ArgMax", x, axis=3, keepdims=0), to=1
    ),
    "a mean that is laid flat": lambda n, x: n.add(
        "Reshape", n.add("ReduceMean", x, axes=[1, 2], keepdims=1), np.array([-1, 4])
    ),
    "its sizes": lambda n, x: n.add(
        "Add",
        n.add("ReduceSum", x, np.array([1, 2, 3]), keepdims=0),
        n.add("Gather", n.add("Cast", n.add("Shape", x), to=1), np.array(1), axis=0),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_has_no_layout_ends_it(name: str, tmp_path: Path) -> None:
    n = Net()
    y = ENDS[name](n, n.add("Relu", n.add("Add", n.conv("x", 3, 4), f32(4))))
    count, source = transposes(n.model(y), tmp_path)
    assert count == 1, source


def test_outputs_are_as_the_model_has_them(tmp_path: Path) -> None:
    n = Net()
    middle = n.add("Relu", n.add("Add", n.conv("x", 3, 4), f32(4)))
    end = n.conv(middle, 4, 5)
    count, source = transposes(n.model(middle, end), tmp_path)
    assert count == 3, source


def test_the_last_node_gives_an_output(tmp_path: Path) -> None:
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 4))
    y = n.conv(x, 4, 5)
    count, source = transposes(n.model(y, n.add("Tanh", x)), tmp_path)
    assert count == 3, source


def test_a_network_of_blocks(tmp_path: Path) -> None:
    n = Net()
    x = n.add("Relu", n.add("Add", n.conv("x", 3, 4), f32(4)))
    for _ in range(4):
        inner = n.add("Relu", n.add("Add", n.conv(x, 4, 4), f32(4)))
        x = n.add("Relu", n.add("Add", x, n.add("Add", n.conv(inner, 4, 4), f32(4))))
    x = n.pool(x)
    scores = n.add("MatMul", n.add("ReduceMean", x, axes=[1, 2], keepdims=0), f32(4, 10))
    count, source = transposes(n.model(n.add("Softmax", scores)), tmp_path)
    assert count == 1, source


def test_nothing_is_turned_where_nothing_is_won(tmp_path: Path) -> None:
    n = Net(3)
    keys = n.add("Mul", n.add("Transpose", "x", perm=[0, 2, 1]), np.float32(0.5))
    count, source = transposes(n.model(n.add("MatMul", "x", keys)), tmp_path)
    assert count == 1, source
