"""Operators from quantised values to quantised ones: what they round, and where."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.pooling import explicit_pads, to_torch_pads
from onnx2nn.runtime.quantization import (
    integer_limits,
    integer_product,
    matmul_integer,
    real_values,
    requantize,
)


def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
) -> Tensor:
    """ONNX QLinearMatMul: torch has no product of quantised matrices with ONNX's rounding."""
    product = matmul_integer(a, b, a_zero_point, b_zero_point)
    if a_scale.dim() == 1 and a_scale.numel() > 1:
        a_scale = a_scale.unsqueeze(1)
    factor = a_scale.float() * b_scale.float() / y_scale.float()
    low, high = integer_limits(y_zero_point.dtype)
    rounded = (product * factor).round() + y_zero_point.float()
    return rounded.clamp(low, high).to(y_zero_point.dtype)


def qlinear_add(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None,
    c_scale: Tensor,
    c_zero_point: Tensor | None = None,
) -> Tensor:
    """com.microsoft QLinearAdd: torch's quantised add needs tensors of its own quantised types."""
    # In ONNX Runtime's order, with the zero points added before it rounds, which decides halves.
    a_factor, b_factor = a_scale.float() / c_scale, b_scale.float() / c_scale
    fixed = torch.zeros_like(c_scale, dtype=torch.float32)
    if a_zero_point is not None:
        fixed = fixed - a_factor * a_zero_point.float()
    if b_zero_point is not None:
        fixed = fixed - b_factor * b_zero_point.float()
    if c_zero_point is not None:
        fixed = fixed + c_zero_point.float()
    low, high = integer_limits(a.dtype)
    total = a.float() * a_factor + (b.float() * b_factor + fixed)
    return total.round().clamp(low, high).to(a.dtype)


def qlinear_mul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None,
    c_scale: Tensor,
    c_zero_point: Tensor | None = None,
) -> Tensor:
    """com.microsoft QLinearMul: torch's quantised mul needs tensors of its own quantised types."""
    product = real_values(a, a_scale, a_zero_point) * real_values(
        b, b_scale, b_zero_point
    )
    return requantize(product, c_scale, c_zero_point, a.dtype)


def qlinear_concat(
    y_scale: Tensor, y_zero_point: Tensor, *inputs: Tensor, axis: int
) -> Tensor:
    """com.microsoft QLinearConcat: parts come as tensor, scale and zero point."""
    parts = [
        requantize(
            real_values(inputs[i], inputs[i + 1], inputs[i + 2]),
            y_scale,
            y_zero_point,
            y_zero_point.dtype,
        )
        for i in range(0, len(inputs), 3)
    ]
    return torch.cat(parts, dim=axis)


def qlinear_where(
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None,
    z_scale: Tensor,
    z_zero_point: Tensor | None = None,
) -> Tensor:
    """com.microsoft QLinearWhere: both sides are brought to the result's scale first."""
    return torch.where(
        condition,
        requantize(
            real_values(x, x_scale, x_zero_point), z_scale, z_zero_point, x.dtype
        ),
        requantize(
            real_values(y, y_scale, y_zero_point), z_scale, z_zero_point, y.dtype
        ),
    )


def qlinear_reduce_mean(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axes: list[int] | None = None,
    keepdims: int = 1,
) -> Tensor:
    """com.microsoft QLinearReduceMean: torch has no mean from integers to integers."""
    value = real_values(x, x_scale, x_zero_point)
    y = value.mean(axes or list(range(x.dim())), keepdim=bool(keepdims))
    return requantize(y, y_scale, y_zero_point, x.dtype)


def qlinear_sigmoid(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
) -> Tensor:
    """com.microsoft QLinearSigmoid: torch has no sigmoid from integers to integers."""
    y = torch.sigmoid(real_values(x, x_scale, x_zero_point))
    return requantize(y, y_scale, y_zero_point, x.dtype)


