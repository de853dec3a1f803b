"""`opset=N`: each operator whose form or meaning changed, before and after, in ONNX Runtime."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import defs, numpy_helper, version_converter
from onnx import helper as h
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

import onnx2nn
from onnx2nn import _native
from onnx2nn.cli import main

Array = np.ndarray[Any, Any]
# ONNX Runtime 1.32 knows these, and ONNX defines them.
TARGETS = (7, 10, 11, 13, 14, 18, 21, 25)
R = np.random.default_rng(3)


def f32(*shape: int) -> Array:
    return R.standard_normal(shape).astype(np.float32)


@dataclass
class Case:
    op: str
    opset: int
    inputs: list[Array | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    constants: tuple[int, ...] = ()  # inputs that are initialisers
    outputs: int = 1
    dynamic: bool = False
    # What it computes, where ONNX Runtime has no kernel for so old an opset.
    means: Callable[..., Any] | None = None
    spares: int = 0  # outputs that the node has and nobody uses

    def __str__(self) -> str:
        return f"{self.op}-{self.opset} {self.attrs}"


def channels(b: Array, rank: int, axis: int) -> Array:
    return b.reshape(b.shape + (1,) * (rank - axis - b.ndim))


def softmax(x: Array, axis: int) -> Array:
    flat = x.reshape(int(np.prod(x.shape[:axis])), -1).astype(np.float64)
    e = np.exp(flat - flat.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True)).reshape(x.shape).astype(x.dtype)


X = f32(2, 3, 4, 5)
POSITIVE = np.abs(X) + 0.1
IMAGE = f32(1, 2, 6, 6)
SCALE = np.array([2.0, 0.5], np.float32)
ones = {"consumed_inputs": [0]}
BN = [X, f32(3), f32(3), f32(3), np.abs(f32(3)) + 0.5]
CASES = [
    Case("Relu", 1, [X], ones, means=lambda x: np.maximum(x, 0)),
    Case("Abs", 1, [X], ones, means=np.abs),
    Case("Exp", 1, [X], ones, means=np.exp),
    Case("Sqrt", 1, [POSITIVE], ones, means=np.sqrt),
    Case("Sum", 1, [X, X], {"consumed_inputs": [0, 0]}, means=lambda a, b: a + b),
    Case(
        "Selu",
        1,
        [X],
        ones,
        means=lambda x: 1.0507 * np.where(x > 0, x, 1.6732 * (np.exp(np.minimum(x, 0)) - 1)),
    ),
    Case("Add", 6, [X, X], means=np.add),
    Case(
        "Add",
        6,
        [X, f32(3, 4)],
        {"broadcast": 1, "axis": 1},
        means=lambda a, b: a + channels(b, 4, 1),
    ),
    Case(
        "Mul",
        1,
        [X, f32(2)],
        {"broadcast": 1, "axis": 0},
        (1,),
        means=lambda a, b: a * channels(b, 4, 0),
    ),
    Case(
        "Sub",
        6,
        [X, f32(5)],
        {"broadcast": 1},
        dynamic=True,
        means=lambda a, b: a - b,
    ),
    Case(
        "Div",
        6,
        [X, POSITIVE[0, :, 0, 0]],
        {"broadcast": 1, "axis": -3},
        means=lambda a, b: a / channels(b, 4, 1),
    ),
    Case("Less", 1, [X, f32(4, 5)], {"broadcast": 1, "axis": 2}, means=np.less),
    Case("Pow", 1, [POSITIVE, f32(3)], {"broadcast": 1, "axis": 1}, means=lambda a, b: a ** channels(b, 4, 1)),
    Case("And", 1, [X > 0, X[0, :, 0, 0] > 0], {"broadcast": 1, "axis": 1}, means=lambda a, b: a & channels(b, 4, 1)),
    Case("PRelu", 6, [X, f32(3)], means=lambda x, s: np.where(x < 0, x * s[:, None, None], x)),
    Case("PRelu", 6, [X, f32(1)], constants=(1,), means=lambda x, s: np.where(x < 0, x * s, x)),
    Case("Gemm", 6, [f32(2, 3), f32(3, 4), f32(4)], {"broadcast": 1}, means=lambda a, b, c: a @ b + c),
    Case("BatchNormalization", 6, BN, {"is_test": 1}, (1, 2, 3, 4), means=lambda x, s, b, m, v: s[:, None, None] * (x - m[:, None, None]) / np.sqrt(v[:, None, None] + 1e-5) + b[:, None, None]),
    Case("BatchNormalization", 7, BN, {"spatial": 1}, (1, 2, 3, 4)),
    Case("BatchNormalization", 9, BN, {"epsilon": 1e-3}),
    Case("Cast", 1, [X], {"to": "INT32"}, means=lambda x: x.astype(np.int32)),
    Case("Clip", 6, [X], {"min": -0.5, "max": 0.25}),
    Case("Clip", 6, [X], {"max": 0.25}),
    Case("Clip", 6, [X]),
    Case("Clip", 6, [np.array([np.inf, -np.inf, 2], np.float32)], {"max": float("inf")}),
    Case("Pad", 2, [X], {"pads": [0, 0, 1, 0, 0, 0, 0, 0], "value": float("-inf")}),
    Case("Concat", 1, [X, X], means=lambda a, b: np.concatenate([a, b], 1)),
    Case("DFT", 17, [f32(2, 8, 5, 1)], {"axis": 2}),
    Case("DFT", 17, [f32(2, 8, 1)]),
    Case("Dropout", 6, [X], {"is_test": 1, "ratio": 0.3}, means=lambda x: x),
    Case("Dropout", 7, [X], {"ratio": 0.3}, spares=1),
    Case("Dropout", 10, [X], {"ratio": 0.3}),
    Case("GridSample", 16, [IMAGE, np.tanh(f32(1, 3, 3, 2))], {"mode": "bilinear"}),
    Case("GridSample", 16, [IMAGE, np.tanh(f32(1, 3, 3, 2))], {"mode": "bicubic"}),
    Case("GridSample", 16, [IMAGE, np.tanh(f32(1, 3, 3, 2))]),
    Case("GroupNormalization", 18, [f32(2, 6, 4), f32(3), f32(3)], {"num_groups": 3}, (1, 2)),
    Case("GroupNormalization", 18, [f32(2, 6, 4), f32(2), f32(2)], {"num_groups": 2}),
    Case("MeanVarianceNormalization", 9, [f32(2, 3, 4, 4)]),
    Case("GlobalLpPool", 1, [X], {"p": 2.0}, means=lambda x: np.sqrt((x**2).sum((2, 3), keepdims=True))),
    *[Case(op, 11, [X], {"axis": a}) for op in ("Softmax", "LogSoftmax", "Hardmax") for a in (0, 1, 2, 3, -1, -2)],
    Case("Softmax", 7, [X]),
    Case("Softmax", 7, [f32(2, 3, 1, 1)]),
    Case("Softmax", 7, [X], dynamic=True),
    Case("Softmax", 9, [np.zeros((2, 3, 0, 4), np.float32)], {"axis": 3}),
    Case("LSTM", 1, [f32(3, 2, 4), f32(1, 20, 4), f32(1, 20, 5)], {"hidden_size": 5, "output_sequence": 1}, means=lambda *xs: run(*model_of(Case("LSTM", 7, list(xs), {"hidden_size": 5})))),
    Case("Pad", 1, [X], {"paddings": [0, 0, 1, 0, 0, 0, 0, 2], "value": 1.5}, means=lambda x: np.pad(x, [(0, 0), (0, 0), (1, 0), (0, 2)], constant_values=1.5)),
    Case("Pad", 2, [X], {"pads": [0, 0, 1, 1, 0, 0, 2, 0], "mode": "reflect"}),
    Case("Pad", 2, [X], {"pads": [0, 0, 1, 1, 0, 0, -1, 0], "value": -2.0}),
    *[
        Case(op, 11, [POSITIVE], {"axes": [1, -1], "keepdims": k})
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1")
        for k in (0, 1)
    ],
    *[Case(op, 13, [POSITIVE], {"axes": [2]}) for op in ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")],
    Case("ReduceSum", 11, [X]),
    Case("ReduceMean", 13, [X], {"keepdims": 0}),
    Case("Reshape", 1, [X], {"shape": [0, -1]}, means=lambda x: x.reshape(2, -1)),
    Case("Resize", 10, [IMAGE, np.array([1, 1, 2, 1.5], np.float32)], constants=(1,)),
    Case("Resize", 10, [IMAGE, np.array([1, 1, 0.6, 0.5], np.float32)], constants=(1,)),
    Case("Resize", 10, [IMAGE, np.array([1, 1, 2, 0.5], np.float32)], {"mode": "linear"}, (1,)),
    Case("Resize", 11, [IMAGE, np.zeros(0, np.float32), np.zeros(0, np.float32), np.array([1, 2, 9, 4])], {"mode": "linear"}, (1, 2, 3)),
    Case("RoiAlign", 10, [IMAGE, np.array([[0, 0, 4, 4]], np.float32), np.array([0])], {"output_height": 2, "output_width": 3}),
    Case("Scatter", 9, [f32(3, 3), np.array([[0, 2]]), f32(1, 2)]),
    Case("Slice", 1, [X], {"starts": [1, -3], "ends": [3, 2147483647], "axes": [1, 3]}),
    Case("Slice", 1, [X], {"starts": [0, 1], "ends": [1, 2]}),
    Case("Split", 2, [X], {"split": [1, 3], "axis": 2}, outputs=2),
    Case("Split", 2, [X], {"axis": 2}, outputs=2),
    Case("Split", 13, [X], {"axis": 3}, outputs=5),
    Case("Split", 1, [X, np.array([1.0, 3.0], np.float32)], {"axis": 2}, (1,), outputs=2, means=lambda x, s: [x[:, :, :1], x[:, :, 1:]]),
    Case("Squeeze", 1, [f32(1, 3, 1)], {"axes": [0]}),
    Case("Squeeze", 11, [f32(1, 3, 1)]),
    Case("Unsqueeze", 11, [X], {"axes": [0, -1]}),
    Case("TopK", 1, [X], {"k": 2, "axis": 2}, outputs=2),
    Case("TopK", 10, [X, np.array([3])], {"axis": 3}, outputs=2),
    Case("Upsample", 7, [IMAGE], {"scales": [1.0, 1.0, 2.0, 3.0]}),
    Case("Upsample", 7, [IMAGE], {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"}),
    Case("Upsample", 9, [IMAGE, np.array([1, 1, 2, 2], np.float32)]),
    Case("Upsample", 1, [IMAGE], {"height_scale": 2.0, "width_scale": 3.0}, means=lambda x: x.repeat(2, 2).repeat(3, 3)),
    Case("Identity", 1, [X]),
    Case("Conv", 1, [IMAGE, f32(2, 2, 3, 3)], {"pads": [1, 1, 1, 1]}),
    Case("MaxPool", 8, [IMAGE], {"kernel_shape": [2, 2]}),
]  # fmt: skip


def model_of(case: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(case.inputs)]
    outputs = [f"y{i}" for i in range(case.outputs)]
    spares = [f"spare{i}" for i in range(case.spares)]
    node = h.make_node(case.op, names, outputs + spares, name="the node", **case.attrs)
    inputs, weights, feed = [], [], {}
    for i, x in enumerate(case.inputs):
        if x is None:
            continue
        if case.op == "Split" and i == 1:  # opset 1 has the sizes in the type of the input
            weights.append(numpy_helper.from_array(x.astype(np.int64), names[i]))
        elif i in case.constants:
            weights.append(numpy_helper.from_array(x, names[i]))
        else:
            dims = [f"d{i}_{k}" for k in range(x.ndim)] if case.dynamic else x.shape
            inputs.append(
                h.make_tensor_value_info(names[i], h.np_dtype_to_tensor_dtype(x.dtype), dims)
            )
            feed[names[i]] = x
    graph = h.make_graph(
        [node], "g", inputs, [onnx.ValueInfoProto(name=o) for o in outputs], weights
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", case.opset)], ir_version=4)
    return model, feed


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feed))


def upgraded(model: onnx.ModelProto, opset: int, **options: Any) -> onnx.ModelProto:
    result = _native.simplify(model.SerializeToString(), None, {"opset": opset, **options})
    assert result["ok"], result["diagnostics"]
    after = onnx.load_from_string(result["model"])
    assert {o.domain: o.version for o in after.opset_import}[""] == opset
    return after


def declare(model: onnx.ModelProto, values: list[Any]) -> None:
    """Gives the outputs the types that the checker asks for."""
    for info, value in zip(model.graph.output, values, strict=True):
        elem = h.np_dtype_to_tensor_dtype(value.dtype)
        dims = [f"{info.name}_{k}" for k in range(value.ndim)]
        info.CopyFrom(h.make_tensor_value_info(info.name, elem, dims))


def expected(case: Case, model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    if case.means is None:
        return run(model, feed)
    want = case.means(*[x for x in case.inputs if x is not None])
    return want if isinstance(want, list) else [np.asarray(want)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operator_in_newer_opsets(case: Case) -> None:
    model, feed = model_of(case)
    want = expected(case, model, feed)
    declare(model, want)
    compared = 0
    kept = [r for r in _native.simplify_rules() if r.startswith("remove")]
    for opset in TARGETS:
        if opset < case.opset:
            continue
        # By itself, and with the rules that tidy up what upgrading leaves.
        for options in ({"only": ["fold-identity"], "disabled": kept}, {})[: 1 + (opset == 18)]:
            after = upgraded(model, opset, **options)
            # Deprecated, says ONNX of the one before it had the meaning of today.
            if (case.op, opset < 21) != ("GroupNormalization", True):
                onnx.checker.check_model(after, full_check=True)
            try:
                found = run(after, feed)
            except NotImplemented:
                continue  # ONNX Runtime has no kernel for so new an opset
            compared += 1
            for w, got in zip(want, found, strict=True):
                assert w.shape == got.shape, opset
                assert w.dtype == got.dtype or case.means is not None, opset
                np.testing.assert_allclose(got, w, rtol=1e-5, atol=1e-5, err_msg=str(opset))
    assert compared > 2


@pytest.mark.parametrize("case", [c for c in CASES if c.opset >= 7], ids=str)
def test_the_same_as_the_version_converter(case: Case) -> None:
    model, feed = model_of(case)
    want = expected(case, model, feed)
    declare(model, want)
    compared = 0
    for opset in (13, 21):
        if opset < case.opset:
            continue
        try:
            theirs = run(version_converter.convert_version(model, opset), feed)
        except Exception:  # it has no adapter, or what it wrote is not right
            continue
        if not all(
            np.allclose(a, b, 1e-5, 1e-5, equal_nan=True) for a, b in zip(theirs, want, strict=True)
        ):
            continue  # what it changes the meaning of: Resize that makes smaller
        compared += 1
        for a, b in zip(theirs, run(upgraded(model, opset), feed), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    if compared == 0:
        pytest.skip("the version converter does not take it")


def form(schema: defs.OpSchema) -> tuple[Any, ...]:
    """What a node must fit: which inputs it needs, and the attributes with their defaults."""
    return (
        tuple(i.option for i in schema.inputs),
        {
            k: (a.required, a.default_value.SerializeToString())
            for k, a in schema.attributes.items()
        },
        schema.deprecated,
    )


def test_every_change_of_form_is_accounted_for() -> None:
    """An attribute that goes, or gets another default, has a step; ONNX's own list says which do."""
    history: dict[str, list[defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    missing = []
    tried = {(c.op, c.opset) for c in CASES}
    for op, schemas in history.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in pairwise(schemas):
            before, after = form(old)[1], form(new)[1]
            changed = [k for k in before if k not in after or before[k] != after[k]]
            # An absent axis of Constant's value, a wrong letter in GRU's direction: no other meaning.
            if not changed or (op, new.since_version) in {("Constant", 11), ("GRU", 3)}:
                continue
            if changed == ["consumed_inputs"] or (op, new.since_version) in {("Clip", 6)}:
                continue  # one step for all, tried for some
            if not any(o == op and v <= old.since_version for o, v in tried):
                missing.append((op, old.since_version, new.since_version, changed))
    untried = {m[0] for m in missing}
    # Steps that share their function with one that is tried.
    shared = {"Equal", "Greater", "Or", "Xor", "Tile", "LpPool", "RNN", "GRU", "Scan"}
    assert untried <= shared, missing


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attrs", "says"),
    [
        ("Dropout", 10, [X], {"outputs": 2}, "output 1"),
        ("BatchNormalization", 7, BN, {"spatial": 0}, "spatial=0"),
        ("BatchNormalization", 6, BN, {}, "statistics of its input"),
        ("Resize", 10, [IMAGE, np.array([1, 1, 2, 2], np.float32)], {}, "scales"),
        ("GlobalLpPool", 1, [X], {"p": 2.5}, "whole number"),
        ("Frobnicate", 9, [X], {}, "not known"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(
    op: str, opset: int, inputs: list[Array], attrs: dict[str, Any], says: str
) -> None:
    more = {"outputs": attrs["outputs"]} if "outputs" in attrs else {}
    kept = {k: v for k, v in attrs.items() if k not in more}
    model, _ = model_of(Case(op, opset, list(inputs), kept, **more))
    result = _native.simplify(model.SerializeToString(), None, {"opset": 13})
    assert not result["ok"]
    [found] = [d for d in result["diagnostics"] if d["severity"] == "error"]
    assert says in found["message"]
    assert (found["node"], found["op_type"]) == ("the node", op)


def test_scan_over_a_batch_is_refused() -> None:
    info = h.make_tensor_value_info
    body = h.make_graph(
        [h.make_node("Add", ["s", "e"], ["t"])],
        "body",
        [info("s", T.FLOAT, [2]), info("e", T.FLOAT, [2])],
        [info("t", T.FLOAT, [2])],
    )
    node = h.make_node("Scan", ["", "s0", "x"], ["y"], name="scan", num_scan_inputs=1, body=body)
    graph = h.make_graph(
        [node],
        "g",
        [info("s0", T.FLOAT, [1, 2]), info("x", T.FLOAT, [1, 3, 2])],
        [info("y", T.FLOAT, [1, 2])],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 8)], ir_version=4)
    result = _native.simplify(model.SerializeToString(), None, {"opset": 9})
    assert [d["node"] for d in result["diagnostics"]] == ["scan"]


def test_a_branch_that_is_not_taken_is_raised_too() -> None:
    model = onnx.parser.parse_model("""<ir_version: 5, opset_import: ["" : 10]> g
        (float[2] x) => (float[2] y) <bool c = {1}> { y = If(c) <
          then_branch = t () => (float[2] a) { a = Neg(x) },
          else_branch = e () => (float[2] b) { r = Relu(x) b = Clip<max = 3.0>(r) }> }""")
    after = upgraded(model, 13)
    assert [n.op_type for n in after.graph.node] == ["Neg"]


def test_what_raising_adds_is_simplified_at_once() -> None:
    """What a step to the wanted opset itself adds was taken for operators that nobody knows."""
    case = Case("GroupNormalization", 18, [f32(2, 6, 4), f32(2), f32(2)], {"num_groups": 2})
    after = upgraded(model_of(case)[0], 21).SerializeToString()
    again = _native.simplify(after, None, {})["model"]
    assert onnx.load_from_string(again) == onnx.load_from_string(after)
    assert [n.op_type for n in onnx.load_from_string(after).graph.node].count("Expand") == 2


def test_opsets_are_not_lowered_and_none_is_invented() -> None:
    model, _ = model_of(Case("Relu", 14, [X]))
    declare(model, [X])
    for opset, says in ((13, "not lowered"), (99, "newest")):
        with pytest.raises(onnx2nn.Error, match=says):
            onnx2nn.simplify(model, opset=opset)
    after, ok = onnx2nn.simplify(model, opset=17)
    assert ok
    assert after.opset_import[0].version == 17


def test_nodes_in_nested_graphs_and_functions_too() -> None:
    info = h.make_tensor_value_info

    def branch(name: str, op: str) -> onnx.GraphProto:
        return h.make_graph(
            [h.make_node(op, ["x"], [name], axes=[1])], name, [], [info(name, T.FLOAT, ["n", 1])]
        )

    function = h.make_function(
        "local", "F", ["a"], ["b"], [h.make_node("Unsqueeze", ["a"], ["b"], axes=[0])], [h.make_opsetid("", 11)]
    )  # fmt: skip
    graph = h.make_graph(
        [
            h.make_node("If", ["c"], ["z"], then_branch=branch("s", "ReduceSum"), else_branch=branch("m", "ReduceMax")),
            h.make_node("F", ["z"], ["y"], domain="local"),
        ],
        "g",
        [info("c", T.BOOL, []), info("x", T.FLOAT, ["n", 3])],
        [info("y", T.FLOAT, [1, "n", 1])],
    )  # fmt: skip
    model = h.make_model(
        graph,
        opset_imports=[h.make_opsetid("", 12), h.make_opsetid("local", 1)],
        functions=[function],
        ir_version=8,
    )
    after = upgraded(model, 18)
    onnx.checker.check_model(after, full_check=True)
    for c in (True, False):
        feed = {"c": np.array(c), "x": f32(2, 3)}
        for a, b in zip(run(model, feed), run(after, feed), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_composed_forms_are_put_together_once_the_opset_has_them() -> None:
    """What LayerNormalization spells out becomes it, where the model is brought to opset 17."""
    nodes = [
        h.make_node("ReduceMean", ["x"], ["m"], axes=[-1]),
        h.make_node("Sub", ["x", "m"], ["d"]),
        h.make_node("Mul", ["d", "d"], ["q"]),
        h.make_node("ReduceMean", ["q"], ["v"], axes=[-1]),
        h.make_node("Add", ["v", "e"], ["w"]),
        h.make_node("Sqrt", ["w"], ["s"]),
        h.make_node("Div", ["d", "s"], ["n"]),
        h.make_node("Mul", ["n", "g"], ["k"]),
        h.make_node("Add", ["k", "b"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(a, n)
        for n, a in (("e", np.array(1e-5, np.float32)), ("g", f32(8)), ("b", f32(8)))
    ]
    info = h.make_tensor_value_info
    graph = h.make_graph(
        nodes, "g", [info("x", T.FLOAT, ["n", 8])], [info("y", T.FLOAT, ["n", 8])], weights
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=7)
    assert [n.op_type for n in upgraded(model, 17).graph.node] == ["LayerNormalization"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = model_of(Case("ReduceMean", 13, [X], {"axes": [1]}))
    declare(model, [X.mean(1, keepdims=True)])
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(model, str(path))
    assert main(["simplify", str(path), str(out), "--opset", "18"]) == 0
    assert "upgrade-opset 1" in capsys.readouterr().out
    written = out.read_bytes()
    assert onnx.load_from_string(written).opset_import[0].version == 18
    assert main(["simplify", str(path), str(out), "--opset", "11"]) == 2
    assert "not lowered to 11" in capsys.readouterr().err
    assert out.read_bytes() == written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "out.onnx"]
