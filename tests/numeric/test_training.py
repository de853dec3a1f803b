"""Gradient of ai.onnx.preview.training, against derivatives by hand; no other runtime has it."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx2nn
import onnx2nn._native as native

from .harness import compare, run_converted, source_of

N = helper.make_node
TRAINING = "ai.onnx.preview.training"
X = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)
W = np.array([[2.0, 0.5], [-1.0, 3.0], [0.25, -0.5]], np.float32)
Z = np.array([[1.5, -1.0], [2.0, 0.5]], np.float32)
ONES = np.ones((2, 2), np.float32)


def gradient(
    inputs: list[str], outputs: list[str], y: str, xs: list[str], zs: list[str] | None = None
) -> onnx.NodeProto:
    return N("Gradient", inputs, outputs, domain=TRAINING, y=y, xs=xs, **({"zs": zs} if zs else {}))


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    outputs: list[str],
    functions: list[onnx.FunctionProto] | None = None,
    constants: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(
                k, helper.np_dtype_to_tensor_dtype(v.dtype), [f"{k}_{i}" for i in range(v.ndim)]
            )
            for k, v in inputs.items()
        ],
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [onnx.numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(TRAINING, 1)]
    if functions:
        imports.append(helper.make_opsetid("local", 1))
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=10)


def check(model: onnx.ModelProto, feeds: dict[str, Any], expected: list[Any]) -> None:
    for simplify in (True, False):
        got = run_converted(model, feeds, simplify)
        assert len(got) == len(expected)
        for g, e in zip(got, expected, strict=True):
            compare(g, np.asarray(e, np.float32), 1e-5, 1e-6)


def test_products_and_fixed_inputs() -> None:
    # y = relu(x w) * z, of which z is not differentiated
    model = model_of(
        [
            N("MatMul", ["x", "w"], ["h"]),
            N("Relu", ["h"], ["r"]),
            N("Mul", ["r", "z"], ["y"]),
            gradient(["x", "w", "z"], ["dx", "dw"], "y", ["x", "w"], ["z"]),
        ],
        {"x": X, "z": Z},
        ["dx", "dw"],
        constants={"w": W},
    )
    back = Z * (X @ W > 0)
    check(model, {"x": X, "z": Z}, [back @ W.T, X.T @ back])
    assert "gradient(function, [x, self.w], [z])" in source_of(model)


def test_target_that_nothing_else_needs() -> None:
    model = model_of(
        [N("Mul", ["x", "x"], ["y"]), gradient(["x"], ["dx"], "y", ["x"])], {"x": X}, ["dx"]
    )
    check(model, {"x": X}, [2 * X])


def test_other_values_than_those_of_the_graph() -> None:
    # dy/dh at a given h1, though h is computed
    model = model_of(
        [
            N("Neg", ["x"], ["h"]),
            N("Exp", ["h"], ["y"]),
            N("Add", ["x", "x"], ["h1"]),
            gradient(["h1"], ["dh"], "y", ["h"]),
        ],
        {"x": X},
        ["y", "dh"],
    )
    check(model, {"x": X}, [np.exp(-X), np.exp(2 * X)])


def test_outputs_left_out_and_independent_inputs() -> None:
    # y does not depend on z
    nodes = [
        N("MatMul", ["x", "w"], ["y"]),
        gradient(["x", "w", "z"], ["", "dw", "dz"], "y", ["x", "w", "z"]),
    ]
    model = model_of(nodes, {"x": X, "w": W, "z": Z}, ["dw", "dz"])
    check(model, {"x": X, "w": W, "z": Z}, [X.T @ ONES, 0 * Z])


def test_second_order() -> None:
    # o = sum((x w - l)^2): d(do/dw)/dx with ones for a weight, and d2o/dw2 likewise
    nodes = [
        N("MatMul", ["x", "w"], ["y"]),
        N("Sub", ["y", "l"], ["d"]),
        N("Mul", ["d", "d"], ["e"]),
        N("ReduceSum", ["e"], ["o"], keepdims=0),
        gradient(["x", "w", "l"], ["do_dx", "do_dw"], "o", ["x", "w"], ["l"]),
        gradient(["x", "w", "l"], ["dx", "dw"], "do_dw", ["x", "w"], ["l"]),
    ]
    model = model_of(nodes, {"x": X, "w": W, "l": Z}, ["do_dw", "dx", "dw"])
    d = X @ W - Z
    s = np.ones_like(W)  # the sum of do/dw = 2 x' d
    check(
        model,
        {"x": X, "w": W, "l": Z},
        [2 * X.T @ d, 2 * (d @ s.T + X @ s @ W.T), 2 * X.T @ (X @ s)],
    )


def test_gradient_written_before_its_target() -> None:
    model = model_of(
        [gradient(["x"], ["dx"], "y", ["x"]), N("Sin", ["x"], ["y"])], {"x": X}, ["dx"]
    )
    check(model, {"x": X}, [np.cos(X)])


def test_in_a_branch_of_values_outside() -> None:
    def branch(y: str) -> onnx.GraphProto:
        nodes = [gradient(["x"], ["g"], y, ["x"])]
        return helper.make_graph(nodes, "b", [], [onnx.ValueInfoProto(name="g")])

    nodes = [
        N("Sin", ["x"], ["a"]),
        N("Mul", ["x", "x"], ["b"]),
        N("If", ["c"], ["dx"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    model = model_of(nodes, {"x": X, "c": np.array(True)}, ["dx"])
    check(model, {"x": X, "c": np.array(True)}, [np.cos(X)])
    check(model, {"x": X, "c": np.array(False)}, [2 * X])


def test_through_a_function_and_a_loop() -> None:
    # y = square(x)^(2^3), by a function and three rounds of squaring
    square = helper.make_function(
        "local",
        "Square",
        ["a"],
        ["b"],
        [N("Mul", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 21)],
    )
    body = helper.make_graph(
        [N("Identity", ["go"], ["on"]), N("Square", ["s"], ["t"], domain="local")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        N("Square", ["x"], ["h"], domain="local"),
        N("Loop", ["n", "", "h"], ["y"], body=body),
        gradient(["x"], ["dx"], "y", ["x"]),
    ]
    model = model_of(nodes, {"x": X}, ["dx"], [square], {"n": np.array(3)})
    x = X / 2
    check(model, {"x": x}, [16 * x**15])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (gradient(["x"], ["dx"], "nothing", ["x"]), "which nothing defines"),
        (gradient(["x", "x"], ["dx"], "y", ["x", "x"]), "twice"),
        (gradient(["x"], ["dx"], "dx", ["x"]), "cycle"),
        (gradient(["x", "x"], ["dx"], "y", ["x"]), "2 inputs"),
    ],
)
def test_faults(node: onnx.NodeProto, message: str) -> None:
    model = model_of([N("Sin", ["x"], ["y"]), node], {"x": X}, ["dx"])
    with pytest.raises(onnx2nn.Error, match=message):
        onnx2nn.load(model.SerializeToString())


def test_gradients_that_double_at_each_level_are_refused() -> None:
    nodes = [N("Sin", ["x"], ["y0"])]
    for i in range(40):
        nodes += [
            gradient(["x"], [f"a{i}"], f"y{i}", ["x"]),
            gradient(["x"], [f"b{i}"], f"y{i}", ["x"]),
            N("Add", [f"a{i}", f"b{i}"], [f"y{i + 1}"]),
        ]
    model = model_of(nodes, {"x": X}, ["y40"])
    with pytest.raises(onnx2nn.Error, match="out of proportion"):
        onnx2nn.load(model.SerializeToString())


def test_simplifier_leaves_what_attributes_name() -> None:
    model = model_of(
        [N("Mul", ["x", "x"], ["y"]), gradient(["x"], ["dx"], "y", ["x"])], {"x": X}, ["dx"]
    )
    result = native.simplify(model.SerializeToString(), None, {})
    assert result["ok"]
    assert result["model"] == model.SerializeToString()
    assert "names values of the graph" in str(result["diagnostics"])
    raised = native.simplify(model.SerializeToString(), None, {"opset": 21})
    assert not raised["ok"]