def qlinear_leaky_relu(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> Tensor:
    """com.microsoft QLinearLeakyRelu: torch has no leaky relu from integers to integers."""
    y = F.leaky_relu(real_values(x, x_scale, x_zero_point), alpha)
    return requantize(y, y_scale, y_zero_point, x.dtype)


def qlinear_softmax(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor,
    *,
    opset: int,
    axis: int = -1,
) -> Tensor:
    """com.microsoft QLinearSoftmax: before opset 13 all axes from `axis` on are one."""
    value = real_values(x, x_scale, x_zero_point)
    if opset < 13:
        axis %= x.dim()
        flat = value.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        y = flat.softmax(-1).reshape(x.shape)
    else:
        y = value.softmax(axis)
    return requantize(y, y_scale, y_zero_point, x.dtype)


def average_windows(
    x: Tensor,
    kernel_shape: list[int],
    strides: list[int],
    padding: tuple[list[int], list[int]],
    count_include_pad: int,
) -> Tensor:
    """Means over windows of x padded with zeros by begins and ends of each axis."""
    sides = to_torch_pads([*padding[0], *padding[1]])
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel_shape) - 1]
    y: Tensor = pool(F.pad(x, sides), kernel_shape, strides)
    # Where padding counts, so does what ceil_mode adds, in ONNX Runtime.
    if count_include_pad:
        return y
    counted = F.pad(torch.ones_like(x[:1, :1]), sides)
    return y / pool(counted, kernel_shape, strides)


def pooled_sides(
    size: list[int],
    kernel: list[int],
    strides: list[int],
    pads: list[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> tuple[list[int], list[int]]:
    """Padding at the begins and ends of axes, with what ONNX Runtime's ceil_mode adds."""
    n = len(size)
    # VALID leaves given pads as they are here, unlike in ai.onnx.
    mode = auto_pad if auto_pad.startswith("SAME") else "NOTSET"
    both = explicit_pads(size, kernel, strides, [1] * n, pads, mode)
    begins, ends = both[:n], both[n:]
    for i in range(n):
        rest = (size[i] + begins[i] + ends[i] - kernel[i]) % strides[i]
        # A last window that only ceil_mode adds must start before the padding at the end.
        if ceil_mode and rest and ends[i] - kernel[i] - rest + strides[i] < 0:
            ends[i] += strides[i] - rest
    return begins, ends


def qlinear_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    kernel_shape: list[int],
    strides: list[int] | None = None,
    count_include_pad: int = 0,
    channels_last: int = 0,
    **padding: Any,
) -> Tensor:
    """com.microsoft QLinearAveragePool: torch pools neither integers nor with uneven padding."""
    value = real_values(x, x_scale, x_zero_point)
    value = value.movedim(-1, 1) if channels_last else value
    steps = strides or [1] * len(kernel_shape)
    sides = pooled_sides(list(value.shape[2:]), kernel_shape, steps, **padding)
    y = average_windows(value, kernel_shape, steps, sides, count_include_pad)
    return rounded_with_zero(
        y.movedim(1, -1) if channels_last else y, y_scale, y_zero_point, x.dtype
    )


def rounded_with_zero(
    y: Tensor, scale: Tensor, zero_point: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """As `requantize`, but the zero point is added before it rounds, which decides halves."""
    scaled = y / scale.float()
    scaled = scaled if zero_point is None else scaled + zero_point.float()
    low, high = integer_limits(dtype)
    return scaled.round().clamp(low, high).to(dtype)


def qlinear_global_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    *,
    channels_last: int = 0,
) -> Tensor:
    """com.microsoft QLinearGlobalAveragePool: torch has no mean from integers to integers."""
    axes = list(range(1, x.dim() - 1)) if channels_last else list(range(2, x.dim()))
    count = math.prod(x.shape[axis] for axis in axes)
    # One product of the whole sum, as in ONNX Runtime: rounding is decided by its last bit.
    total = (x.to(torch.int32) - x_zero_point.to(torch.int32)).sum(axes, keepdim=True)
    y = total.float() * (x_scale.float() / (y_scale.float() * count))
    low, high = integer_limits(x.dtype)
    return (y.round() + y_zero_point.float()).clamp(low, high).to(x.dtype)


def qgemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """com.microsoft QGemm: torch has no product of quantised matrices; real without y_scale."""
    left = (a.T if transA else a).to(torch.int32) - a_zero_point.to(torch.int32)
    right = (b.T if transB else b).to(torch.int32) - b_zero_point.to(torch.int32)
    product = integer_product(left, right)
    if c is not None:
        product = product + c
    y = product.float() * (alpha * a_scale.float() * b_scale.float())
    if y_scale is None or y_zero_point is None:
        return y
    return requantize(y, y_scale, y_zero_point, y_zero_point.dtype)
