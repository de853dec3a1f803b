"""If, Loop, Scan and SequenceMap as Python statements, against ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import onnx2nn

from .harness import compare, expected_outputs, run_converted, source_of

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(name: str, elem_type: int = FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, shape)


def constant(name: str, value: Any) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(value), name)


def body(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto] | None = None,
) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs, constants or [])


def check_graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    feeds: list[dict[str, Any]],
    constants: list[onnx.TensorProto] | None = None,
    opset: int = 21,
) -> str:
    """Converts once for all feeds, simplified and not; returns the source."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    for feed in feeds:
        wanted = expected_outputs(model, feed)
        for simplify in (True, False):
            got = run_converted(model, feed, simplify)
            assert len(got) == len(wanted)
            for g, w in zip(got, wanted, strict=True):
                if isinstance(w, list):
                    assert len(g) == len(w)
                    for a, b in zip(g, w, strict=True):
                        compare(a, b, 1e-5, 1e-6)
                else:
                    compare(g, w, 1e-5, 1e-6)
    return source_of(model)


N = helper.make_node
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def test_if_uses_outer_values_and_may_differ_in_shape() -> None:
    yes = body([N("Add", ["x", "one"], ["y"])], [], [info("y")], [constant("one", np.float32(1))])
    no = body([N("ReduceSum", ["x"], ["z"], keepdims=0)], [], [info("z")])
    source = check_graph(
        [N("If", ["c"], ["r"], then_branch=yes, else_branch=no), N("Neg", ["r"], ["out"])],
        [info("c", BOOL, []), info("x", FLOAT, ["a", "b"])],
        [info("out")],
        [{"c": np.array(v), "x": X} for v in (True, False)],
    )
    assert "if c:" in source
    assert "else:" in source


def test_if_gives_outer_values_and_the_same_value_twice() -> None:
    yes = body([N("Neg", ["x"], ["n"])], [], [info("n"), info("x"), info("n")])
    no = body([N("Identity", ["x"], ["i"])], [], [info("x"), info("i"), info("i")])
    yes.output[2].name = "n"
    del yes.output[2], no.output[2]
    check_graph(
        [N("If", ["c"], ["r", "s"], then_branch=yes, else_branch=no), N("Sub", ["r", "s"], ["d"])],
        [info("c", BOOL, []), info("x", FLOAT, [2, 3])],
        [info("r"), info("s"), info("d")],
        [{"c": np.array(v), "x": X} for v in (True, False)],
    )


def test_a_constant_condition_disappears() -> None:
    yes = body([N("Neg", ["x"], ["y"])], [], [info("y")])
    no = body([N("Abs", ["x"], ["z"])], [], [info("z")])
    source = check_graph(
        [N("If", ["c"], ["r"], then_branch=yes, else_branch=no)],
        [info("x", FLOAT, [2, 3])],
        [info("r")],
        [{"x": X}],
        [constant("c", True)],
    )
    assert "if " not in source.split("def forward")[1].split("def load")[0]


LOOP_IN = [info("i", INT64, []), info("go", BOOL, []), info("h")]


@pytest.mark.parametrize("trips", [0, 1, 4])
@pytest.mark.parametrize("fixed", [False, True])
def test_loop_for(trips: int, fixed: bool) -> None:
    nodes = [
        N("Cast", ["i"], ["f"], to=FLOAT),
        N("Add", ["h", "f"], ["n"]),
        N("Mul", ["n", "n"], ["s"]),
        N("Identity", ["go"], ["go_on"]),
    ]
    inner = body(nodes, LOOP_IN, [info("go_on", BOOL), info("n"), info("s", FLOAT, [2, 3])])
    n = np.array(trips)
    source = check_graph(
        [N("Loop", ["count", "", "x"], ["last", "all"], body=inner)],
        [info("x", FLOAT, [2, 3])] + ([] if fixed else [info("count", INT64, [])]),
        [info("last"), info("all")],
        [{"x": X} if fixed else {"x": X, "count": n}],
        [constant("count", n)] if fixed else [],
    )
    # One trip needs no loop.
    assert ("for i in range(" in source) == (not fixed or trips != 1)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("trips", ["", "count"])
