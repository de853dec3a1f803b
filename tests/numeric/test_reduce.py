"""Reductions, ArgMax, TopK, CumSum: every opset, all types, empty axes and empty tensors."""

from typing import Any

import numpy as np
import pytest

from .harness import check

OPS = [
    "ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
]  # fmt: skip
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def floats(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(0.2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("opset", [1, 11, 18])
@pytest.mark.parametrize("axes", [None, [1], [0, 2], [-1], [0, 1, 2], [2, 0]])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op", OPS)
def test_reduce(op: str, keepdims: int, axes: Any, opset: int) -> None:
    if opset == 1 and axes == [-1]:
        pytest.skip("negative axes came with opset 11")
    x = floats(2, 3, 4)
    as_input = opset >= 18 or (opset == 13 and op == "ReduceSum")
    attrs: dict[str, Any] = {"keepdims": keepdims}
    inputs: list[Any] = [x]
    if axes is not None and as_input:
        inputs.append(np.array(axes))
    elif axes is not None:
        attrs["axes"] = axes
    wanted = reference(op, x, axes, bool(keepdims))
    dynamic = keepdims == 1
    check(op, inputs, opset=opset, attrs=attrs, constants=[1], expected=[wanted], dynamic=dynamic)


def reference(op: str, x: Any, axes: Any, keep: bool) -> Any:
    a = None if axes is None else tuple(axes)
    w = x.astype(np.float64)
    out = {
        "ReduceSum": lambda: w.sum(a, keepdims=keep),
        "ReduceMean": lambda: w.mean(a, keepdims=keep),
        "ReduceProd": lambda: w.prod(a, keepdims=keep),
        "ReduceMax": lambda: w.max(a, keepdims=keep),
        "ReduceMin": lambda: w.min(a, keepdims=keep),
        "ReduceL1": lambda: np.abs(w).sum(a, keepdims=keep),
        "ReduceL2": lambda: np.sqrt((w * w).sum(a, keepdims=keep)),
        "ReduceLogSum": lambda: np.log(w.sum(a, keepdims=keep)),
        "ReduceLogSumExp": lambda: np.log(np.exp(w).sum(a, keepdims=keep)),
        "ReduceSumSquare": lambda: (w * w).sum(a, keepdims=keep),
    }[op]()
    return np.asarray(out).astype(x.dtype)


@pytest.mark.parametrize("op", OPS)
def test_axes_known_at_run_time(op: str) -> None:
    x = floats(2, 3, 4)
    opset = 13 if op == "ReduceSum" else 18
    check(op, [x, np.array([0, -1])], opset=opset, expected=[reference(op, x, [0, 2], True)])


@pytest.mark.parametrize("op", OPS)
def test_no_axes_leave_each_element(op: str) -> None:
    x = floats(2, 3)
    check(
        op, [x, np.array([], np.int64)], opset=18, constants=[1], attrs={"noop_with_empty_axes": 1}
    )
    check(op, [x], opset=18, attrs={"noop_with_empty_axes": 1})
    check(op, [x, np.array([], np.int64)], opset=18, constants=[1])


@pytest.mark.parametrize("op", OPS)
def test_scalar(op: str) -> None:
    x = np.array(2.5, np.float32)
    check(op, [x], opset=18, attrs={"keepdims": 0}, expected=[reference(op, x, None, False)])


@pytest.mark.parametrize(
    "op",
    [
        "ReduceSum",
        "ReduceProd",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
    ],
)
def test_nothing_gives_the_identity(op: str) -> None:
    identity = {
        "ReduceProd": 1.0,
        "ReduceMax": -np.inf,
        "ReduceMin": np.inf,
        "ReduceLogSumExp": -np.inf,
    }
    wanted = np.full((2, 1, 4), identity.get(op, 0.0), np.float32)
    # A 0 in the shape of an input is a size that is not known, and torch has no largest of nothing: that of
    # a constant is known to be nothing.
    check(
        op,
        [np.zeros((2, 0, 4), np.float32), np.array([1])],
        opset=18,
        constants=[0, 1] if op in ("ReduceMax", "ReduceMin") else [1],
        expected=[wanted],
    )


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    "op",
    [
        "ReduceSum",
        "ReduceMean",
        "ReduceProd",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceSumSquare",
    ],
)
def test_integers(op: str, dtype: str) -> None:
    x = np.random.default_rng(0).integers(1, 3, (2, 3)).astype(dtype)
    functions: dict[str, Any] = {
        "ReduceSum": lambda: x.sum(1, dtype=dtype),
        "ReduceMean": lambda: (x.astype(np.int64).sum(1) // 3).astype(dtype),
        "ReduceProd": lambda: x.prod(1, dtype=dtype),
        "ReduceMax": lambda: x.max(1),
        "ReduceMin": lambda: x.min(1),
        "ReduceL1": lambda: x.sum(1, dtype=dtype),
        "ReduceSumSquare": lambda: (x * x).sum(1, dtype=dtype),
    }
    axes = np.array([1])
    check(op, [x, axes], opset=18, constants=[1], attrs={"keepdims": 0}, expected=[functions[op]()])


def test_bool_extremes() -> None:
    x = np.array([[True, False], [True, True], [False, False]])
    for op, wanted in (("ReduceMax", x.max(1)), ("ReduceMin", x.min(1))):
        check(
            op,
            [x, np.array([1])],
            opset=20,
            constants=[1],
            attrs={"keepdims": 0},
            expected=[wanted],
        )


def test_mean_reads_as_in_torch() -> None:
    source = check("ReduceMean", [floats(2, 3, 4, 4)], opset=13, attrs={"axes": [2, 3]})
    assert "x0.mean(dim=(2, 3), keepdim=True)" in source


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "int8"])
@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"axis": 1},
        {"axis": -1, "keepdims": 0},
        {"axis": 1, "select_last_index": 1},
        {"axis": 0, "keepdims": 0, "select_last_index": 1},
    ],
)
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_arg(op: str, attrs: Any, dtype: str) -> None:
    x = np.array([[2, 1, 2, 3, 3], [5, 1, 5, 1, 1]], dtype)
    check(op, [x], opset=13, attrs=attrs)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("constants", [(), (1,)])
