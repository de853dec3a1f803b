"""Operators that pick and place elements: negative indices, narrow dtypes, reductions, dynamic shapes."""

from typing import Any

import numpy as np
import pytest

import onnx2nn

from .harness import check, node_model

DTYPES = ["float32", "float16", "int8", "uint16", "uint64", "bool"]


def values(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return (np.arange(int(np.prod(shape, dtype=np.int64))) % 100).reshape(shape).astype(dtype)


def ints(*numbers: Any, dtype: str = "int64") -> np.ndarray[Any, Any]:
    return np.array(numbers, dtype=dtype)


INDICES = [
    np.array(1),
    np.array(-1),
    ints(2),
    ints(-1),
    ints(0, 1),
    ints(-2, -1),
    ints(2, 0, -1),
    ints([0, -1], [1, 1]),
    ints(1, 2, dtype="int32"),
    np.zeros((0,), np.int64),
]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("indices", INDICES)
def test_gather(indices: Any, axis: int, dynamic: bool, constant: bool) -> None:
    inputs = [values(3, 4, 5), indices]
    check(
        "Gather",
        inputs,
        opset=13,
        attrs={"axis": axis},
        constants=[1] if constant else [],
        dynamic=dynamic,
    )


def test_gather_from_a_table() -> None:
    table = values(10, 4)
    source = check("Gather", [table, ints([1, 2], [9, 0])], opset=13, constants=[0], dynamic=True)
    assert "nn.Embedding(10, 4)" in source
    check("Gather", [table, ints(-1, 2)], opset=13, constants=[0, 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constant", [False, True])
def test_every_dtype(dtype: str, constant: bool) -> None:
    x, index = values(3, 4, dtype=dtype), ints([0, 2, 1, 0], [1, 0, 0, 2])
    constants = [1] if constant else []
    check("Gather", [x, ints(2, 0)], opset=13, constants=constants)
    check("GatherElements", [x, index], opset=13, constants=constants)
    check("GatherND", [x, ints([0, 1], [2, 3])], opset=13, constants=constants)
    check(
        "ScatterElements", [x, index[:1], values(1, 4, dtype=dtype)], opset=18, constants=constants
    )
    check(
        "ScatterND", [x, ints([2], [0]), values(2, 4, dtype=dtype)], opset=18, constants=constants
    )
    check("Trilu", [x], opset=14)
    check("NonZero", [x], opset=13)
    check("Where", [x.astype(bool), x, x.T.reshape(3, 4)], opset=16)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis: int) -> None:
    index = ints([0, -1], [1, 0])
    check("GatherElements", [values(2, 3), index], opset=13, attrs={"axis": axis}, dynamic=True)


@pytest.mark.parametrize(
    ("shape", "indices", "batch"),
    [
        ((2, 3, 4), [[0, 1], [-1, 2]], 0),
        ((2, 3, 4), [[0], [1]], 0),
        ((2, 3, 4), [[[1], [0]], [[2], [-1]]], 1),
        ((2, 2, 3), [[[1], [0]], [[2], [0]]], 2),
        ((2, 3), [0, 1], 0),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_gather_nd(shape: Any, indices: Any, batch: int, dynamic: bool) -> None:
    attrs = {"batch_dims": batch} if batch else {}
    check("GatherND", [values(*shape), ints(*indices)], opset=12, attrs=attrs, dynamic=dynamic)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_scatter(reduction: str, dtype: str) -> None:
    attrs = {"reduction": reduction}
    x = values(4, 4, dtype=dtype) + np.ones((), dtype)
    updates = (values(2, 4, dtype=dtype) - 3).astype(dtype)
    index = ints([0, 1, -1, 2], [2, 3, 0, 1])
    check("ScatterElements", [x, index, updates], opset=18, attrs=attrs, dynamic=True)
    check(
        "ScatterElements",
        [x, index.T[:, :2], updates.T[:, :2]],
        opset=18,
        attrs={**attrs, "axis": 1},
    )
    check("ScatterND", [x, ints([1], [-1]), updates], opset=18, attrs=attrs, dynamic=True)
    check("ScatterND", [x, ints([1, 2], [-1, 0]), updates[0, :2]], opset=18, attrs=attrs)
    if reduction == "none":
        check("Scatter", [x, abs(index), updates], opset=9)
        check("ScatterElements", [x, index, updates], opset=11)
    if reduction == "add":
        twice = ints([1], [1])
        check("ScatterND", [x, twice, updates], opset=16, attrs=attrs)


@pytest.mark.parametrize("constants", [[], [1], [2], [1, 2], [0]])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "bool"])
def test_where(constants: Any, dtype: str) -> None:
    condition = np.array([[True], [False]])
    for scalar in (1, 2):
        inputs = [condition, values(2, 3, dtype=dtype), values(3, dtype=dtype)]
        inputs[scalar] = np.array(5).astype(dtype)
        check("Where", inputs, opset=16, constants=constants, dynamic=True)
    check(
        "Where",
        [condition, np.array(1).astype(dtype), np.array(0).astype(dtype)],
        opset=16,
        constants=constants,
    )


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(opset: int, axis: int) -> None:
    inputs = [ints(1, -1, 7, 0), np.array([5]), np.array([2.0, 5.0], np.float32)]
    for constants in [[], [1], [1, 2]]:
        check("OneHot", inputs, opset=opset, attrs={"axis": axis}, constants=constants)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("mask", [[True, False], [False, True, True]])
def test_compress(axis: Any, mask: Any) -> None:
    attrs = {} if axis is None else {"axis": axis}
    check("Compress", [values(3, 3), np.array(mask)], opset=11, attrs=attrs)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("sorted_", [0, 1])
def test_unique(axis: Any, sorted_: int) -> None:
    attrs = {"sorted": sorted_} | ({} if axis is None else {"axis": axis})
    x = np.array([[2, 1, 2], [0, 1, 0], [2, 1, 2]], np.float32)
    check("Unique", [x], opset=11, attrs=attrs, outputs=4)
    check("Unique", [x], opset=11, attrs=attrs, outputs=[True, False, True])


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, -1, 0, 2])
@pytest.mark.parametrize("constant", [False, True])
def test_trilu(upper: int, k: Any, constant: bool) -> None:
    inputs = [values(2, 3, 4)] + ([] if k is None else [np.array(k)])
    constants = [1] if constant and k is not None else []
    check("Trilu", inputs, opset=14, attrs={"upper": upper}, constants=constants, dynamic=True)


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(mode: str) -> None:
    inputs = [values(2, 4, 3), values(2, 1, 3) - 9, ints(1, 3)]
    check("TensorScatter", inputs, opset=24, attrs={"mode": mode})


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_an_unknown_reduction_is_refused(op: str) -> None:
    inputs = [values(3, 2), ints([1, 0]), values(1, 2)]
    model, _ = node_model(op, inputs, opset=18, attrs={"reduction": "median"})
    with pytest.raises(onnx2nn.Error, match="the reduction 'median' is none of"):
        onnx2nn.load(model.SerializeToString())