def test_loop_with_a_condition(start: bool, trips: str) -> None:
    nodes = [
        N("Mul", ["h", "two"], ["n"]),
        N("ReduceMax", ["n"], ["m"], keepdims=0),
        N("Less", ["m", "limit"], ["go_on"]),
    ]
    inner = body(
        nodes,
        LOOP_IN,
        [info("go_on", BOOL), info("n"), info("m", FLOAT, [])],
        [constant("two", np.float32(2)), constant("limit", np.float32(20))],
    )
    source = check_graph(
        [N("Loop", [trips, "c", "x"], ["last", "all"], body=inner)],
        [info("x", FLOAT, [2, 3]), info("c", BOOL, [])],
        [info("last"), info("all")],
        [{"x": X, "c": np.array(start)}],
        [constant("count", np.array(3))] if trips else [],
    )
    assert ("while " if not trips else "break") in source


def test_loop_swaps_its_values() -> None:
    inner = body(
        [N("Identity", ["go"], ["go_on"]), N("Add", ["a", "b"], ["s"])],
        [info("i", INT64, []), info("go", BOOL, []), info("a"), info("b"), info("k")],
        [info("go_on", BOOL), info("b"), info("s"), info("k"), info("a")],
    )
    check_graph(
        [N("Loop", ["count", "", "x", "y", "x"], ["p", "q", "r", "all"], body=inner)],
        [info("x", FLOAT, [3]), info("y", FLOAT, [3]), info("count", INT64, [])],
        [info("p"), info("q"), info("r"), info("all")],
        [{"x": X[0], "y": X[1], "count": np.array(v)} for v in (1, 2, 5)],
    )


def test_a_shape_that_grows() -> None:
    inner = body(
        [N("Concat", ["h", "x"], ["n"], axis=0), N("Identity", ["go"], ["go_on"])],
        LOOP_IN,
        [info("go_on", BOOL), info("n")],
    )
    check_graph(
        [N("Loop", ["count", "", "x"], ["last"], body=inner), N("Shape", ["last"], ["s"])],
        [info("x", FLOAT, [2, 3]), info("count", INT64, [])],
        [info("last"), info("s", INT64)],
        [{"x": X, "count": np.array(v)} for v in (0, 1, 3)],
    )


def test_nested_loops_and_ifs() -> None:
    yes = body([N("Add", ["v", "x"], ["y"])], [], [info("y")])
    no = body([N("Sub", ["v", "h"], ["z"])], [], [info("z")])
    inside = body(
        [
            N("Equal", ["j", "i"], ["same"]),
            N("If", ["same"], ["w"], then_branch=yes, else_branch=no),
            N("Identity", ["g2"], ["g3"]),
        ],
        [info("j", INT64, []), info("g2", BOOL, []), info("v")],
        [info("g3", BOOL), info("w")],
    )
    outside = body(
        [N("Loop", ["count", "", "h"], ["n2"], body=inside), N("Identity", ["go"], ["go_on"])],
        LOOP_IN,
        [info("go_on", BOOL), info("n2"), info("n2")],
    )
    del outside.output[2]
    check_graph(
        [N("Loop", ["count", "", "x"], ["last"], body=outside)],
        [info("x", FLOAT, [2, 3]), info("count", INT64, [])],
        [info("last")],
        [{"x": X, "count": np.array(3)}],
    )


