"""Models that ONNX Runtime optimised for its own layouts and saved."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx2nn._native as native

from .harness import Array, run_converted

NCHWC = "com.microsoft.nchwc"
RNG = np.random.default_rng(3)


def f32(*shape: int) -> Array:
    return (RNG.normal(size=shape) / 2).astype(np.float32)


class Net:
    """Nodes one after the other, each with the weights that it needs."""

    def __init__(self, channels: int = 3) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels = channels

    def weight(self, value: Array) -> str:
        self.weights.append(numpy_helper.from_array(value, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op_type: str, *inputs: str, domain: str = "", **attrs: Any) -> str:
        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], domain=domain, **attrs))
        return name

    def conv(self, x: str, inputs: int, outputs: int, size: int = 3, **attrs: Any) -> str:
        fan_in = inputs // attrs.get("group", 1)
        kernel = f32(outputs, fan_in, size, size) / np.float32(size * fan_in**0.5)
        weights = [self.weight(kernel), self.weight(f32(outputs))]
        return self.add("Conv", x, *weights, pads=[size // 2] * 4, **attrs)

    def model(self, *outputs: str, shape: Any = (1, 3, 16, 12)) -> onnx.ModelProto:
        float_info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "g",
            [float_info("x", TensorProto.FLOAT, shape)],
            [float_info(y, TensorProto.FLOAT, None) for y in outputs],
            self.weights,
        )
        imports = [helper.make_opsetid("", 13), helper.make_opsetid(NCHWC, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def plain() -> onnx.ModelProto:
    """Channels that fill no block, pools, a residual connection, both kinds of filter."""
    net = Net()
    x = net.add("MaxPool", net.add("Relu", net.conv("x", 3, 20)), kernel_shape=[3, 3], pads=[1] * 4)
    wide = net.conv(x, 20, 20, group=20)
    y = net.add("Relu", net.add("Add", wide, net.conv(x, 20, 20, 1)))
    y = net.add("AveragePool", net.conv(y, 20, 40, strides=[2, 2]), kernel_shape=[2, 2])
    y = net.add("Sigmoid", net.conv(y, 40, 21, 1))
    return net.model(y, net.add("GlobalAveragePool", y), net.add("GlobalMaxPool", y))


def in_groups() -> onnx.ModelProto:
    """Channels in whole blocks, groups of them, and activations with parameters."""
    net = Net()
    x = net.add("LeakyRelu", net.conv("x", 3, 32), alpha=0.2)
    x = net.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    x = net.add("Tanh", net.conv(x, 32, 64, group=2))
    x = net.add("AveragePool", x, kernel_shape=[3, 3], pads=[1, 0, 0, 1], strides=[2, 1])
    low, high = net.weight(np.float32(-0.5)), net.weight(np.float32(0.25))
    y = net.add("Clip", net.conv(x, 64, 48), low, high)
    pooled = net.add("GlobalMaxPool", net.add("GlobalAveragePool", y))
    return net.model(net.conv(y, 48, 10, 1), pooled)


def enlarged(mode: str, coordinates: str) -> onnx.ModelProto:
    net = Net()
    x = net.conv("x", 3, 20)
    scales = net.weight(np.array([1, 1, 2, 3], np.float32))
    y = net.add(
        "Resize",
        x,
        "",
        scales,
        mode=mode,
        nearest_mode="floor",
        coordinate_transformation_mode=coordinates,
    )
    return net.model(net.conv(y, 20, 20))


def channels_last() -> onnx.ModelProto:
    """Transposes around convolutions, which the reorders take along."""
    net = Net()
    x = net.add("Transpose", "x", perm=[0, 3, 1, 2])
    x = net.conv(net.conv(x, 32, 20), 20, 20)
    return net.model(net.add("Transpose", x, perm=[0, 2, 3, 1]), shape=(1, 16, 12, 32))


def concatenated() -> onnx.ModelProto:
    net = Net()
    x = net.conv("x", 3, 32)
    y = net.add("Concat", net.conv(x, 32, 32), net.conv(x, 32, 16), axis=1)
    return net.model(net.conv(y, 48, 24))


MODELS = {
    "plain": plain,
    "in_groups": in_groups,
    "nearest": lambda: enlarged("nearest", "asymmetric"),
    "asymmetric": lambda: enlarged("linear", "asymmetric"),
    "half_pixel": lambda: enlarged("linear", "half_pixel"),
    "align_corners": lambda: enlarged("linear", "align_corners"),
    "channels_last": channels_last,
    "concatenated": concatenated,
}


def optimised(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(folder / "optimised.onnx")


def answers(model: onnx.ModelProto, x: Array) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"x": x}))


@pytest.mark.parametrize("simplify", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_saved_model(name: str, simplify: bool, tmp_path: Path) -> None:
    model = optimised(MODELS[name](), tmp_path)
    if not any(n.domain == NCHWC for n in model.graph.node):
        pytest.skip("ONNX Runtime has no blocked kernels on this machine")
    x = f32(*[d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim])
    wanted = answers(model, x)
    got = run_converted(model, {"x": x}, simplify)
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g.detach().numpy(), w, 1e-4, 1e-5)


def test_every_operator_is_saved(tmp_path: Path) -> None:
    seen = {
        n.op_type
        for make in MODELS.values()
        for n in optimised(make(), tmp_path).graph.node
        if n.domain == NCHWC
    }
    if not seen:
        pytest.skip("ONNX Runtime has no blocked kernels on this machine")
    assert seen == {op["type"] for op in native.op_table() if op["domain"] == NCHWC}


def blocked(weight: Array, size: int, whole: bool) -> Array:
    """A filter as a blocked kernel has it: blocks of outputs, and of inputs where they fill one."""
    o, i, h, w = weight.shape
    inner = size if whole else 1
    parts = weight.reshape(o // size, size, i // inner, inner, h, w)
    return np.ascontiguousarray(parts.transpose(0, 2, 4, 5, 3, 1)).reshape(weight.shape)


@pytest.mark.parametrize("size", [8, 16])
def test_blocks_of_any_size(size: int) -> None:
    """What the channels are filled up to says the block's size, whatever machine converts."""
    filled = 24 if size == 8 else 32
    first, second = f32(filled, 3, 3, 3), f32(filled, filled, 1, 1)
    first[20:] = second[20:] = second[:, 20:] = 0
    net = Net()
    one, two = blocked(first, size, False), blocked(second, size, True)
    x = net.add("Conv", "x", net.weight(one), domain=NCHWC, pads=[1] * 4)
    x = net.add("Conv", x, net.weight(two), domain=NCHWC, activation="Relu")
    model = net.model(net.add("ReorderOutput", x, domain=NCHWC, channels=20))

    same = Net()
    x = same.add("Conv", "x", same.weight(first[:20]), pads=[1] * 4)
    x = same.add("Relu", same.add("Conv", x, same.weight(second[:20, :20])))
    x_value = f32(1, 3, 16, 12)
    (wanted,) = answers(same.model(x), x_value)
    (got,) = run_converted(model, {"x": x_value}, True)
    np.testing.assert_allclose(got.detach().numpy(), wanted, 1e-4, 1e-5)
    assert not native.convert(model.SerializeToString(), {}).diagnostics


