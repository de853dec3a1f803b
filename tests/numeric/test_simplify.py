"""Simplified models against ONNX Runtime: each rule fires, is right, and stays away where it would be wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onnx2nn
from onnx2nn import _native

RNG = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """inputs and outputs: name -> (element type, dims) or dims of float32."""

    def info(name: str, t: Any) -> Any:
        dtype, dims = t if isinstance(t, tuple) else (T.FLOAT, t)
        return h.make_tensor_value_info(name, dtype, dims)

    held = constants or {}
    listed = [info(n, t) for n, t in inputs.items()]
    if ir_version < 4:
        listed += [
            h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in held.items()
        ]
    graph = h.make_graph(
        nodes,
        "g",
        listed,
        [info(n, t) for n, t in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in held.items()],
    )
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir_version)
    return onnx.shape_inference.infer_shapes(made)


def run(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run(None, feed)


def simplify(before: onnx.ModelProto, **options: Any) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The simplified model, which passes the checker and does not change when simplified again."""
    result = _native.simplify(before.SerializeToString(), None, options)
    assert result["ok"], result["diagnostics"]
    after = onnx.load_from_string(result["model"])
    onnx.checker.check_model(after, full_check=True)
    assert [i.name for i in after.graph.input] == [
        i.name for i in before.graph.input if i.name in {j.name for j in after.graph.input}
    ]
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]
    assert _native.simplify(result["model"], None, options)["model"] == result["model"]
    return after, result


def check(before: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[str]:
    """The operators of the simplified model, which computes the same."""
    after, _ = simplify(before)
    for want, got in zip(run(before, feed), run(after, feed), strict=True):
        assert want.dtype == got.dtype
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return [n.op_type for n in after.graph.node if n.op_type != "Constant"]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return h.make_node(op, inputs.split(), outputs.split(), **attributes)


BN = {
    "s": f32(4),
    "t": f32(4),
    "m": f32(4),
    "v": np.abs(f32(4)) + np.float32(0.5),
}
X = {"x": [1, 3, 8, 8]}
FEED = {"x": f32(1, 3, 8, 8)}


@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_into_conv(bias: bool) -> None:
    m = model(
        [
            node("Conv", "x w b" if bias else "x w", "c"),
            node("BatchNormalization", "c s t m v", "y"),
        ],
        X,
        {"y": [1, 4, 6, 6]},
        {"w": f32(4, 3, 3, 3), **BN, **({"b": f32(4)} if bias else {})},
    )
    assert check(m, FEED) == ["Conv"]


@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_into_conv_transpose(group: int) -> None:
    m = model(
        [
            node("ConvTranspose", "x w", "c", group=group),
            node("BatchNormalization", "c s t m v", "y"),
        ],
        {"x": [1, 4, 5, 5]},
        {"y": [1, 4, 7, 7]},
        {"w": f32(4, 4 // group, 3, 3), **BN},
    )
    assert check(m, {"x": f32(1, 4, 5, 5)}) == ["ConvTranspose"]


def test_batch_norm_in_old_files() -> None:
    m = model(
        [node("Conv", "x w", "c"), node("BatchNormalization", "c s t m v", "y")],
        X,
        {"y": [1, 4, 6, 6]},
        {"w": f32(4, 3, 3, 3), **BN},
        opset=8,
        ir_version=3,
    )
    assert check(m, FEED) == ["Conv"]


def test_a_shared_weight_is_not_fused() -> None:
    m = model(
        [
            node("Conv", "x w", "c"),
            node("BatchNormalization", "c s t m v", "y"),
            node("Relu", "x", "r"),
            node("Conv", "r w", "z"),
        ],
        X,
        {"y": [1, 4, 6, 6], "z": [1, 4, 6, 6]},
        {"w": f32(4, 3, 3, 3), **BN},
    )
    assert "BatchNormalization" in check(m, FEED)


def test_a_convolution_that_is_given_out_is_not_fused() -> None:
    m = model(
        [node("Conv", "x w", "c"), node("BatchNormalization", "c s t m v", "y")],
        X,
        {"y": [1, 4, 6, 6], "c": [1, 4, 6, 6]},
        {"w": f32(4, 3, 3, 3), **BN},
    )
    assert "BatchNormalization" in check(m, FEED)


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), ()])
@pytest.mark.parametrize("first", [False, True])
def test_arithmetic_into_conv(op: str, shape: tuple[int, ...], first: bool) -> None:
    m = model(
        [node("Conv", "x w b", "c"), node(op, "k c" if first else "c k", "y")],
        X,
        {"y": [1, 4, 6, 6]},
        {"w": f32(4, 3, 3, 3), "b": f32(4) + np.float32(3), "k": f32(*shape)},
    )
    assert check(m, FEED) == (["Conv", "Div"] if op == "Div" and first else ["Conv"])


