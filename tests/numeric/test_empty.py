"""Dims that a file declares as 0, and tensors that are empty when the model runs."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import onnx2nn

from .harness import compare, run_converted

N = helper.make_node
Inputs = dict[str, list[Any]]


def model_of(
    nodes: list[onnx.NodeProto], inputs: Inputs, output: list[Any], constants: dict[str, Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(k, 1, dims) for k, dims in inputs.items()],
        [helper.make_tensor_value_info("y", 1, output)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def check(model: onnx.ModelProto, feeds: dict[str, Any], wanted: Any = None) -> None:
    """Converted simplified and not, and simplified as a file, which answers in both runtimes."""
    wanted = answer(model, feeds) if wanted is None else wanted
    smaller = onnx2nn.simplify(model, check_n=0)[0]
    compare(answer(smaller, feeds), wanted, 1e-4, 1e-5)
    for m, simplify in ((model, True), (model, False), (smaller, False)):
        compare(run_converted(m, feeds, simplify)[0], wanted, 1e-4, 1e-5)


def floats(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_a_dim_of_0_is_a_size_that_is_not_known() -> None:
    """Old exporters write 0 where they do not know a size, and arithmetic of shapes goes by it."""
    constants = {"w": floats(4, 3, 3, 3), "two": np.int64(2), "i": np.int64(2), "from": np.array([2]), "end": np.array([4]), "zero": np.array([0])}  # fmt: skip
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        N("Shape", ["c"], ["s"]),
        N("Slice", ["s", "zero", "from"], ["nc"]),
        N("Slice", ["s", "from", "end"], ["hw"]),
        N("Mul", ["hw", "two"], ["twice"]),
        N("Concat", ["nc", "twice"], ["sizes"], axis=0),
        N("Resize", ["c", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    declared = model_of(nodes, {"x": [0, 3, 0, 0]}, [0, 4, 0, 0], constants)
    plain = model_of(nodes, {"x": ["n", 3, "h", "w"]}, ["n", 4, "a", "b"], constants)
    for shape in ((1, 3, 8, 8), (2, 3, 5, 7)):
        x = floats(*shape)
        wanted = answer(plain, {"x": x})
        for simplify in (True, False):
            compare(run_converted(declared, {"x": x}, simplify)[0], wanted, 1e-4, 1e-5)
    smaller = onnx2nn.simplify(declared, check_n=0)[0]
    said = smaller.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in said] == [0, 3, 0, 0]  # as it was
    compare(run_converted(smaller, {"x": x}, False)[0], wanted, 1e-4, 1e-5)


def test_an_input_that_is_empty() -> None:
    nodes = [N("Concat", ["x", "z"], ["y"], axis=0)]
    model = model_of(nodes, {"x": [2, 3], "z": [0, 3]}, [None, 3], {})
    check(model, {"x": floats(2, 3), "z": floats(0, 3)})
    feeds = {"x": floats(2, 3), "z": floats(1, 3)}
    compare(run_converted(model, feeds, True)[0], np.concatenate([*feeds.values()]), 0, 0)


EMPTY: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "Flatten of Unsqueeze": (
        [N("Unsqueeze", ["x", "one"], ["u"]), N("Flatten", ["u"], ["y"], axis=1)],
        {"one": np.array([1])},
    ),
    "Flatten": ([N("Relu", ["x"], ["r"]), N("Flatten", ["r"], ["y"], axis=1)], {}),
    "sizes that are said": (
        [
            N("Shape", ["x"], ["s"]),
            N("Split", ["s"], ["a", "b", "c"], axis=0),
            N("Mul", ["b", "c"], ["bc"]),
            N("Concat", ["a", "bc"], ["t"], axis=0),
            N("Reshape", ["x", "t"], ["y"]),
        ],
        {},
    ),
    "Softmax": ([N("Softmax", ["x"], ["y"], axis=-1)], {}),
    "mean": ([N("ReduceMean", ["x"], ["y"], axes=[2], keepdims=1)], {}),
    "norm": (
        [N("LayerNormalization", ["x", "w"], ["y"])],
        {"w": np.ones(5, np.float32)},
    ),
    "product": ([N("MatMul", ["x", "w"], ["y"])], {"w": floats(5, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 5)], ids=str)
def test_rewriting_is_right_for_empty_tensors(name: str, shape: tuple[int, ...]) -> None:
    nodes, constants = EMPTY[name]
    rank = 2 if name in ("Flatten", "Flatten of Unsqueeze", "sizes that are said") else 3
    model = model_of(nodes, {"x": ["n", "m", 5]}, [None] * rank, constants)
    check(model, {"x": floats(*shape)})
