"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear at every opset."""

from typing import Any

import numpy as np
import pytest

from .harness import Array, check

RNG = np.random.default_rng(17)


def f32(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def scales(*shape: int) -> Array:
    return (RNG.random(shape) * 0.05 + 0.01).astype(np.float32)


OPSETS = [10, 13, 19, 21, 23]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("shape", [(2, 3, 4), (), (0, 3)])
def test_one_scale(opset: int, dtype: Any, shape: tuple[int, ...]) -> None:
    zero = np.array(5, dtype)
    constants = [1, 2]
    check("QuantizeLinear", [f32(*shape), scales(), zero], opset=opset, constants=constants)
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, shape).astype(dtype)
    options = {"opset": opset, "constants": constants, "dynamic": True}
    check("DequantizeLinear", [x, scales(), zero], **options)
    check("DequantizeLinear", [x, scales()], **options)


@pytest.mark.parametrize("opset", OPSETS[1:])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_scale_a_slice(opset: int, axis: int) -> None:
    x, n = f32(2, 3, 4), [2, 3, 4][axis]
    zero = RNG.integers(0, 9, n).astype(np.uint8)
    options: dict[str, Any] = {"opset": opset, "attrs": {"axis": axis}}
    check("QuantizeLinear", [x, scales(n), zero], **options)
    x = RNG.integers(0, 255, (2, 3, 4)).astype(np.uint8)
    check("DequantizeLinear", [x, scales(n), zero], dynamic=True, **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_blocks(dtype: Any) -> None:
    zero = RNG.integers(0, 9, (3, 2)).astype(dtype)
    options: dict[str, Any] = {"opset": 21, "attrs": {"axis": 1, "block_size": 4}}
    check("QuantizeLinear", [f32(3, 8), scales(3, 2), zero], **options)
    x = RNG.integers(0, 255, (3, 8)).astype(dtype)
    check("DequantizeLinear", [x, scales(3, 2), zero], **options)


def test_types() -> None:
    int16 = {"output_dtype": 5}
    check("QuantizeLinear", [f32(3, 8), scales()], opset=21, attrs=int16)
    x = RNG.integers(-99, 99, (2, 3)).astype(np.int32)
    check("DequantizeLinear", [x, scales()], opset=21)
    half = scales().astype(np.float16)
    check("QuantizeLinear", [f32(3, 4).astype(np.float16), half], opset=19)
    check("DequantizeLinear", [x.astype(np.int8), half], opset=19)
    narrow = {"output_dtype": 10}
    check("DequantizeLinear", [x.astype(np.int8), scales()], opset=23, attrs=narrow, rtol=1e-3)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_dynamic(shape: tuple[int, ...]) -> None:
    check("DynamicQuantizeLinear", [f32(*shape)], opset=11, outputs=3, dynamic=True)
    check("DynamicQuantizeLinear", [np.abs(f32(*shape)) + 1], opset=11, outputs=3)
