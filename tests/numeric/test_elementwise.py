"""Elementwise operators: every opset that changed them, all types, scalars, empty and dynamic shapes."""

from typing import Any

import numpy as np
import pytest

from .harness import check

ARITHMETIC = ["Add", "Sub", "Mul", "Div"]
COMPARISON = ["Equal", "Less", "Greater"]
SHAPES = [
    ((3, 4), (3, 4)),
    ((2, 3, 4), (3, 1)),
    ((), (3,)),
    ((2, 1), ()),
    ((0, 3), (1, 3)),
    ((), ()),
]
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def floats(*shape: int, seed: int = 0, low: float = -3, high: float = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def whole(dtype: str, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    info = np.iinfo(dtype)
    low, high = max(-100, int(info.min)), min(100, int(info.max))
    values = np.random.default_rng(seed).integers(low, high, shape)
    return np.where(values == 0, 1, values).astype(dtype)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("op", ARITHMETIC + COMPARISON)
def test_broadcasting(op: str, shapes: Any, dynamic: bool) -> None:
    a, b = floats(*shapes[0]), floats(*shapes[1], seed=1)
    check(op, [a, b], opset=13, dynamic=dynamic)


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
@pytest.mark.parametrize("op", [*ARITHMETIC, "Pow", "Max", "Min", "Greater"])
def test_constant_operand(op: str, shape: Any, constant: int) -> None:
    inputs = [floats(2, 3, low=0.5), floats(2, 3, low=0.5)]
    inputs[constant] = np.full(shape, 1.5, np.float32)
    check(op, inputs, opset=13, constants=[constant])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    "op", [*ARITHMETIC, "Mod", "Max", "Min", "Sum", *COMPARISON, "LessOrEqual"]
)
def test_integers(op: str, dtype: str) -> None:
    if op == "Sum":
        pytest.skip("ONNX has no Sum of integers")
    check(op, [whole(dtype, 4, 5), whole(dtype, 5, seed=1)], opset=18)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bits(op: str, dtype: str) -> None:
    check(op, [whole(dtype, 4, 5), whole(dtype, 5, seed=1)], opset=18)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bitwise_not(dtype: str) -> None:
    check("BitwiseNot", [whole(dtype, 4, 5)], opset=18)


@pytest.mark.parametrize("constant", [(), (1,)])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_bit_shift(dtype: str, direction: str, constant: Any) -> None:
    x = np.array([1, 255, 128, 7], dtype)
    by = np.array(3, dtype) if constant else np.array([0, 1, 7, 3], dtype)
    check("BitShift", [x, by], opset=11, attrs={"direction": direction}, constants=constant)


def test_integer_division_truncates() -> None:
    a, b = np.array([-7, 7, -7, 7]), np.array([2, -2, -2, 2])
    check("Div", [a, b], opset=14, expected=[np.array([-3, -3, 3, 3])])
    source = check("Div", [a, np.array(2)], opset=14, constants=[1])
    assert 'torch.div(x0, 2, rounding_mode="trunc")' in source


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "uint64", "int8"])
def test_mod(dtype: str, fmod: int) -> None:
    a, b = whole(dtype, 20), whole(dtype, 20, seed=2)
    check("Mod", [a, b], opset=13, attrs={"fmod": fmod})


def test_mod_of_floats() -> None:
    check("Mod", [floats(20), floats(20, seed=1)], opset=13, attrs={"fmod": 1})


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize(
    "shape, axis", [((3, 4), None), ((4,), None), ((2, 3), 0), ((3,), 1), ((3,), -2), ((), None)]
)
def test_old_broadcast(opset: int, shape: Any, axis: int | None) -> None:
    a, b = floats(2, 3, 4), floats(*shape, seed=1)
    start = 3 - len(shape) if axis is None else axis % 3
    aligned = b.reshape(shape + (1,) * (3 - start - len(shape)))
    attrs = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    check("Add", [a, b], opset=opset, attrs=attrs, expected=[a + aligned])
    check("Greater", [a, b], opset=1, attrs=attrs, expected=[a > aligned])
    check("Sub", [a, b], opset=opset, attrs=attrs, expected=[a - aligned], constants=[1])


@pytest.mark.parametrize("opset", [1, 7])
@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op: str, opset: int) -> None:
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    table = {"And": a & b, "Or": a | b, "Xor": a ^ b}
    check(op, [a, b], opset=opset, expected=[table[op]])
    check("Not", [a], opset=1, expected=[~a])