def test_a_carried_sequence() -> None:
    inner = body(
        [
            N("SequenceInsert", ["h", "x"], ["n"]),
            N("SequenceInsert", ["n", "h0", "i"], ["n2"]),
            N("SequenceAt", ["n2", "i"], ["h0b"]),
            N("Identity", ["go"], ["go_on"]),
        ],
        [
            info("i", INT64, []),
            info("go", BOOL, []),
            helper.make_tensor_sequence_value_info("h", FLOAT, None),
            info("h0"),
        ],
        [
            info("go_on", BOOL),
            helper.make_tensor_sequence_value_info("n2", FLOAT, None),
            info("h0b"),
        ],
    )
    check_graph(
        [
            N("SequenceEmpty", [], ["e"]),
            N("Loop", ["count", "", "e", "x"], ["seq", "last"], body=inner),
            N("SequenceLength", ["seq"], ["length"]),
        ],
        [info("x", FLOAT, [2, 3]), info("count", INT64, [])],
        [
            helper.make_tensor_sequence_value_info("seq", FLOAT, None),
            info("last"),
            info("length", INT64, []),
        ],
        [{"x": X, "count": np.array(v)} for v in (0, 2)],
    )


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("opset", [9, 11, 21])
def test_scan(reverse: int, axis: int, opset: int) -> None:
    if opset == 9 and axis < 0:
        pytest.skip("negative axes came with opset 11")
    size = 3 if axis == 0 else 2
    inner = body(
        [N("Add", ["s", "a"], ["t"]), N("Mul", ["t", "b"], ["y"])],
        [info("s", FLOAT, [size]), info("a", FLOAT, [size]), info("b", FLOAT, [])],
        [info("t", FLOAT, [size]), info("y", FLOAT, [size])],
    )
    b = np.arange(2 if axis == 0 else 3, dtype=np.float32)
    node = N(
        "Scan",
        ["s0", "x", "b"],
        ["last", "ys"],
        body=inner,
        num_scan_inputs=2,
        scan_input_axes=[axis, 0],
        scan_output_axes=[axis],
        scan_input_directions=[reverse, 0],
        scan_output_directions=[reverse],
    )
    check_graph(
        [node],
        [info("s0", FLOAT, [size]), info("x", FLOAT, [2, 3]), info("b", FLOAT, list(b.shape))],
        [info("last"), info("ys")],
        [{"s0": np.ones(size, np.float32), "x": X, "b": b}],
        opset=opset,
    )


@pytest.mark.parametrize("lengths", [None, [3, 1]])
def test_scan_of_batches(lengths: list[int] | None) -> None:
    inner = body(
        [N("Add", ["s", "a"], ["t"]), N("Neg", ["t"], ["y"])],
        [info("s", FLOAT, [2]), info("a", FLOAT, [2])],
        [info("t", FLOAT, [2]), info("y", FLOAT, [2])],
    )
    feeds = {
        "s0": np.ones((2, 2), np.float32),
        "x": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
    }
    if lengths:
        feeds = {"lengths": np.array(lengths)} | feeds
    types = {"lengths": INT64}
    check_graph(
        [
            N(
                "Scan",
                ["lengths" if lengths else "", "s0", "x"],
                ["last", "ys"],
                body=inner,
                num_scan_inputs=1,
            )
        ],
        [info(k, types.get(k, FLOAT), list(v.shape)) for k, v in feeds.items()],
        [info("last"), info("ys")],
        [feeds],
        opset=8,
    )


def test_sequence_map() -> None:
    inner = body(
        [N("Add", ["a", "b"], ["s"]), N("Shape", ["s"], ["d"])],
        [info("a"), info("b")],
        [info("s"), info("d", INT64)],
    )
    sequence = helper.make_tensor_sequence_value_info
    check_graph(
        [
            N("SequenceConstruct", ["x", "y"], ["q"]),
            N("SequenceMap", ["q", "x"], ["r", "e"], body=inner),
        ],
        [info("x", FLOAT, [2, 3]), info("y", FLOAT, [3])],
        [sequence("r", FLOAT, None), sequence("e", INT64, None)],
        [{"x": X, "y": X[0]}],
    )


def test_branches_that_list_what_they_use() -> None:
    """Branches have no inputs, but some writers list the outer values that they use as such."""

    def branch(op_type: str) -> onnx.GraphProto:
        seen = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
        out = helper.make_tensor_value_info(op_type, onnx.TensorProto.FLOAT, [2])
        return helper.make_graph([helper.make_node(op_type, ["x"], [op_type])], "b", [seen], [out])

    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("Neg"), else_branch=branch("Exp")
    )
    ends = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2]),
    ]
    graph = helper.make_graph([node], "g", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    net = onnx2nn.load(model.SerializeToString())
    x = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(net(x, torch.tensor(True)), -x)
    torch.testing.assert_close(net(x, torch.tensor(False)), x.exp())