def test_unknown_block_is_said() -> None:
    net = Net()
    x = net.add("Conv", "x", net.weight(f32(16, 3, 3, 3)), domain=NCHWC)
    model = net.model(net.add("ReorderOutput", x, domain=NCHWC, channels=16))
    conversion = native.convert(model.SerializeToString(), {})
    (warning,) = conversion.diagnostics
    assert (warning["severity"], warning["code"]) == ("warning", "blocked-weights")


@pytest.mark.parametrize("shape", [(20, 3, 3, 3), (16, 20, 1, 1)])
def test_broken_blocks_are_refused(shape: tuple[int, ...]) -> None:
    net = Net()
    x = net.add("Conv", "x", net.weight(f32(*shape)), domain=NCHWC)
    model = net.model(net.add("ReorderOutput", x, domain=NCHWC, channels=shape[0]))
    conversion = native.convert(model.SerializeToString(), {})
    assert "no whole blocks" in conversion.diagnostics[-1]["message"]


@pytest.mark.parametrize("inputs", [[], [""], ["x"], ["x", ""]])
@pytest.mark.parametrize("outputs", [["y"], [""], []])
def test_nodes_without_operands_are_refused(inputs: list[str], outputs: list[str]) -> None:
    """What lacks an operand is an error or left out; it never ends the process."""
    for op in native.op_table():
        if op["domain"] not in (NCHWC, "com.ms.internal.nhwc"):
            continue
        node = helper.make_node(op["type"], inputs, outputs, domain=op["domain"])
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            [node],
            "g",
            [info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
            [info(y or "x", TensorProto.FLOAT, None) for y in outputs[:1] or ["x"]],
        )
        imports = [helper.make_opsetid(op["domain"], 1), helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        native.convert(model.SerializeToString(), {})
