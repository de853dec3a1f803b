"""Operators that compute otherwise where they train: never taken for inference, in any opset."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnx2nn

from .harness import compare, run_converted, source_of

RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 3, 6, 6)).astype(np.float32)
NONE = [""] * 4
FIVE = ["mean", "var", "saved_mean", "saved_var"]
WEIGHTS = {
    "w": RNG.normal(size=(4, 3, 1, 1)),
    "s": RNG.normal(size=4),
    "t": RNG.normal(size=4),
    "m": RNG.normal(size=4),
    "v": RNG.uniform(0.5, 2, 4),
}


def model_of(nodes: list[onnx.NodeProto], opset: int, **more: Any) -> onnx.ModelProto:
    weights = {k: v.astype(np.float32) for k, v in WEIGHTS.items()} | more
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3, 6, 6])],
        [helper.make_tensor_value_info("y", 1, list("abcd"))],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def batch_norm(opset: int, more: list[str], attrs: dict[str, Any]) -> onnx.ModelProto:
    norm = helper.make_node("BatchNormalization", list("cstmv"), ["y", *more], "bn", **attrs)
    return model_of([helper.make_node("Conv", ["x", "w"], ["c"]), norm], opset)


def normalised(trains: bool) -> Any:
    c = np.einsum("nihw,oi->nohw", X, WEIGHTS["w"][:, :, 0, 0])
    mean = c.mean((0, 2, 3)) if trains else WEIGHTS["m"]
    var = c.var((0, 2, 3)) if trains else WEIGHTS["v"]
    mean, var, s, t = (v.reshape(1, 4, 1, 1) for v in (mean, var, WEIGHTS["s"], WEIGHTS["t"]))
    return (s * (c - mean) / np.sqrt(var + 1e-5) + t).astype(np.float32)


@pytest.mark.parametrize(
    "opset, more, attrs, trains",
    [
        (1, [], {"is_test": 0, "consumed_inputs": [0, 0, 0, 1, 1]}, True),
        (1, [], {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]}, False),
        (6, [], {}, True),
        (6, FIVE, {"is_test": 0}, True),
        (6, [], {"is_test": 1}, False),
        (7, [], {}, False),
        (7, NONE, {}, True),
        (7, FIVE, {}, True),
        (9, FIVE[:1], {}, True),
        (9, NONE, {}, True),
        (12, FIVE, {}, True),
        (13, [], {}, False),
        (14, ["mean", "var"], {"training_mode": 1}, True),
        (14, ["", ""], {"training_mode": 1}, True),
        (15, [], {"training_mode": 1}, True),
        (15, [], {}, False),
        (15, [], {"training_mode": 0}, False),
    ],
)
def test_batch_norm(opset: int, more: list[str], attrs: dict[str, Any], trains: bool) -> None:
    model = batch_norm(opset, more, attrs)
    for simplify in (True, False):
        compare(run_converted(model, {"x": X}, simplify)[0], normalised(trains), 1e-3, 1e-4)
    smaller = onnx2nn.simplify(model, check_n=0)[0]
    types = [n.op_type for n in smaller.graph.node]
    assert types == (["Conv", "BatchNormalization"] if trains else ["Conv"])
    compare(run_converted(smaller, {"x": X}, False)[0], normalised(trains), 1e-3, 1e-4)


@pytest.mark.parametrize(("opset", "more"), [(6, []), (6, FIVE), (7, NONE), (12, FIVE)])
def test_batch_norm_that_trains_in_a_newer_opset(opset: int, more: list[str]) -> None:
    newer, right = onnx2nn.simplify(batch_norm(opset, more, {}), opset=17, check_n=0)
    assert right
    norm = newer.graph.node[-1]
    assert norm.op_type == "BatchNormalization"
    assert len(norm.output) == 3  # as ONNX demands of one that trains
    onnx.checker.check_model(newer, full_check=True)
    compare(run_converted(newer, {"x": X}, False)[0], normalised(True), 1e-3, 1e-4)


TRUE, HALF = np.array(True), np.array(0.5, np.float32)
# The node's type, domain, opset, inputs and attributes, and its other inputs.
DROPOUTS: list[tuple[str, str, int, list[str], dict[str, Any], dict[str, Any]]] = [
    ("Dropout", "", 1, ["x"], {"is_test": 0}, {}),
    ("Dropout", "", 6, ["x"], {"is_test": 0, "ratio": 0.3}, {}),
    ("Dropout", "", 12, ["x", "", "train"], {}, {"train": TRUE}),
    ("Dropout", "", 22, ["x", "half", "train"], {}, {"half": HALF, "train": TRUE}),
    ("BitmaskDropout", "com.microsoft", 17, ["x", "", "train"], {}, {"train": TRUE}),
    ("BiasDropout", "com.microsoft", 17, ["x", "bias", "", "", "train"], {}, {"bias": X[0, 0, 0], "train": TRUE}),
]  # fmt: skip


@pytest.mark.parametrize(
    "op_type, domain, opset, inputs, attrs, more", DROPOUTS, ids=lambda v: str(v)[:20]
)
def test_dropouts_that_train_are_neither_removed_nor_merged(
    op_type: str, domain: str, opset: int, inputs: list[str], attrs: Any, more: Any
) -> None:
    def drop(name: str) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [name], name, domain=domain, **attrs)

    model = model_of(
        [drop("a"), drop("b"), helper.make_node("Sub", ["a", "b"], ["y"])], opset, **more
    )
    if opset < 7:
        model.graph.node[2].attribute.append(helper.make_attribute("broadcast", 0))
    smaller = onnx2nn.simplify(model, check_n=0)[0]
    assert [n.op_type for n in smaller.graph.node].count(op_type) == 2
    if not domain:
        (got,) = run_converted(model, {"x": X}, True)
        assert np.abs(got).max() > 0  # the two draw by themselves


@pytest.mark.parametrize("opset", [1, 6])
def test_old_dropout_that_trains(opset: int) -> None:
    node = helper.make_node("Dropout", ["x"], ["y", "mask"], ratio=0.25, is_test=0)
    model = model_of([node], opset)
    model.graph.output.append(helper.make_tensor_value_info("mask", 1, None))
    y, mask = (np.asarray(v) for v in run_converted(model, {"x": X}, True))
    assert set(np.unique(mask)) == {0.0, 1.0}
    compare(y, X * mask / np.float32(0.75), 1e-5, 1e-6)
    assert "dropout_with_mask" in source_of(model)