@pytest.mark.parametrize("shape", [(6,), (4, 6, 6), (2, 4, 1, 1), (1, 1, 4, 1, 1)])
def test_what_is_not_by_channel_stays(shape: tuple[int, ...]) -> None:
    full = np.broadcast_shapes((1, 4, 6, 6), shape)
    m = model(
        [node("Conv", "x w", "c"), node("Add", "c k", "y")],
        X,
        {"y": list(full)},
        {"w": f32(4, 3, 3, 3), "k": f32(*shape)},
    )
    assert check(m, FEED) == ["Conv", "Add"]


def test_pad_into_conv() -> None:
    pads = np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64)
    m = model(
        [node("Pad", "x p", "q"), node("Conv", "q w", "y", pads=[1, 1, 0, 0])],
        X,
        {"y": None},
        {"p": pads, "w": f32(4, 3, 3, 3)},
    )
    assert check(m, FEED) == ["Conv"]
    reflect = model(
        [node("Pad", "x p", "q", mode="reflect"), node("Conv", "q w", "y")],
        X,
        {"y": None},
        {"p": pads, "w": f32(4, 3, 3, 3)},
    )
    assert check(reflect, FEED) == ["Pad", "Conv"]
    ones = model(
        [node("Pad", "x p one", "q"), node("Conv", "q w", "y")],
        X,
        {"y": None},
        {"p": pads, "one": np.float32(1), "w": f32(4, 3, 3, 3)},
    )
    assert check(ones, FEED) == ["Pad", "Conv"]


def test_matmul_and_bias() -> None:
    weights = {"w": f32(8, 5), "b": f32(5)}
    chain = [node("MatMul", "x w", "p"), node("Add", "b p", "y")]
    m = model(chain, {"x": ["n", 8]}, {"y": ["n", 5]}, weights)
    assert check(m, {"x": f32(3, 8)}) == ["Gemm"]
    stacked = model(chain, {"x": [2, 3, 8]}, {"y": [2, 3, 5]}, weights)
    assert check(stacked, {"x": f32(2, 3, 8)}) == ["MatMul", "Add"]
    wide = model(chain, {"x": [1, 8]}, {"y": [4, 5]}, {**weights, "b": f32(4, 5)})
    assert check(wide, {"x": f32(1, 8)}) == ["MatMul", "Add"]


def constant_of(*values: Any, dtype: Any = np.int64) -> np.ndarray:
    return np.array(values, dtype)