@pytest.mark.parametrize(
    "attrs", [{}, {"axis": 0}, {"axis": 1, "largest": 0}, {"sorted": 0, "largest": 0}]
)
def test_top_k(attrs: Any, constants: Any, dynamic: bool) -> None:
    x = np.array([[2, 1, 2, 3, 3], [5, 1, 5, 1, 1], [0, 0, 0, 0, 0]], np.float32)
    k = np.array([2])
    check(
        "TopK",
        [x, k],
        opset=11,
        attrs={**attrs, "sorted": 1},
        constants=constants,
        outputs=2,
        dynamic=dynamic,
    )
    check(
        "TopK",
        [x, k],
        opset=11,
        attrs={**attrs, "sorted": 1},
        constants=constants,
        outputs=[True, False],
    )


def test_top_k_whose_places_are_left_out() -> None:
    x = floats(3, 6)
    wanted = [-np.sort(-x, axis=1)[:, :2]]
    check("TopK", [x, np.array([2])], opset=11, attrs={"axis": 1}, outputs=1, expected=wanted)


def test_old_top_k() -> None:
    x = floats(3, 6)
    order = np.argsort(-x, axis=1)[:, :2]
    wanted = [np.take_along_axis(x, order, 1), order]
    check("TopK", [x], opset=1, attrs={"k": 2, "axis": 1}, outputs=2, expected=wanted)
    check(
        "TopK",
        [x, np.array([2])],
        opset=10,
        attrs={"axis": 1},
        constants=[1],
        outputs=2,
        expected=wanted,
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("constants", [(), (1,)])
def test_cum_sum(axis: int, exclusive: int, reverse: int, constants: Any) -> None:
    attrs = {"exclusive": exclusive, "reverse": reverse}
    for x in (floats(3, 4), np.arange(12, dtype=np.int32).reshape(3, 4)):
        check("CumSum", [x, np.array(axis)], opset=14, attrs=attrs, constants=constants)
    check("CumProd", [floats(3, 4), np.array(axis)], opset=26, attrs=attrs, constants=constants)
