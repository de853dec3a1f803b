"""Inputs of which a model says no rank: what needs it is found out at run time."""

from typing import Any

import numpy as np
import pytest

from .harness import compare, expected_outputs, node_model, run_converted

X = np.random.default_rng(0).uniform(0.2, 2, (2, 3, 4)).astype(np.float32)
AXES = np.array([1, 2])

CASES: list[tuple[str, list[Any], int, dict[str, Any], tuple[int, ...], int]] = [
    ("Softmax", [X], 11, {"axis": 1}, (), 1),
    ("Softmax", [X], 13, {}, (), 1),
    ("Hardmax", [X], 11, {"axis": 2}, (), 1),
    ("ReduceSum", [X, AXES], 13, {}, (1,), 1),
    ("ReduceSum", [X], 13, {"keepdims": 0}, (), 1),
    ("ReduceMean", [X], 13, {}, (), 1),
    ("ReduceMax", [X, np.array([-1])], 18, {}, (1,), 1),
    ("ReduceMin", [X, AXES], 18, {}, (), 1),
    ("ReduceProd", [X], 13, {}, (), 1),
    ("ReduceProd", [X], 13, {"axes": [0, -1], "keepdims": 0}, (), 1),
    ("ReduceL2", [X], 13, {"axes": [0]}, (), 1),
    ("ReduceLogSumExp", [X], 13, {}, (), 1),
    ("ArgMax", [X], 13, {"axis": -1}, (), 1),
    ("TopK", [X, np.array([2])], 11, {"axis": 1}, (1,), 2),
    ("CumSum", [X, np.array(1)], 14, {}, (1,), 1),
    ("PRelu", [X - 1, np.full((3, 1), 0.3, np.float32)], 16, {}, (1,), 1),
    ("Clip", [X, np.array(1, np.float32)], 13, {}, (), 1),
    ("Add", [X, X[0]], 14, {}, (), 1),
    ("Mul", [X, np.array([2], np.float32)], 14, {}, (1,), 1),
    ("Max", [X, X[0], X[0, 0]], 13, {}, (), 1),
    ("Dropout", [X], 13, {}, (), 2),
    ("Cast", [X], 13, {"to": 7}, (), 1),
]


@pytest.mark.parametrize("op, inputs, opset, attrs, constants, outputs", CASES)
def test_unknown_rank(
    op: str, inputs: Any, opset: int, attrs: Any, constants: Any, outputs: int
) -> None:
    model, feeds = node_model(
        op, inputs, opset=opset, attrs=attrs, constants=constants, outputs=outputs
    )
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    wanted = expected_outputs(model, feeds)
    for simplify in (True, False):
        for got, w in zip(run_converted(model, feeds, simplify), wanted, strict=True):
            compare(got, w, 1e-5, 1e-5)