NOTHING: dict[str, tuple[Callable[[], list[Any]], dict[str, np.ndarray]]] = {
    "Identity": (lambda: [node("Identity", "r", "q")], {}),
    "Dropout": (lambda: [node("Dropout", "r", "q")], {}),
    "Cast": (lambda: [node("Cast", "r", "q", to=T.FLOAT)], {}),
    "Reshape": (lambda: [node("Reshape", "r k", "q")], {"k": constant_of(2, 3, 4)}),
    "Reshape0": (lambda: [node("Reshape", "r k", "q")], {"k": constant_of(0, -1, 4)}),
    "Transpose": (lambda: [node("Transpose", "r", "q", perm=[0, 1, 2])], {}),
    "Transposes": (
        lambda: [
            node("Transpose", "r", "o", perm=[2, 0, 1]),
            node("Transpose", "o", "q", perm=[1, 2, 0]),
        ],
        {},
    ),
    "Reshapes": (
        lambda: [node("Reshape", "r k", "o"), node("Reshape", "o l", "q")],
        {"k": constant_of(6, 4), "l": constant_of(2, 3, 4)},
    ),
    "Squeeze": (
        lambda: [node("Unsqueeze", "r k", "o"), node("Squeeze", "o k", "q")],
        {"k": constant_of(1)},
    ),
    "Pad": (lambda: [node("Pad", "r k", "q")], {"k": constant_of(0, 0, 0, 0, 0, 0)}),
    "Slice": (
        lambda: [node("Slice", "r k l", "q")],
        {"k": constant_of(0, 0), "l": constant_of(2**31, 3)},
    ),
    "Concat": (lambda: [node("Concat", "r", "q", axis=1)], {}),
    "Sum": (lambda: [node("Sum", "r", "q")], {}),
    "Expand": (lambda: [node("Expand", "r k", "q")], {"k": constant_of(3, 1)}),
    "Tile": (lambda: [node("Tile", "r k", "q")], {"k": constant_of(1, 1, 1)}),
    "Mul": (lambda: [node("Mul", "r k", "q")], {"k": constant_of(1, dtype=np.float32)}),
    "Add": (lambda: [node("Add", "k r", "q")], {"k": np.zeros((1, 4), np.float32)}),
    "Casts": (
        lambda: [node("Cast", "r", "o", to=T.DOUBLE), node("Cast", "o", "q", to=T.FLOAT)],
        {},
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_nothing_goes(name: str) -> None:
    nodes, constants = NOTHING[name]
    m = model(
        [node("Relu", "x", "r"), *nodes(), node("Neg", "q", "y")],
        {"x": [2, 3, 4]},
        {"y": [2, 3, 4]},
        constants,
    )
    assert check(m, {"x": f32(2, 3, 4)}) == ["Relu", "Neg"]


SOMETHING: dict[str, tuple[Callable[[], list[Any]], dict[str, np.ndarray]]] = {
    "slice backwards": (
        lambda: [node("Slice", "r s e a t", "q")],
        {
            "s": constant_of(-1),
            "e": constant_of(-(2**31)),
            "a": constant_of(1),
            "t": constant_of(-1),
        },
    ),
    "zero that broadcasts": (
        lambda: [node("Add", "r k", "q")],
        {"k": np.zeros((5, 1, 1, 1), np.float32)},
    ),
    "one that broadcasts": (
        lambda: [node("Mul", "r k", "q")],
        {"k": np.ones((5, 1, 1, 1), np.float32)},
    ),
    "reshape of a reshape with zeros": (
        lambda: [node("Reshape", "r k", "o"), node("Reshape", "o l", "q")],
        {"k": constant_of(3, 4, 2), "l": constant_of(0, 8)},
    ),
    "pad that cuts and adds": (
        lambda: [node("Pad", "r k", "q")],
        {"k": constant_of(0, 1, 0, 0, -1, 0)},
    ),
    "casts that round": (
        lambda: [node("Cast", "r", "o", to=T.INT32), node("Cast", "o", "q", to=T.FLOAT)],
        {},
    ),
    "transpose by size": (lambda: [node("Transpose", "r", "q", perm=[2, 1, 0])], {}),
    "tile": (lambda: [node("Tile", "r k", "q")], {"k": constant_of(1, 2, 1)}),
    "zero less": (lambda: [node("Sub", "k r", "q")], {"k": np.zeros((), np.float32)}),
}


@pytest.mark.parametrize("name", SOMETHING)
def test_what_does_something_stays_right(name: str) -> None:
    nodes, constants = SOMETHING[name]
    m = model(
        [node("Relu", "x", "r"), *nodes(), node("Neg", "q", "y")],
        {"x": [2, 3, 4]},
        {"y": None},
        constants,
    )
    assert len(check(m, {"x": f32(2, 3, 4) * 3})) >= 3


def test_constants_that_only_look_equal_stay_two() -> None:
    m = model(
        [
            node("Div", "x a", "p"),
            node("Div", "x b", "q"),
            node("Cast", "c", "r", to=T.FLOAT),
            node("Mul", "x r", "s"),
            node("Sum", "p q s", "y"),
        ],
        {"x": [2]},
        {"y": [2]},
        {
            "a": np.array([0.0, 1.0], np.float32),
            "b": np.array([-0.0, 1.0], np.float32),
            "c": np.array([0, 1], np.int32),
        },
    )
    after, _ = simplify(m)
    x = {"x": np.array([1.0, 2.0], np.float32)}
    np.testing.assert_array_equal(run(m, x)[0], run(after, x)[0])


def test_equal_nodes_and_initializers_become_one() -> None:
    w = f32(8, 8)
    m = model(
        [
            node("MatMul", "x a", "p"),
            node("MatMul", "x b", "q"),
            node("RandomNormalLike", "x", "u"),
            node("RandomNormalLike", "x", "v"),
            node("Sub", "u v", "d"),
            node("Mul", "p q", "y"),
        ],
        {"x": [8, 8]},
        {"y": [8, 8], "d": [8, 8]},
        {"a": w, "b": w.copy()},
    )
    after, _ = simplify(m)
    assert [n.op_type for n in after.graph.node].count("MatMul") == 1
    assert [n.op_type for n in after.graph.node].count("RandomNormalLike") == 2


def test_outputs_keep_their_names() -> None:
    m = model(
        [
            node("Identity", "x", "same"),
            node("Relu", "x", "r"),
            node("Identity", "r", "a"),
            node("Identity", "r", "b"),
            node("Add", "k k", "c"),
        ],
        {"x": ["n", 2]},
        {"a": ["n", 2], "b": ["n", 2], "same": ["n", 2], "c": [2], "x": ["n", 2], "k": [2]},
        {"k": f32(2)},
    )
    assert sorted(check(m, {"x": f32(3, 2)})) == ["Identity", "Identity", "Relu"]


def test_shape_arithmetic_becomes_numbers() -> None:
    m = model(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Gather", "s one", "t"),
            node("Unsqueeze", "n axis", "n1"),
            node("Unsqueeze", "t axis", "t1"),
            node("Concat", "n1 t1 h d", "shape", axis=0),
            node("Reshape", "x shape", "q"),
            node("Transpose", "q", "y", perm=[0, 2, 1, 3]),
        ],
        {"x": ["batch", "seq", 8]},
        {"y": ["batch", 2, "seq", 4]},
        {
            "zero": constant_of(0).reshape(()),
            "one": constant_of(1).reshape(()),
            "axis": constant_of(0),
            "h": constant_of(2),
            "d": constant_of(4),
        },
    )
    assert check(m, {"x": f32(3, 5, 8)}) == ["Reshape", "Transpose"]
    fixed, _ = simplify(m, input_shapes={"x": [3, 5, 8]})
    dims = fixed.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [3, 2, 5, 4]


def branch(name: str, nodes: list[Any], output: str) -> Any:
    return h.make_graph(nodes, name, [], [h.make_tensor_value_info(output, T.FLOAT, None)])


@pytest.mark.parametrize("known", [True, False])
def test_if(known: bool) -> None:
    body = {
        "then_branch": branch("t", [node("Relu", "x", "v"), node("Identity", "v", "a")], "a"),
        "else_branch": branch("e", [node("Identity", "x", "b")], "b"),
    }
    condition = {"c": np.array(True)} if known else {}
    m = model(
        [node("If", "c", "y", **body)],
        {"x": [2, 3], **({} if known else {"c": (T.BOOL, [])})},
        {"y": [2, 3]},
        condition,
    )
    for value in (True, False):
        feed = {"x": f32(2, 3), **({} if known else {"c": np.array(value)})}
        assert check(m, feed) == (["Relu"] if known else ["If"])


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
@pytest.mark.parametrize("size", [1, 40000])
def test_a_branch_gives_out_constants_of_its_own(dtype: Any, size: int, ir_version: int) -> None:
    """Twice the same, from outside; written with an Identity each, a second run found more to do."""
    kind = h.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [h.make_tensor_value_info(name, kind, [size]) for name in "ab"]
    then = [node("Identity", "k", "a"), node("Identity", "k", "b")]
    other = [node("Add", "x k", "a"), node("Identity", "x", "b")]
    m = model(
        [
            node(
                "If",
                "c",
                "y z",
                then_branch=h.make_graph(then, "t", [], outputs),
                else_branch=h.make_graph(other, "e", [], outputs),
            )
        ],
        {"x": (kind, [size]), "c": (T.BOOL, [])},
        {"y": (kind, [size]), "z": (kind, [size])},
        {} if ir_version < 4 else {"k": np.full(size, 3, dtype)},
    )
    m.ir_version = ir_version
    if ir_version < 4:
        k = numpy_helper.from_array(np.full(size, 3, dtype))
        m.graph.node.insert(0, h.make_node("Constant", [], ["k"], value=k))
    after, _ = simplify(m)
    (branches,) = (n.attribute for n in after.graph.node if n.op_type == "If")
    (inner,) = (a.g for a in branches if a.name == "then_branch")
    if size == 1:
        assert [n.op_type for n in inner.node if n.op_type != "Constant"] == ["Identity"]
        assert len(inner.initializer) == (ir_version >= 4)
    for chosen in (True, False):
        feed = {"x": np.full(size, 2, dtype), "c": np.array(chosen)}
        for want, got in zip(run(m, feed), run(after, feed), strict=True):
            np.testing.assert_array_equal(want, got)


def test_a_default_that_callers_may_change_is_no_constant() -> None:
    m = model(
        [node("Add", "k k", "t"), node("Mul", "x t", "y")],
        {"x": [2], "k": [2]},
        {"y": [2]},
        {"k": np.ones(2, np.float32)},
    )
    after, _ = simplify(m)
    assert [i.name for i in after.graph.input] == ["x", "k"]
    feed = {"x": f32(2), "k": f32(2)}
    np.testing.assert_allclose(run(m, feed)[0], run(after, feed)[0], rtol=1e-6)


def test_quantised_weights_stay_packed() -> None:
    m = model(
        [node("DequantizeLinear", "q s z", "w"), node("MatMul", "x w", "y")],
        {"x": [2, 8]},
        {"y": [2, 8]},
        {
            "q": RNG.integers(-128, 127, (8, 8)).astype(np.int8),
            "s": np.float32(0.1),
            "z": np.int8(3),
        },
    )
    assert check(m, {"x": f32(2, 8)}) == ["DequantizeLinear", "MatMul"]


def test_unknown_operators_stay() -> None:
    made = model([node("Identity", "x", "i"), node("Relu", "i", "y")], {"x": [2]}, {"y": [2]})
    made.graph.node[1].op_type, made.graph.node[1].domain = "Magic", "my.own"
    made.opset_import.append(h.make_opsetid("my.own", 3))
    result = _native.simplify(made.SerializeToString(), None, {})
    after = onnx.load_from_string(result["model"])
    assert [n.op_type for n in after.graph.node] == ["Magic"]
    assert {(o.domain, o.version) for o in after.opset_import} == {("", 17), ("my.own", 3)}


def test_domains_that_are_not_imported_stay_so() -> None:
    """ONNX Runtime puts casts of its own into such models, which are of the opset that they import."""
    half = (T.FLOAT16, [2])
    made = model([node("FastGelu", "x", "y")], {"x": half}, {"y": half})
    made.graph.node[0].domain = "com.microsoft"
    del made.opset_import[:]
    made.opset_import.append(h.make_opsetid("com.microsoft", 1))
    after = onnx.load_from_string(_native.simplify(made.SerializeToString(), None, {})["model"])
    assert [(o.domain, o.version) for o in after.opset_import] == [("com.microsoft", 1)]


def test_outputs_are_not_declared_as_what_they_cannot_be() -> None:
    """Checkers do not see it before the branch is inlined, or the shape a constant."""
    branch = h.make_graph(
        [node("Add", "x x", "b")], "g", [], [h.make_tensor_value_info("b", T.FLOAT, [2, 3])]
    )
    m = model(
        [node("If", "c", "y", then_branch=branch, else_branch=branch), node("Relu", "x", "z")],
        {"x": [2, 3]},
        {"y": [], "z": [2, 3]},
        {"c": np.array(True)},
    )
    after, _ = simplify(m)
    assert [d.dim_value for d in after.graph.output[0].type.tensor_type.shape.dim] == [2, 3]
    m = model(
        [node("Shape", "x", "s"), node("Concat", "k s", "t", axis=0), node("Reshape", "x t", "y")],
        {"x": [2, 3]},
        {"y": [1, -1, 3]},
        {"k": np.array([1])},
    )
    del m.graph.value_info[:]
    after, _ = simplify(m)
    dims = after.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 2, 3]


