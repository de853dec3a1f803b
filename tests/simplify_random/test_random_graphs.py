"""Random graphs keep their meaning when simplified, and the faults that such graphs have found stay mended."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from simplify_random.trial import Found, checks, differs, run, simplified, smallest, trial

GRAPHS = 2000
GROUPS = 8
# More than these that do not even run would make the others a poor sample.
MOST_UNFIT = 0.02


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_graphs(group: int) -> None:
    each = GRAPHS // GROUPS
    unfit, wrong = 0, []
    for seed in range(group * each, (group + 1) * each):
        found = trial(seed)
        unfit += found is True
        if isinstance(found, Found):
            size, least = smallest(seed)
            wrong.append(f"seed {seed}, size {size}: {least}")
    assert not wrong, "\n".join(wrong)
    assert unfit <= MOST_UNFIT * each


def test_a_wrong_rewrite_is_noticed() -> None:
    a, b = np.array([1.0, 2.0], np.float32), np.array([1.0, 2.5], np.float32)
    assert differs([a], [a.copy()]) is None
    assert differs([a], [b]) is not None
    assert differs([a], [a.astype(np.float64)]) is not None
    assert differs([np.array([1])], [np.array([2])]) is not None


def model(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: dict[str, Any],
    opset: int,
    ir_version: int,
) -> bytes:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    if ir_version < 4:
        inputs = inputs + [h.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = h.make_graph(nodes, "g", inputs, outputs, tensors)
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(made.SerializeToString())


def settled(before: bytes, feed: dict[str, Any]) -> list[str]:
    """The operators of the simplified model: it is right, valid, and stays as it is."""
    result = simplified(before)
    assert simplified(result["model"])["model"] == result["model"]
    assert differs(run(before, feed), run(result["model"], feed)) is None
    assert checks(result["model"])
    return [n.op_type for n in onnx.load_from_string(result["model"]).graph.node]


def test_integer_constants_of_files_before_opset_9() -> None:
    before = model(
        [h.make_node("Shape", ["x"], ["y"])],
        [h.make_tensor_value_info("x", T.FLOAT, [4, 3, 1])],
        [h.make_tensor_value_info("y", T.INT64, [3])],
        {},
        opset=7,
        ir_version=3,
    )
    assert settled(before, {"x": np.zeros((4, 3, 1), np.float32)}) == []


def test_an_operator_is_fused_once_its_other_user_is_dead() -> None:
    before = model(
        [
            h.make_node("MatMul", ["x", "w"], ["m"]),
            h.make_node("Add", ["m", "b"], ["y"]),
            h.make_node("Relu", ["m"], ["unused"]),
        ],
        [h.make_tensor_value_info("x", T.FLOAT, [5, 2])],
        [h.make_tensor_value_info("y", T.FLOAT, [5, 4])],
        {"w": np.arange(8, dtype=np.float32).reshape(2, 4), "b": np.ones(4, np.float32)},
        opset=13,
        ir_version=7,
    )
    assert settled(before, {"x": np.ones((5, 2), np.float32)}) == ["Gemm"]


def test_a_norm_is_fused_once_its_weight_has_no_other_user() -> None:
    weight = np.arange(12, dtype=np.float32).reshape(4, 3, 1, 1)
    before = model(
        [
            h.make_node("Conv", ["x", "w"], ["c"]),
            h.make_node("Conv", ["x", "w"], ["unused"]),
            h.make_node("Mul", ["c", "s"], ["y"]),
            h.make_node("Relu", ["unused"], ["dead"]),
        ],
        [h.make_tensor_value_info("x", T.FLOAT, [1, 3, 2, 2])],
        [h.make_tensor_value_info("y", T.FLOAT, [1, 4, 2, 2])],
        {"w": weight, "s": np.full((1, 4, 1, 1), 2, np.float32)},
        opset=13,
        ir_version=7,
    )
    assert settled(before, {"x": np.ones((1, 3, 2, 2), np.float32)}) == ["Conv"]


def test_flattening_what_is_flat_though_its_size_is_open() -> None:
    before = model(
        [
            h.make_node("Reshape", ["x", "a"], ["r"]),
            h.make_node("Reshape", ["r", "b"], ["y"]),
            h.make_node("Neg", ["y"], ["z"]),
        ],
        [h.make_tensor_value_info("x", T.INT32, [None])],
        [h.make_tensor_value_info("z", T.INT32, [None])],
        {"a": np.array([4, 1]), "b": np.array([-1])},
        opset=19,
        ir_version=9,
    )
    assert settled(before, {"x": np.arange(4, dtype=np.int32)}) == ["Neg"]


def test_what_is_fused_once_a_far_user_is_dead() -> None:
    """A node in the middle of a normalisation was used by a dead one too."""
    before = model(
        [
            h.make_node("ReduceMean", ["x", "axes"], ["m"]),
            h.make_node("Sub", ["x", "m"], ["d"]),
            h.make_node("Pow", ["d", "two"], ["q"]),
            h.make_node("ReduceMean", ["q", "axes"], ["v"]),
            h.make_node("Add", ["v", "e"], ["w"]),
            h.make_node("Sqrt", ["w"], ["s"]),
            h.make_node("Div", ["d", "s"], ["y"]),
            h.make_node("Relu", ["q"], ["dead"]),
        ],
        [h.make_tensor_value_info("x", T.FLOAT, [3, 4])],
        [h.make_tensor_value_info("y", T.FLOAT, [3, 4])],
        {"axes": [1], "two": np.float32(2), "e": np.float32(1e-5)},
        opset=20,
        ir_version=9,
    )
    feed = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}
    assert settled(before, feed) == ["LayerNormalization"]


@pytest.mark.parametrize("ir_version", [4, 6, 8])
def test_defaults_stay_defaults_where_no_weight_is_left(ir_version: int) -> None:
    """All initialisers being inputs says "old exporter" in old files: not so in what we write."""
    inputs = [h.make_tensor_value_info(n, T.FLOAT, [2]) for n in ("x", "c", "d", "unused")]
    before = model(
        [
            h.make_node("Add", ["x", "c"], ["a"]),
            h.make_node("Mul", ["a", "d"], ["y"]),
            h.make_node("Add", ["x", "weight"], ["dead"]),
        ],
        inputs,
        [h.make_tensor_value_info("y", T.FLOAT, [2])],
        {n: np.full(2, k, np.float32) for k, n in enumerate(("c", "d", "unused", "weight"))},
        opset=11,
        ir_version=ir_version,
    )
    feed = {n: np.array([k, 2.5], np.float32) for k, n in enumerate(("x", "c", "d"))}
    assert settled(before, feed) == ["Add", "Mul"]
    twice = onnx.load_from_string(simplified(simplified(before)["model"])["model"])
    assert [v.name for v in twice.graph.input] == ["x", "c", "d", "unused"]


def test_unsqueezing_along_an_axis_that_a_caller_gives_settles() -> None:
    """The rank is known by the number of axes, however the value came to be known before."""
    info = h.make_tensor_value_info
    body = h.make_graph(
        [h.make_node("Identity", ["k"], ["k2"]), h.make_node("Relu", ["s"], ["s2"])],
        "body",
        [info("i", T.INT64, []), info("k", T.BOOL, []), info("s", T.FLOAT, None)],
        [info("k2", T.BOOL, []), info("s2", T.FLOAT, None)],
    )
    before = model(
        [
            h.make_node("Unsqueeze", ["x", "axis"], ["u"]),
            h.make_node("Transpose", ["u"], ["t"], perm=[0, 1]),
            h.make_node("Loop", ["three", "", "t"], ["z"], body=body),
        ],
        [info("x", T.FLOAT, [2]), info("axis", T.INT64, [1])],
        [info("z", T.FLOAT, None), info("t", T.FLOAT, None)],
        {"axis": np.array([-2]), "three": np.int64(3)},
        opset=18,
        ir_version=8,
    )
    result = simplified(before)
    assert [n.op_type for n in onnx.load_from_string(result["model"]).graph.node] == [
        "Unsqueeze",
        "Loop",
    ]
    assert simplified(result["model"])["model"] == result["model"]
    feed = {"x": np.ones(2, np.float32)}
    assert differs(run(before, feed), run(result["model"], feed)) is None


def test_the_opset_of_a_file_too_old_to_say_it() -> None:
    """IR version 1 had no opsets, and files of it say theirs all the same."""
    before = model(
        [h.make_node("Add", ["x", "c"], ["y"])],
        [h.make_tensor_value_info("x", T.FLOAT, [2, 3])],
        [h.make_tensor_value_info("y", T.FLOAT, [2, 3])],
        {"c": np.ones((3,), np.float32)},
        opset=7,
        ir_version=1,
    )
    after = onnx.load_from_string(simplified(before)["model"])
    assert [(o.domain, o.version) for o in after.opset_import] == [("", 7)]
