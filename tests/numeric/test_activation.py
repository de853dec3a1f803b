"""Activations, Softmax and Dropout: every opset that changed them."""

from typing import Any

import numpy as np
import pytest

from .harness import check


def floats(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(-3, 3, shape).astype(np.float32)


PLAIN: list[tuple[str, int, dict[str, Any]]] = [
    ("Relu", 14, {}),
    ("LeakyRelu", 6, {}),
    ("LeakyRelu", 16, {"alpha": 0.2}),
    ("Elu", 6, {"alpha": 1.3}),
    ("Celu", 12, {"alpha": 2.0}),
    ("Celu", 12, {"alpha": 0.0}),
    ("Selu", 6, {}),
    ("Selu", 6, {"alpha": 2.0, "gamma": 1.5}),
    ("Sigmoid", 13, {}),
    ("HardSigmoid", 6, {}),
    ("HardSigmoid", 6, {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", 14, {}),
    ("ThresholdedRelu", 10, {"alpha": 0.7}),
    ("Softplus", 1, {}),
    ("Softsign", 1, {}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("Mish", 18, {}),
    ("Swish", 24, {}),
    ("Swish", 24, {"alpha": 1.7}),
    ("Shrink", 9, {}),
    ("Shrink", 9, {"lambd": 1.5, "bias": 1.5}),
    ("Shrink", 9, {"lambd": 1.5, "bias": 0.5}),
]


@pytest.mark.parametrize("shape", [(2, 5), (), (0, 3)])
@pytest.mark.parametrize("op, opset, attrs", PLAIN)
def test_plain(op: str, opset: int, attrs: Any, shape: Any) -> None:
    check(op, [floats(*shape)], opset=opset, attrs=attrs, dynamic=len(shape) == 2, atol=2e-5)


@pytest.mark.parametrize("op", ["Relu", "Elu", "Sigmoid", "LeakyRelu"])
def test_opset_1(op: str) -> None:
    x = floats(4)
    wanted = {
        "Relu": np.maximum(x, 0),
        "Elu": np.where(x > 0, x, np.exp(x) - 1),
        "Sigmoid": 1 / (1 + np.exp(-x)),
        "LeakyRelu": np.where(x > 0, x, np.float32(0.01) * x),
    }
    check(op, [x], opset=1, attrs={"consumed_inputs": [0]}, expected=[wanted[op]])


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_integers(dtype: str) -> None:
    x = np.array([-3, 0, 2, 5], dtype)
    check("Relu", [x], opset=14)
    check("Shrink", [x], opset=9, attrs={"lambd": 2.0, "bias": 1.0})
    if dtype != "int8":
        check("PRelu", [x, np.array([2], dtype)], opset=16)


def test_swiglu() -> None:
    for attrs in ({}, {"alpha": 1.5}):
        a, b = floats(2, 3), floats(2, 3, seed=1)
        wanted = a / (1 + np.exp(-attrs.get("alpha", 1.0) * a)) * b
        check("SwiGLU", [a, b], opset=28, attrs=attrs, expected=[wanted])


PRELU = [
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (1, 3, 1, 1)),
    ((2, 3, 4, 5), (1,)),
    ((2, 3, 4, 5), (5,)),
    ((2, 3), (3,)),
    ((3, 3, 3), (3,)),
    ((2, 3, 4), (2, 3, 4)),
    ((4,), (1,)),
    ((4,), (4,)),
    ((), ()),
]


@pytest.mark.parametrize("constants", [(), (1,)])
@pytest.mark.parametrize("x, slope", PRELU)
def test_prelu(x: Any, slope: Any, constants: Any) -> None:
    source = check("PRelu", [floats(*x), floats(*slope, seed=1)], opset=16, constants=constants)
    if constants and slope == (3, 1, 1):
        assert "nn.PReLU(3)" in source or "nn.PReLU(num_parameters=3)" in source


@pytest.mark.parametrize("constants", [(), (1,)])
@pytest.mark.parametrize("opset", [1, 6])
def test_old_prelu_is_per_channel(opset: int, constants: Any) -> None:
    x, slope = floats(3, 3, 3), floats(3, seed=1)
    wanted = np.where(x < 0, x * slope.reshape(3, 1), x)
    check("PRelu", [x, slope], opset=opset, constants=constants, expected=[wanted])
    check("PRelu", [x, slope], opset=opset, expected=[wanted], dynamic=True)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(
    "opset, axis",
    [
        (1, None),
        (1, 0),
        (1, 2),
        (11, -1),
        (11, 1),
        (11, -3),
        (13, None),
        (13, 0),
        (13, 1),
        (13, -2),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_softmax(op: str, opset: int, axis: int | None, dynamic: bool) -> None:
    x = floats(2, 3, 4)
    default = 1 if opset < 13 else -1
    at = (default if axis is None else axis) % 3
    rows = np.moveaxis(x, at, -1) if opset >= 13 else x.reshape(int(np.prod(x.shape[:at])), -1)
    e = np.exp(rows - rows.max(-1, keepdims=True))
    soft = e / e.sum(-1, keepdims=True)
    hard = np.eye(rows.shape[-1], dtype=np.float32)[rows.argmax(-1)]
    wanted = {"Softmax": soft, "LogSoftmax": np.log(soft), "Hardmax": hard}[op]
    wanted = np.moveaxis(wanted, -1, at) if opset >= 13 else wanted.reshape(x.shape)
    attrs = {} if axis is None else {"axis": axis}
    check(op, [x], opset=opset, attrs=attrs, expected=[wanted], dynamic=dynamic)


def test_softmax_before_13_over_flat_tail() -> None:
    x = floats(2, 5, 1, 1)
    source = check("Softmax", [x], opset=11, attrs={"axis": 1})
    assert "F.softmax(x0, dim=1)" in source
    check("Softmax", [floats(4)], opset=11, attrs={"axis": 0})


@pytest.mark.parametrize(
    "opset, attrs",
    [
        (1, {"is_test": 1}),
        (6, {"is_test": 1, "ratio": 0.3}),
        (7, {"ratio": 0.3}),
        (10, {}),
        (12, {}),
    ],
)
@pytest.mark.parametrize("outputs", [1, 2])
def test_dropout_in_inference(opset: int, attrs: Any, outputs: int) -> None:
    x = floats(3, 4)
    mask = np.ones(x.shape, bool if opset >= 10 else np.float32)
    check("Dropout", [x], opset=opset, attrs=attrs, outputs=outputs, expected=[x, mask][:outputs])


@pytest.mark.parametrize("constants", [(), (1, 2)])
def test_dropout_in_training(constants: Any) -> None:
    x = floats(30, 40)
    on, off = np.array(True), np.array(False)
    zero, half = np.array(0, np.float32), np.array(0.5, np.float32)
    mask = np.ones(x.shape, bool)
    check("Dropout", [x, zero, on], opset=13, outputs=2, expected=[x, mask], constants=constants)
    check("Dropout", [x, half, off], opset=13, outputs=2, expected=[x, mask], constants=constants)
    np.random.seed(7)
    mask = np.random.uniform(0, 1, x.shape) >= 0.5
    wanted = [np.where(mask, x * 2, 0), mask]
    check(
        "Dropout",
        [x, half, on],
        opset=13,
        outputs=2,
        expected=wanted,
        constants=constants,
        attrs={"seed": 7},
    )


def test_a_whole_number_for_a_float() -> None:
    """ONNX's checker refuses it, but what it means is plain."""
    x = floats(2, 3)
    wanted = np.where(x > 0, x, np.float32(2) * x)
    check("LeakyRelu", [x], opset=16, attrs={"alpha": 2}, expected=[wanted])