def test_names_of_dimensions_that_the_file_gives_are_kept() -> None:
    """Runtimes fuse what has equal shapes, and find fewer equal ones than the exporter did."""
    m = model(
        [node("Expand", "x s", "e"), node("Neg", "e", "n"), node("MyOp", "n", "y")],
        {"x": [3], "s": (T.INT64, [2])},
        {"y": ["batch", 3]},
    )
    m.graph.node[2].domain = "my.own"
    m.opset_import.append(h.make_opsetid("my.own", 1))
    del m.graph.value_info[:]
    m.graph.value_info.append(h.make_tensor_value_info("e", T.FLOAT, ["batch", 3]))
    after = onnx.load_from_string(_native.simplify(m.SerializeToString(), None, {})["model"])
    dims = {v.name: v.type.tensor_type.shape.dim[0].dim_param for v in after.graph.value_info}
    assert dims["e"] == "batch"


def test_a_loop_condition_of_one_element_stays_so() -> None:
    info = h.make_tensor_value_info
    body = h.make_graph(
        [node("Sub", "a one", "b"), node("Sub", "a one", "d")],
        "body",
        [info("i", T.INT64, [1]), info("go", T.BOOL, [1]), info("a", T.FLOAT, [1])],
        [info("go", T.BOOL, [1]), info("b", T.FLOAT, [1]), info("d", T.FLOAT, [1])],
    )
    m = model(
        [h.make_node("Loop", ["m", "", "x"], ["y", "z"], body=body)],
        {"m": (T.INT64, [1]), "x": [1]},
        {"y": [1], "z": ["n", 1]},
        {"one": np.ones(1, np.float32)},
    )
    feed = {"m": np.array([3]), "x": f32(1)}
    assert check(m, feed) == ["Loop"]


