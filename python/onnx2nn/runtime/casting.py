"""Conversions to the element types that torch has no, or another, conversion for."""

import re

import numpy as np
import torch
from torch import Tensor


def cast_float8(x: Tensor, dtype: torch.dtype, *, saturate: int = 1) -> Tensor:
    """ONNX Cast to a float8: torch's own treats what is too large differently for each dtype."""
    x = x.to(torch.float32)
    if saturate:
        largest = torch.finfo(dtype).max
        x = x.clamp(-largest, largest)
    elif dtype == torch.float8_e4m3fn:
        # 464 lies half way from the largest value, 448, to the first that does not exist.
        x = torch.where(x.abs() > 464.0, torch.nan, x)
    return x.to(dtype)


def cast_e8m0(x: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """ONNX Cast to float8e8m0, a bare exponent: torch only rounds to the nearest."""
    bits = x.to(torch.float32).view(torch.int32)
    exponent = (bits >> 23) & 0xFF
    if round_mode == "down":
        up = torch.zeros_like(exponent, dtype=torch.bool)
    elif round_mode == "up":
        up = (bits & 0x7FFFFF) != 0
    else:
        above_half = (bits & 0x3FFFFF) != 0
        up = ((bits & 0x400000) != 0) & (above_half | (exponent > 0))
    highest = 0xFD if saturate else 0xFE
    rounded = exponent + (up & (exponent <= highest)).to(torch.int32)
    return rounded.to(torch.uint8).view(torch.float8_e8m0fnu)


def cast_narrow(x: Tensor, bits: int, *, signed: bool) -> Tensor:
    """ONNX Cast to int4, uint4, int2 or uint2, carried in int8 or uint8: keeps the low bits."""
    low = x.to(torch.int32) & ((1 << bits) - 1)
    if not signed:
        return low.to(torch.uint8)
    sign = 1 << (bits - 1)
    return ((low ^ sign) - sign).to(torch.int8)


def cast_narrow_float(x: Tensor, *, mantissa: int) -> Tensor:
    """ONNX Cast to a float of 4 or 6 bits, carried in float32: the nearest value there is.

    float4e2m1 has a mantissa of 1 bit, float6e3m2 of 2, float6e2m3 of 3.
    """
    lowest, largest = {1: (0, 6.0), 2: (-2, 28.0), 3: (0, 7.5)}[mantissa]
    x = x.to(torch.float32)
    size = x.abs().clamp(max=largest)
    exponent = (torch.frexp(size).exponent - 1).clamp(min=lowest)
    step = torch.ldexp(torch.ones_like(size), exponent - mantissa)
    return torch.copysign(torch.round(size / step) * step, x)


def cast_to_string(x: Tensor) -> np.ndarray:
    """ONNX Cast of numbers to strings: torch has none; eight digits, NaN and INF as runtimes do."""
    values = x.detach().cpu()
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    if not values.dtype.is_floating_point:
        texts = [str(value) for value in values.flatten().tolist()]
    else:
        texts = [f"{value:.8g}" for value in values.double().flatten().tolist()]
        names = {"nan": "NaN", "inf": "INF", "-inf": "-INF"}
        texts = [names.get(text, text) for text in texts]
    return np.array(texts, dtype=object).reshape(tuple(x.shape))


def cast_from_string(x: np.ndarray, dtype: torch.dtype) -> Tensor:
    """ONNX Cast of strings to numbers: torch has none; an integer is read up to its last digit."""
    texts = [str(text) for text in x.ravel()]
    if dtype.is_floating_point:
        numbers = torch.tensor([float(text) for text in texts], dtype=torch.float64).to(
            dtype
        )
        return numbers.reshape(x.shape)
    found = [re.match(r"\s*[+-]?[0-9]+", text) for text in texts]
    for text, match in zip(texts, found, strict=True):
        if match is None:
            raise ValueError(f"Cast: {text!r} is not a number")
    wrapped = [(int(m[0]) + 2**63) % 2**64 - 2**63 for m in found if m is not None]
    values = torch.tensor(wrapped, dtype=torch.int64)
    return (values != 0 if dtype == torch.bool else values.to(dtype)).reshape(x.shape)


def float4_bits(x: Tensor) -> Tensor:
    """The four bits, as uint8, of float4e2m1 values carried in float32."""
    size = x.abs()
    small = (size * 2).to(torch.uint8)
    code = torch.where(
        size < 2, small, (size >= 3).to(torch.uint8) + 4 + 2 * (size >= 4)
    )
    code = torch.where(size == 4, 6, code)
    return (code + 8 * torch.signbit(x)).to(torch.uint8)


def float4_values(bits: Tensor) -> Tensor:
    """The float4e2m1 values, in float32, of four-bit patterns."""
    table = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], device=bits.device)
    size = table[(bits & 7).to(torch.int64)]
    return torch.where((bits & 8) != 0, -size, size)


def bit_cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """ONNX BitCast: as Tensor.view, which refuses to make a bool of anything but bool."""
    if dtype == torch.bool:
        return x.view(torch.uint8) != 0
    return x.view(dtype)


def bit_cast_narrow(x: Tensor, bits: int, *, signed: bool) -> Tensor:
    """ONNX BitCast among int4/uint4 or int2/uint2, carried in int8/uint8: gives the bits a sign."""
    return cast_narrow(x, bits, signed=signed)
