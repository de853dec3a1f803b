"""Whole networks: the classifiers of ONNX's package and architectures exported by torch.

The nine `light_*.onnx` have one constant for all their weights, so that every input gives the same
answer; here they get seeded random ones, and their logits are compared too. What counts is the
mean squared error against the spread of the answer, not against its size.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import onnx2nn

from . import nets

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def assert_close(expected: np.ndarray, got: np.ndarray) -> None:
    """Mean squared error below 1e-6 of the variance."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    spread = expected.astype(np.float64).var()
    assert np.isfinite(spread)
    assert spread > 0, "the answer says nothing"
    assert np.square(got.astype(np.float64) - expected).mean() < 1e-6 * spread


def ort_run(model: bytes, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def randomise(model: onnx.ModelProto) -> None:
    """Random weights in place of the constant ones, drawn so that signals neither die nor explode.

    The weights are ConstantOfShape nodes over a shape; each becomes an initialiser.
    """
    graph = model.graph
    # Where branches are summed each must add little, else the sum doubles with every block.
    gain = 1.0 if any(n.op_type == "Sum" for n in graph.node) else 2.0
    draw = Draw(np.random.default_rng(3), gain)
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    roles: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        for i, name in enumerate(node.input):
            roles.setdefault(name, (node.op_type, i))
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in known:
            kept.append(node)
            continue
        shape = [int(d) for d in known[node.input[0]]]
        known[node.output[0]] = np.zeros(shape, np.float32)
        graph.initializer.append(
            numpy_helper.from_array(draw(shape, *roles[node.output[0]]), node.output[0])
        )
    for t in graph.initializer:
        if t.data_type == onnx.TensorProto.FLOAT and t.name in roles:
            shape = list(t.dims)
            t.CopyFrom(numpy_helper.from_array(draw(shape, *roles[t.name]), t.name))
    del graph.node[:]
    graph.node.extend(kept)


@dataclass
class Draw:
    """Random values for the input `index` of an operator."""

    random: np.random.Generator
    gain: float

    def __call__(self, shape: list[int], op: str, index: int) -> np.ndarray:
        if (op == "BatchNormalization" and index in (1, 4)) or op == "Mul":
            return self.random.random(shape, np.float32) + np.float32(0.5)
        values = self.random.standard_normal(shape, np.float32)
        if op in ("Conv", "Gemm", "MatMul") and index == 1:
            fan = int(np.prod(shape[1:])) if op == "Conv" else max(shape[-1], 1)
            return values * np.float32((self.gain / fan) ** 0.5)
        return values * np.float32(0.1)


def with_logits(model: onnx.ModelProto) -> None:
    """What goes into the last Softmax becomes an output too."""
    for node in model.graph.node:
        if node.op_type == "Softmax":
            output = model.graph.output.add(name=node.input[0])
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def rcnn(model: onnx.ModelProto) -> None:
    """R-CNN ILSVRC13 is AlexNet with 200 scores and no Softmax."""
    model.ir_version = 8  # initialisers need not be inputs
    graph = model.graph
    last = next(n for n in graph.node if n.op_type == "Softmax")
    gemm = next(n for n in graph.node if n.output[0] == last.input[0])
    graph.node.remove(last)
    makers = {n.output[0]: n for n in graph.node}
    shapes = {t.name: t for t in graph.initializer}
    for name in gemm.input[1:]:
        shape = shapes[makers[name].input[0]]
        old = numpy_helper.to_array(shape)
        new = np.where(old == 1000, 200, old)
        copy = numpy_helper.from_array(new, f"{shape.name}_rcnn")
        graph.initializer.append(copy)
        makers[name].input[0] = copy.name
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(gemm.output[0], 1, [1, 200]))
    del graph.value_info[:]


def compare_light(model: onnx.ModelProto) -> None:
    constants = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    assert len(inputs) == 1
    shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    expected = ort_run(model.SerializeToString(), {inputs[0].name: x})
    with torch.no_grad():
        result = onnx2nn.load(model)(torch.from_numpy(x))
    outputs = result if isinstance(result, tuple) else (result,)
    for want, got in zip(expected, outputs, strict=True):
        assert_close(want, got.numpy())


@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda p: p.stem[6:])
def test_light(path: Path) -> None:
    model = onnx.load(path)
    with_logits(model)  # DenseNet-121 has no Softmax: its answers are logits
    randomise(model)
    compare_light(model)


def test_rcnn_ilsvrc13() -> None:
    model = onnx.load(LIGHT / "light_bvlc_alexnet.onnx")
    rcnn(model)
    randomise(model)
    compare_light(model)


# ---- exported by torch

SIZE = 64
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": nets.MobileNetV2,
    "shufflenet_v2": nets.ShuffleNetV2,
    "resnet50_v2": nets.ResNet50V2,
    "yolov5s": nets.YoloV5s,
}


def export(net: nn.Module, dynamo: bool) -> onnx.ModelProto:
    """The net as a torch exporter writes it, with a free batch."""
    x = torch.zeros(2, 3, SIZE, SIZE)
    options: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamo": dynamo}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(net, (x,), verbose=False, **options)
            return program.model_proto
        out = io.BytesIO()
        torch.onnx.export(
            net, (x,), out, dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}}, **options
        )
        return onnx.load_from_string(out.getvalue())


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_exported(name: str, dynamo: bool) -> None:
    net = nets.seeded(ARCHITECTURES[name]())
    model = export(net, dynamo)
    converted = onnx2nn.load(model)
    for batch in (1, 3):
        x = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(batch))
        (expected,) = ort_run(model.SerializeToString(), {"x": x.numpy()})
        with torch.no_grad():
            got = converted(x)
            own = net(x)
        assert_close(expected, got.numpy())
        assert_close(own.numpy(), got.numpy())