def test_a_limit_below_all_is_a_limit() -> None:
    m = model(
        [node("Clip", "x low", "c"), node("Min", "k c", "y")],
        {"x": [3]},
        {"y": [3]},
        {"low": np.array(-np.inf, np.float32), "k": np.array(-np.inf, np.float32)},
    )
    check(m, {"x": f32(3)})


def test_what_describes_a_model_is_kept() -> None:
    m = model([node("Relu", "x", "y")], {"x": ["batch size", 2]}, {"y": ["batch size", 2]})
    del m.graph.value_info[:]
    m.doc_string, m.producer_name, m.domain, m.model_version = "doc", "maker", "org", 7
    m.metadata_props.add(key="k", value="v")
    m.graph.doc_string = "about"
    after, _ = simplify(m)
    assert after == m


def test_external_data_and_in_place(tmp_path: Path) -> None:
    m = model(
        [node("MatMul", "x w", "p"), node("Identity", "p", "y")],
        {"x": [2, 64]},
        {"y": [2, 64]},
        {"w": f32(64, 64)},
    )
    x = {"x": f32(2, 64)}
    want = run(m, x)[0]
    path = tmp_path / "m.onnx"
    moved = onnx.load_from_string(m.SerializeToString())
    onnx.save_model(
        moved, str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    result = _native.simplify(str(path), str(path), {})
    assert result["files"] == [str(path), str(path) + ".data"]
    again = onnx.load(str(path), load_external_data=False)
    entries = {e.key: e.value for e in again.graph.initializer[0].external_data}
    # The first page says whose weights they are.
    assert entries == {"location": "m.onnx.data", "offset": "4096", "length": "16384"}
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, x)[0], want)
    assert onnx2nn.verify(m, path).ok


