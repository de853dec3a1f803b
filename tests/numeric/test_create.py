"""Operators that make tensors, by constants and by values known only at run time."""

from typing import Any

import numpy as np
import onnx
import pytest

from .harness import check, node_model, run_converted


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int64", "int32", "uint8", "uint16", "bool"]
)
@pytest.mark.parametrize("value", [0, 1, 7, -0.0])
@pytest.mark.parametrize("constant", [False, True])
def test_constant_of_shape(dtype: str, value: float, constant: bool) -> None:
    attrs = {"value": onnx.numpy_helper.from_array(np.array([value]).astype(dtype))}
    for shape in ([2, 3], [0], [2]):
        check(
            "ConstantOfShape",
            [np.array(shape)],
            opset=20,
            attrs=attrs,
            constants=[0] if constant else [],
        )


def test_constant_of_shape_defaults() -> None:
    check("ConstantOfShape", [np.array([2, 3])], opset=9)
    check("ConstantOfShape", [np.zeros([0], np.int64)], opset=9)


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "float64"])
@pytest.mark.parametrize(
    ("start", "limit", "delta"), [(0, 5, 1), (2, 9, 3), (9, 2, -3), (5, 0, 1), (0, 0, 1)]
)
@pytest.mark.parametrize("constants", [[], [0, 2], [0, 1, 2]])
def test_range(start: int, limit: int, delta: int, dtype: str, constants: Any) -> None:
    inputs = [np.array(v).astype(dtype) for v in (start, limit, delta)]
    check("Range", inputs, opset=11, constants=constants)


@pytest.mark.parametrize("k", [0, 1, -1])
@pytest.mark.parametrize("dtype", [None, 7, 1])
def test_eye_like(k: int, dtype: Any) -> None:
    attrs = {"k": k} | ({} if dtype is None else {"dtype": dtype})
    check("EyeLike", [np.zeros((3, 4), np.int32)], opset=9, attrs=attrs, dynamic=True)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("RandomNormalLike", {}),
        ("RandomNormalLike", {"mean": 5.0, "scale": 0.1, "seed": 1.0, "dtype": 11}),
        ("RandomUniformLike", {"low": 2.0, "high": 3.0}),
        ("Bernoulli", {}),
        ("Bernoulli", {"dtype": 6, "seed": 2.0}),
    ],
)
def test_random_like(op: str, attrs: dict[str, Any]) -> None:
    x = np.full((50, 40), 0.25, np.float32)
    model, feeds = node_model(op, [x], opset=15, attrs=attrs, dynamic=True)
    (got,) = run_converted(model, feeds, True)
    dtype = {1: "float32", 6: "int32", 11: "float64"}[attrs.get("dtype", 1)]
    assert got.numpy().dtype == dtype
    assert got.shape == x.shape
    means = {
        "RandomNormalLike": attrs.get("mean", 0.0),
        "RandomUniformLike": 2.5,
        "Bernoulli": 0.25,
    }
    assert abs(got.double().mean().item() - means[op]) < 0.1


@pytest.mark.parametrize("op", ["RandomNormal", "RandomUniform"])
def test_random(op: str) -> None:
    model, feeds = node_model(op, [], opset=1, attrs={"shape": [30, 40], "seed": 3.0})
    (got,) = run_converted(model, feeds, True)
    assert got.shape == (30, 40)
    assert abs(got.mean().item() - (0.5 if op == "RandomUniform" else 0)) < 0.1


def test_multinomial() -> None:
    x = np.log(np.array([[0.1, 0.9], [0.5, 0.5]], np.float32))
    model, feeds = node_model("Multinomial", [x], opset=7, attrs={"sample_size": 2000, "dtype": 7})
    (got,) = run_converted(model, feeds, True)
    assert got.shape == (2, 2000)
    assert abs(got[0].double().mean().item() - 0.9) < 0.05
