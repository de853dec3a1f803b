"""Faults planted in written source, one a family of operators: each is found, and its node named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx2nn

_RNG = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(np.float32)


@dataclass
class Fault:
    """An operator on x, f32[2, 4, 6, 6] unless said, and an edit of what it is written as."""

    op_type: str
    old: str
    new: str
    constants: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 4, 6, 6)
    order: tuple[str, ...] | None = None
    opset: int = 20


W = {"w": weight(4, 4, 3, 3)}
NORM = {"scale": weight(4) + 1, "b": weight(4), "mean": weight(4), "var": np.abs(weight(4)) + 1}
FAULTS = {
    "a pad that is missing": Fault("Conv", "padding=1", "padding=0", W, {"pads": [1, 1, 1, 1]}),
    "a pad of another kind": Fault(
        "Conv", "padding=1", 'padding=1, padding_mode="replicate"', W, {"pads": [1, 1, 1, 1]}
    ),
    "a dilation": Fault(
        "Conv", "padding=2, dilation=2", "padding=1", W, {"pads": [2] * 4, "dilations": [2, 2]}
    ),
    "another pool": Fault("MaxPool", "max_pool2d", "avg_pool2d", {}, {"kernel_shape": [2, 2]}),
    "the padding counts": Fault(
        "AveragePool",
        "count_include_pad=False",
        "count_include_pad=True",
        {},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    ),
    "another epsilon of BatchNormalization": Fault(
        "BatchNormalization", "nn.BatchNorm2d(4", "nn.BatchNorm2d(4, eps=1e-6", NORM
    ),
    "another epsilon of LayerNormalization": Fault(
        "LayerNormalization", "1e-12", "1e-6", {"scale": weight(6)}, {"epsilon": 1e-12}
    ),
    "another epsilon of InstanceNormalization": Fault(
        "InstanceNormalization",
        "eps=1e-12",
        "eps=1e-5",
        {"scale": weight(4), "b": weight(4)},
        {"epsilon": 1e-12},
    ),
    "another form of Gelu": Fault("Gelu", "F.gelu(-x)", 'F.gelu(-x, approximate="tanh")'),
    "the other form of Gelu": Fault(
        "Gelu", ', approximate="tanh"', "", {}, {"approximate": "tanh"}
    ),
    "another slope": Fault("LeakyRelu", "0.1", "0.11", {}, {"alpha": 0.1}),
    "another activation": Fault(
        "Sigmoid", "torch.sigmoid(-x)", "torch.nn.functional.hardsigmoid(-x)"
    ),
    "an activation that is left out": Fault("Relu", "F.relu(-x)", "(-x + 0)"),
    "a softer activation": Fault("Elu", "F.elu(-x)", "F.selu(-x)"),
    "another axis of Softmax": Fault("Softmax", "dim=1", "dim=2", {}, {"axis": 1}),
    "another axis of LogSoftmax": Fault("LogSoftmax", "dim=1", "dim=3", {}, {"axis": 1}),
    "another axis of a mean": Fault(
        "ReduceMean", "(2, 3)", "(1, 3)", {"axes": np.array([2, 3])}, {"keepdims": 1}
    ),
    "a sum instead of a mean": Fault(
        "ReduceMean", ".mean(", ".sum(", {"axes": np.array([2, 3])}, {"keepdims": 1}
    ),
    "swapped operands of Sub": Fault("Sub", "-x - self.w", "self.w - -x", {"w": weight(6)}),
    "swapped operands of Div": Fault("Div", "-x / self.w", "self.w / -x", {"w": weight(6) + 3}),
    "swapped operands of MatMul": Fault(
        "MatMul", "self.linear_1(-x)", "(self.linear_1.weight @ -x)", {"w": weight(6, 6)}
    ),
    "swapped choices": Fault(
        "Where",
        "-x, self.w",
        "self.w, -x",
        {"c": weight(6) > 0, "w": weight(2, 4, 6, 6)},
        order=("c", "x", "w"),
    ),
    "another permutation": Fault(
        "Transpose", "transpose(2, 3)", "transpose(1, 1)", {}, {"perm": [0, 1, 3, 2]}
    ),
    "another order of Concat": Fault(
        "Concat", "[-x, self.w]", "[self.w, -x]", {"w": weight(2, 4, 6, 6)}, {"axis": 1}
    ),
    "another interpolation": Fault(
        "Resize",
        '"bilinear"',
        '"bicubic"',
        {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)},
        {"mode": "linear"},
    ),
    "another start of Slice": Fault(
        "Slice",
        "[:, :, 1:5]",
        "[:, :, 2:6]",
        {"starts": np.array([1]), "ends": np.array([5]), "axes": np.array([2])},
    ),
    "another limit of Clip": Fault(
        "Clip",
        "max=1.5",
        "max=1.4",
        {"low": np.float32(-0.5), "high": np.float32(1.5)},
    ),
    "a sum that runs backwards": Fault(
        "CumSum", ".cumsum(dim=2)", ".flip(2).cumsum(dim=2).flip(2)", {"axis": np.array(2)}
    ),
    "another axis of ArgMax": Fault(
        "ArgMax", "argmax(dim=2", "argmax(dim=3", {}, {"axis": 2, "keepdims": 1}
    ),
    "another axis of Gather": Fault(
        "Gather",
        "[:, :, self.index]",
        "[:, :, :, self.index]",
        {"i": np.array([0, 2, 3, 1, 5, 4])},
        {"axis": 2},
    ),
    "another padding": Fault(
        "Pad",
        '"reflect"',
        '"replicate"',
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        {"mode": "reflect"},
    ),
    "a limit that is left out": Fault(
        "Clip", "F.relu6(-x)", "F.relu(-x)", {"low": np.float32(0), "high": np.float32(6)}
    ),
    "another rounding": Fault("Round", "torch.round(-x)", "torch.trunc(-x)"),
    "another reduction": Fault(
        "ScatterND",
        "accumulate=True",
        "accumulate=False",
        {"i": np.array([[0], [1]]), "u": weight(2, 4, 6, 6)},
        {"reduction": "add"},
    ),
    "another order of depth": Fault(
        "SpaceToDepth", "(x, 2)", '(x, 2, mode="CRD")', {}, {"blocksize": 2}
    ),
    "another scale of attention": Fault(
        "Attention",
        "scale=0.3",
        "scale=0.31",
        {"k": weight(2, 4, 6, 6), "v": weight(2, 4, 6, 6)},
        {"scale": 0.3},
        opset=23,
    ),
    "an exponent": Fault("Pow", "(-x) ** 2", "(-x).abs()", {"e": np.float32(2)}),
}


def model(fault: Fault, tail: float) -> onnx.ModelProto:
    """The operator between an Abs and a Mul by `tail`, with an end that hides much."""
    names = fault.order or ("x0", *fault.constants)
    names = tuple("x0" if n == "x" else n for n in names)
    nodes = [
        helper.make_node("Neg", ["x"], ["x0"], "before"),
        helper.make_node(fault.op_type, list(names), ["y"], "faulty", **fault.attributes),
        helper.make_node("Cast", ["y"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "tail"], ["z"], "after"),
    ]
    constants = {**fault.constants, "tail": np.float32(tail)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, fault.shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", fault.opset)], ir_version=9
    )


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("tail", [1.0, 1e-9], ids=["as it is", "tiny"])
def test_a_planted_fault_is_found_and_named(name: str, tail: float, tmp_path: Path) -> None:
    fault = FAULTS[name]
    onnx.save(model(fault, tail), str(tmp_path / "m.onnx"))
    onnx2nn.convert(tmp_path / "m.onnx", tmp_path / "net.py")
    right = onnx2nn.verify(tmp_path / "m.onnx", tmp_path / "net.py")
    assert right.ok, (right.outputs, right.first_difference)
    source = (tmp_path / "net.py").read_text()
    assert fault.old in source, source
    (tmp_path / "net.py").write_text(source.replace(fault.old, fault.new))
    report = onnx2nn.verify(tmp_path / "m.onnx", tmp_path / "net.py")
    assert report.ok is False, report
    assert report.first_difference is not None, report.notes
    assert report.first_difference.node == "faulty"