def test_the_signature_of_onnxsim(tmp_path: Path) -> None:
    m = model(
        [node("Conv", "x w", "c"), node("BatchNormalization", "c s t m v", "y")],
        X,
        {"y": [1, 4, 6, 6]},
        {"w": f32(4, 3, 3, 3), **BN},
    )
    after, ok = onnx2nn.simplify(m, check_n=1)
    assert ok
    assert [n.op_type for n in after.graph.node] == ["Conv"]
    after, ok = onnx2nn.simplify(m, 0, skip_fuse_bn=True)
    assert ok
    assert len(after.graph.node) == 2
    after, ok = onnx2nn.simplify(m, skipped_optimizers=["fuse_bn_into_conv"])
    assert ok
    assert len(after.graph.node) == 2
    path = tmp_path / "m.onnx"
    onnx.save(m, str(path))
    after, ok = onnx2nn.simplify(str(path), overwrite_input_shapes={"x": [1, 3, 8, 8]})
    assert ok
    assert len(after.graph.node) == 1


def test_the_rule_at_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault is put in by verifying against a model that one rule did not touch."""
    from onnx2nn import simplification
    from onnx2nn.check import equivalence

    m = model(
        [
            node("Identity", "x", "i"),
            node("Conv", "i w", "c"),
            node("BatchNormalization", "c s t m v", "y"),
        ],
        X,
        {"y": [1, 4, 6, 6]},
        {"w": f32(4, 3, 3, 3), **BN},
    )
    real = equivalence.Original.compare

    def suspicious(self: Any, target: Any) -> Any:
        reports = real(self, target)
        types = {n.op_type for n in onnx.load(target.data).graph.node}
        reports[-1].ok = reports[-1].ok and "BatchNormalization" in types
        return reports

    monkeypatch.setattr(equivalence.Original, "compare", suspicious)
    out = tmp_path / "out.onnx"
    outcome = simplification.simplify_checked(m, out)
    assert not outcome.ok
    assert not list(tmp_path.iterdir())
    assert outcome.culprit is not None
    assert outcome.culprit[0] == "fuse-batch-norm"
