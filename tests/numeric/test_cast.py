"""Cast, CastLike and BitCast between the types that numpy has; the others are the runtime tests'."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import onnx2nn

from .harness import check, node_model, source_of

TYPES = [
    "float16", "float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool",
]  # fmt: skip


def code(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


@pytest.mark.parametrize("to", TYPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_cast(dtype: str, to: str) -> None:
    x = np.array([[0, 1, 2.75], [100, 3, 7]]).astype(dtype)
    check("Cast", [x], opset=13, attrs={"to": code(to)}, expected=[x.astype(to)], dynamic=True)


def test_integers_wrap() -> None:
    x = np.array([200, -1, 300, 65536 + 5], np.int32)
    for to in ("int8", "uint8", "int16", "uint16", "uint32", "int64"):
        check("Cast", [x], opset=13, attrs={"to": code(to)}, expected=[x.astype(to)])


def test_opset_1_spells_the_type() -> None:
    x = np.array([1.5, -2.5], np.float32)
    check("Cast", [x], opset=1, attrs={"to": "INT32"}, expected=[x.astype(np.int32)])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_shapes(shape: Any) -> None:
    x = np.zeros(shape, np.float32)
    check("Cast", [x], opset=13, attrs={"to": code("int64")}, expected=[x.astype(np.int64)])


def test_strings() -> None:
    x = np.array(["1", "2.5", "-3e2"], object)
    check("Cast", [x], opset=13, attrs={"to": code("float32")})
    check("Cast", [np.array([1, -5])], opset=13, attrs={"to": 8})


def test_cast_like() -> None:
    x = np.array([1.7, -2.2], np.float32)
    check("CastLike", [x, np.zeros(3, np.int32)], opset=15, expected=[x.astype(np.int32)])


def test_cast_to_its_own_type_is_nothing() -> None:
    model, _ = node_model("Cast", [np.zeros(3, np.float32)], opset=13, attrs={"to": 1})
    assert ".to(" not in source_of(model)


@pytest.mark.parametrize(
    "dtype, to",
    [("float32", "int32"), ("uint8", "int8"), ("int64", "float64"), ("uint16", "float16")],
)
def test_bit_cast(dtype: str, to: str) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    check("BitCast", [x], opset=26, attrs={"to": code(to)}, expected=[x.view(to)])


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "kind, dtype",
    [
        (onnx.TensorProto.FLOAT6E2M3, ml_dtypes.float6_e2m3fn),
        (onnx.TensorProto.FLOAT6E3M2, ml_dtypes.float6_e3m2fn),
    ],
)
@pytest.mark.parametrize("n", [1, 4, 7, 11])
def test_constants_of_six_bits(kind: int, dtype: Any, raw: bool, n: int) -> None:
    """Four in three bytes of raw_data, or one an entry of int32_data."""
    weight = np.linspace(-9, 9, n, dtype=np.float32).astype(dtype)
    tensor = onnx.numpy_helper.from_array(weight, "w")
    if not raw:
        tensor.ClearField("raw_data")
        tensor.int32_data.extend(weight.view(np.uint8).tolist())
    nodes = [
        helper.make_node("Cast", ["w"], ["a"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["a", "x"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, [n]) for v in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)])
    x = np.arange(n, dtype=np.float32)
    net = onnx2nn.load(model.SerializeToString())
    np.testing.assert_array_equal(net(torch.from_numpy(x)).numpy(), weight.astype(np.float32) + x)
