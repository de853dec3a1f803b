"""Conversion helpers against ONNX's node cases and ONNX Runtime's strings."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import casting

from . import tensor_cases as tc

NARROW = {
    TensorProto.INT4: (4, True),
    TensorProto.UINT4: (4, False),
    TensorProto.INT2: (2, True),
    TensorProto.UINT2: (2, False),
}


def torch_dtype(element_type: int) -> torch.dtype:
    name = str(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    return torch.uint8 if name == "uint8" else getattr(torch, name)


def call_cast(v: list[Any], a: dict[str, Any]) -> Any:
    to, saturate = a["to"], a.get("saturate", 1)
    if to in NARROW:
        return casting.cast_narrow(v[0], NARROW[to][0], signed=NARROW[to][1])
    if to == TensorProto.FLOAT4E2M1:
        return casting.cast_narrow_float(v[0], mantissa=1)
    if to == TensorProto.FLOAT8E8M0:
        return casting.cast_e8m0(v[0], saturate=saturate, round_mode=a.get("round_mode", "up"))
    dtype = torch_dtype(to)
    if dtype.itemsize == 1 and dtype.is_floating_point:
        return casting.cast_float8(v[0], dtype, saturate=saturate)
    return v[0].to(dtype)


@pytest.mark.parametrize("case", **tc.named(tc.cases_of("Cast")))
def test_cast(case: TestCase) -> None:
    tc.check(case, call_cast)


@pytest.mark.parametrize("case", **tc.named(tc.cases_of("BitCast")))
def test_bit_cast(case: TestCase) -> None:
    tc.check(case, lambda v, a: casting.bit_cast(v[0], torch_dtype(a["to"])))


@pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [0, 1])
def test_e8m0_rounding(round_mode: str, saturate: int) -> None:
    x = np.array([0, 1, 1.4, 1.5, 1.6, 3, 1e-40, 1e-45, 3e38, 2.0**127, np.inf, np.nan], np.float32)
    wanted = onnx.numpy_helper.to_float8e8m0(x, bool(saturate), round_mode).view(np.uint8)
    got = casting.cast_e8m0(torch.from_numpy(x), saturate=saturate, round_mode=round_mode)
    np.testing.assert_array_equal(got.view(torch.uint8).numpy(), wanted)


@pytest.mark.parametrize(
    "dtype, mantissa",
    [
        (ml_dtypes.float4_e2m1fn, 1),
        (ml_dtypes.float6_e3m2fn, 2),
        (ml_dtypes.float6_e2m3fn, 3),
    ],
)
def test_narrow_float_rounding(dtype: Any, mantissa: int) -> None:
    x = np.concatenate([np.arange(-40, 40, 1 / 64), [np.inf, -np.inf, -0.0, 1e-30, 1e30]])
    x = x.astype(np.float32)
    got = casting.cast_narrow_float(torch.from_numpy(x), mantissa=mantissa).numpy()
    wanted = x.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))


def test_float4_bits() -> None:
    x = np.arange(-8, 8, 0.125, dtype=np.float32)
    wanted = x.astype(ml_dtypes.float4_e2m1fn)
    got = casting.cast_narrow_float(torch.from_numpy(x), mantissa=1)
    bits = casting.float4_bits(got)
    np.testing.assert_array_equal(bits.numpy(), wanted.view(np.uint8))
    assert torch.equal(casting.float4_values(bits), got)


def test_strings() -> None:
    x = torch.tensor([0.47892547, 1.0, 1e10, 1e-7, float("inf"), -float("inf"), float("nan"), -0.0])
    texts = ["0.47892547", "1", "1e+10", "1e-07", "INF", "-INF", "NaN", "-0"]
    got = casting.cast_to_string(x)
    assert got.tolist() == texts
    assert casting.cast_to_string(torch.tensor([[True], [False]])).tolist() == [["1"], ["0"]]
    assert casting.cast_to_string(torch.tensor([2**63], dtype=torch.uint64)).tolist() == [
        "9223372036854775808"
    ]
    torch.testing.assert_close(casting.cast_from_string(got, x.dtype), x, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        ("300", torch.uint8, 44),
        ("-1", torch.uint64, 2**64 - 1),
        ("3.7", torch.int32, 3),
        (" 3", torch.int64, 3),
        ("-1", torch.bool, True),
        ("0", torch.bool, False),
    ],
)
def test_string_to_integer(text: str, dtype: torch.dtype, value: int) -> None:
    assert casting.cast_from_string(np.array([text], object), dtype).tolist() == [value]


def test_string_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="not a number"):
        casting.cast_from_string(np.array(["abc"], object), torch.int32)