@pytest.mark.parametrize("opset, n", [(6, 1), (6, 3), (8, 1), (8, 2), (13, 3)])
@pytest.mark.parametrize("op", ["Max", "Min", "Sum", "Mean"])
def test_many(op: str, n: int, opset: int) -> None:
    check(op, [floats(2, 3, seed=i) for i in range(n)], opset=opset)
    if opset >= 8 and n > 1:
        check(op, [floats(2, 3), floats(3, seed=1), floats(2, 1, seed=2)][:n], opset=opset)


@pytest.mark.parametrize("base", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("exponent", ["float32", "float64", "int32", "int64"])
def test_pow(base: str, exponent: str) -> None:
    x, y = np.array([1, 2, 3, 4], base), np.array([2, 0, 3, 1], exponent)
    check("Pow", [x, y], opset=13)
    check("Pow", [x, y[:1].reshape(())], opset=13, constants=[1])
    if base == exponent == "float32":
        check("Pow", [x, y], opset=7)


def test_pow_reads_as_a_square() -> None:
    source = check("Pow", [floats(3), np.array(2, np.float32)], opset=13, constants=[1])
    assert "x0**2\n" in source


UNARY = {
    "Abs": 13, "Neg": 13, "Ceil": 13, "Floor": 13, "Round": 11, "Sign": 13, "Exp": 13, "Erf": 13, "Sin": 7,
    "Cos": 7, "Tan": 7, "Atan": 7, "Sinh": 9, "Cosh": 9, "Tanh": 13, "Asinh": 9, "Reciprocal": 13,
}  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 3), (), (0, 2)])
@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str, shape: Any) -> None:
    check(op, [floats(*shape)], opset=UNARY[op], dynamic=len(shape) == 2)


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Asin", "Acos", "Atanh"])
def test_unary_of_small(op: str) -> None:
    check(op, [floats(20, low=0.01, high=0.99)], opset=13)
    check("Acosh", [floats(20, low=1.01, high=5)], opset=13)


@pytest.mark.parametrize(
    "op", ["Abs", "Neg", "Exp", "Log", "Sqrt", "Floor", "Ceil", "Reciprocal", "Tanh"]
)
def test_opset_1(op: str) -> None:
    x = floats(5, low=0.1)
    functions: dict[str, Any] = {
        "Abs": np.abs, "Neg": np.negative, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Floor": np.floor,
        "Ceil": np.ceil, "Reciprocal": np.reciprocal, "Tanh": np.tanh,
    }  # fmt: skip
    check(op, [x], opset=1, attrs={"consumed_inputs": [0]}, expected=[functions[op](x)])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_sign_and_abs(dtype: str) -> None:
    x = np.array([0, 1, 2, 100], dtype) if dtype[0] == "u" else np.array([0, -1, 2, -100], dtype)
    check("Abs", [x], opset=13)
    check("Sign", [x], opset=13)


def test_round_halves_to_even() -> None:
    check("Round", [np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4], np.float32)], opset=11)


@pytest.mark.parametrize("negative, positive", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_is_inf(negative: int, positive: int) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1], np.float32)
    check("IsInf", [x], opset=10, attrs={"detect_negative": negative, "detect_positive": positive})
    check("IsNaN", [x], opset=9)


@pytest.mark.parametrize("attrs", [{}, {"min": -1.0}, {"max": 1.0}, {"min": -1.0, "max": 1.5}])
@pytest.mark.parametrize("opset", [1, 6])
def test_clip_attributes(opset: int, attrs: Any) -> None:
    x = floats(3, 4)
    wanted = np.clip(x, attrs.get("min", -np.inf), attrs.get("max", np.inf)).astype(np.float32)
    check("Clip", [x], opset=opset, attrs=attrs, expected=[wanted])


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int32", "int64", "uint8", "int8", "uint32", "uint64"]
)
@pytest.mark.parametrize("constants", [(), (1, 2)])
def test_clip_inputs(dtype: str, constants: Any) -> None:
    x = np.array([1, 3, 7, 50], dtype)
    low, high = np.array(2, dtype), np.array(10, dtype)
    check("Clip", [x, low, high], opset=12, constants=constants)
    check("Clip", [x, None, high], opset=12, constants=constants)
    check("Clip", [x, low], opset=12, constants=constants)
    check("Clip", [x], opset=12)
    check("Clip", [x, high, low], opset=13, constants=constants, expected=[np.full(4, 2, dtype)])


def test_clip_reads_as_relu6() -> None:
    assert "F.relu6(x0)" in check("Clip", [floats(4)], opset=6, attrs={"min": 0.0, "max": 6.0})


def test_equal_strings() -> None:
    a, b = np.array(["a", "b", "c"], object), np.array(["a", "x", "c"], object)
    check("Equal", [a, b], opset=19)
