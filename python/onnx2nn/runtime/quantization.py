"""Quantised operators of ONNX and com.microsoft; torch's own lack their types and rounding."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.pooling import explicit_pads, to_torch_pads
from onnx2nn.runtime.recurrent import (
    drop_empty,
    in_directions,
    initial_states,
    keep_steps,
    lstm_step,
    rnn_activations,
    stack_steps,
)


def dequantized(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the weights real that are stored as integers beside their scales."""
    for key in [k for k in state if f"{k}.scale" in state]:
        scale, zero = state.pop(f"{key}.scale"), state.pop(f"{key}.zero_point", 0)
        state[key] = ((state[key].float() - zero) * scale.float()).to(scale.dtype)
    return state


def fake_quantize(x: Tensor, scale: float, zero: int, low: int, high: int) -> Tensor:
    """torch.fake_quantize_per_tensor_affine, but with ONNX's division and rounding."""
    steps = (x / scale).clamp(low - zero, high - zero)
    return (steps + (steps.round() - steps).detach()) * scale


def spread_blocks(
    value: Tensor, x: Tensor, *, axis: int, block_size: int = 0
) -> Tensor:
    """Shapes a scale or zero point to broadcast with x: one value, one a slice, or one a block."""
    if value.numel() == 1 and value.dim() <= 1:
        return value.reshape([])
    if block_size:
        value = value.repeat_interleave(block_size, dim=axis)
        return value.narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return value.reshape(shape)


def integer_limits(dtype: torch.dtype) -> tuple[int, int]:
    """The least and the largest value of an integer dtype."""
    limits = torch.iinfo(dtype)
    return limits.min, limits.max


def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ONNX DynamicQuantizeLinear: torch finds no scale and zero point as ONNX does."""
    lowest, highest = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = torch.where(highest == lowest, 1.0, (highest - lowest) / 255.0)
    zero_point = (-lowest / scale).clamp(0, 255).round()
    y = ((x / scale).round() + zero_point).clamp(0, 255).to(torch.uint8)
    return y, scale.to(x.dtype), zero_point.to(torch.uint8)


def fake_quantize_by_range(x: Tensor) -> Tensor:
    """ONNX DynamicQuantizeLinear, read back; gradients pass through it."""
    lowest, highest = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = torch.where(highest == lowest, 1.0, (highest - lowest) / 255)
    zero = (-lowest / scale).clamp(0, 255).round()
    steps = (x / scale).clamp(-zero, 255 - zero)
    return (steps + (steps.round() - steps).detach()) * scale


def centred_rows(x: Tensor, zero_point: Tensor | None) -> Tensor:
    """A left matrix less its zero point, which is one value or one a row, as int32."""
    value = x.to(torch.int32)
    if zero_point is None:
        return value
    zero = zero_point.to(torch.int32)
    if zero.dim() == 1 and zero.numel() > 1:
        zero = zero.unsqueeze(1)
    return value - zero


def centred_columns(x: Tensor, zero_point: Tensor | None) -> Tensor:
    """A right matrix less its zero point, which is one value or one a column, as int32."""
    value = x.to(torch.int32)
    return value if zero_point is None else value - zero_point.to(torch.int32)


def integer_product(a: Tensor, b: Tensor) -> Tensor:
    """A product of int32 matrices; in double, which is exact here, and which every device has."""
    return (a.double() @ b.double()).to(torch.int64).to(torch.int32)


def matmul_integer(
    a: Tensor,
    b: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
) -> Tensor:
    """ONNX MatMulInteger: torch.matmul of 8-bit integers overflows and has no zero points."""
    return integer_product(
        centred_rows(a, a_zero_point), centred_columns(b, b_zero_point)
    )


def requantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    dtype: torch.dtype = torch.uint8,
) -> Tensor:
    """Real values to integers by one scale, with ONNX's round half to even and saturation."""
    low, high = integer_limits(dtype)
    rounded = (x / scale.float()).round()
    if zero_point is not None:
        rounded = rounded + zero_point.float()
    return rounded.clamp(low, high).to(dtype)


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


def real_values(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """Integers to real values by one scale and zero point."""
    value = x.float() if zero_point is None else x.float() - zero_point.float()
    return value * scale.float()


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
            real_values(*inputs[i : i + 3]), y_scale, y_zero_point, y_zero_point.dtype
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


def matmul_integer_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """com.microsoft MatMulIntegerToFloat: an integer product given real by both scales."""
    left = a.to(torch.int32)
    if a_zero_point is not None:
        left = left - a_zero_point.to(torch.int32)
    product = integer_product(left, centred_columns(b, b_zero_point))
    y = product.to(a_scale.dtype) * (a_scale * b_scale)
    return y if bias is None else y + bias


def dynamic_quantize_matmul(
    a: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """com.microsoft DynamicQuantizeMatMul: quantises the left matrix by its own range first."""
    quantized, a_scale, a_zero_point = dynamic_quantize_linear(a)
    return matmul_integer_to_float(
        quantized, b, a_scale, b_scale, a_zero_point, b_zero_point, bias
    )


def unpack_bits(packed: Tensor, bits: int) -> Tensor:
    """Unsigned values of `bits` bits from bytes, lowest bits first, along the last axis."""
    if bits == 8:
        return packed
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2)


def nbits_zeros(
    zero_points: Tensor | None, scales: Tensor, rows: int, blocks: int, bits: int
) -> Tensor:
    """Zero points [rows, blocks]: real, packed as the weight is, or the middle."""
    if zero_points is None:
        return scales.new_full((rows, blocks), 1 << (bits - 1))
    if zero_points.dtype.is_floating_point:
        return zero_points.reshape(rows, blocks)
    return unpack_bits(zero_points.reshape(rows, -1), bits)[:, :blocks].to(scales.dtype)


def nbits_weight(
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    g_idx: Tensor | None,
    rows: int,
    columns: int,
    bits: int,
    block_size: int,
) -> Tensor:
    """The real [rows, columns] weight of com.microsoft MatMulNBits from its packed blocks."""
    blocks = -(-columns // block_size)
    values = unpack_bits(packed.reshape(rows, blocks, -1), bits).to(scales.dtype)
    zeros = nbits_zeros(zero_points, scales, rows, blocks, bits)
    scales = scales.reshape(rows, blocks)
    if g_idx is not None:
        # Each column names its own group.
        group = g_idx[:columns].to(torch.int64)
        flat = values.reshape(rows, -1)[:, :columns]
        return (flat - zeros[:, group]) * scales[:, group]
    real = (values - zeros.unsqueeze(-1)) * scales.unsqueeze(-1)
    return real.reshape(rows, -1)[:, :columns]


def rounded_rows(a: Tensor, block_size: int) -> Tensor:
    """Each block of a row in 127 steps up to its largest magnitude, as ONNX Runtime rounds it."""
    k = a.shape[-1]
    padded = F.pad(a.float(), (0, -k % block_size))
    blocks = padded.reshape(*a.shape[:-1], -(-k // block_size), block_size)
    step = blocks.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(step > 0, blocks * step.reciprocal(), 0).round()
    return (steps * step).flatten(-2)[..., :k]


def matmul_nbits(
    a: Tensor,
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    g_idx: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
) -> Tensor:
    """com.microsoft MatMulNBits: torch has no product with such packed weights."""
    weight = nbits_weight(packed, scales, zero_points, g_idx, N, K, bits, block_size)
    if accuracy_level == 4:
        bias = bias if bias is None else bias.float()
        return F.linear(rounded_rows(a, block_size), weight.float(), bias).to(a.dtype)
    return F.linear(a, weight.to(a.dtype), bias)


def bnb4_values(quant_type: int) -> list[float]:
    """What the sixteen codes of bitsandbytes' FP4 (0) or NF4 (1) stand for."""
    if quant_type == 0:
        half = [0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4]
        return half + [-v for v in half]
    return [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
        *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
        *(0.7229568362236023, 1.0),
    ]


def matmul_bnb4(
    a: Tensor,
    packed: Tensor,
    absmax: Tensor,
    *,
    K: int,
    N: int,
    block_size: int,
    quant_type: int,
    transB: int = 1,
) -> Tensor:
    """com.microsoft MatMulBnb4: torch has no product with weights in FP4 or NF4.

    Blocks of the flat weight, the high half of a byte first, are fractions of their largest value.
    """
    table = torch.tensor(bnb4_values(quant_type), dtype=a.dtype, device=a.device)
    codes = torch.stack([packed >> 4, packed & 15], -1).flatten()[: N * K]
    largest = absmax.flatten().repeat_interleave(block_size)[: N * K]
    weight = table[codes.to(torch.int64)] * largest
    return a @ (weight.reshape(N, K).t() if transB else weight.reshape(K, N))


def matmul_integer16(a: Tensor, b: Tensor) -> Tensor:
    """com.microsoft MatMulInteger16: torch.matmul of 16-bit integers overflows."""
    return integer_product(a, b)


def block_zeros(
    zero_points: Tensor | None, bits: int, packed: bool, like: Tensor
) -> Tensor:
    """Zero points of blocks; of packed values the middle, of others 0, where there are none."""
    if zero_points is None:
        return torch.full_like(like, float(1 << (bits - 1)) if packed else 0.0)
    if packed:
        zero_points = unpack_bits(zero_points, bits).narrow(-1, 0, like.shape[-1])
    return zero_points.to(like.dtype)


def gather_block_quantized(
    data: Tensor,
    indices: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    *,
    gather_axis: int = 0,
    quantize_axis: int = 1,
    block_size: int = 128,
    bits: int = 4,
    packed: bool = False,
) -> Tensor:
    """com.microsoft GatherBlockQuantized: rows of a table; `packed` bytes hold several values."""
    gather_axis, quantize_axis = gather_axis % data.dim(), quantize_axis % data.dim()
    index = indices.to(torch.int64)
    index = torch.where(index < 0, index + data.shape[gather_axis], index).flatten()
    values, scale = (t.index_select(gather_axis, index) for t in (data, scales))
    if zero_points is not None:
        zero_points = zero_points.index_select(gather_axis, index)
    zeros = block_zeros(zero_points, bits, packed, scale)
    values = unpack_bits(values, bits) if packed else values
    y = real_blocks(values, scale, zeros, quantize_axis, block_size)
    return y.reshape(y.shape[:gather_axis] + indices.shape + y.shape[gather_axis + 1 :])


def real_blocks(
    data: Tensor,
    scale: Tensor,
    zeros: Tensor,
    axis: int,
    block_size: int,
) -> Tensor:
    """Real values of integers, scales of their blocks along an axis, and zero points."""
    size = data.shape[axis]
    spread = zeros.repeat_interleave(block_size, dim=axis).narrow(axis, 0, size)
    factor = scale.repeat_interleave(block_size, dim=axis).narrow(axis, 0, size)
    return (data.to(scale.dtype) - spread) * factor


def quantized_product(
    x: Tensor, weight: Tensor, scale: Tensor, zero_point: Tensor
) -> Tensor:
    """x times an integer weight, x being quantised by its own range first."""
    if weight.dtype != torch.float64:
        weight = weight.double()
    quantized, x_scale, x_zero_point = dynamic_quantize_linear(x)
    left = quantized.double() - x_zero_point.double()
    return (left @ (weight - zero_point.double())).float() * (x_scale * scale)


def quantized_lstm_direction(
    x: Tensor,
    weights: list[Tensor],
    lengths: Tensor | None,
    states: list[Tensor],
    activations: list[tuple[str, float, float]],
    clip: float | None,
    input_forget: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of DynamicQuantizeLSTM over x [time, batch, input]."""
    w, r, b, p, w_scale, w_zero, r_scale, r_zero = weights
    h, c = states
    inputs = quantized_product(x, w, w_scale, w_zero)
    if b is not None:
        inputs = inputs + b[: b.shape[0] // 2] + b[b.shape[0] // 2 :]
    recurrent = r.double()
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        gates = inputs[t] + quantized_product(h, recurrent, r_scale, r_zero)
        new = lstm_step(gates, c, p, activations, clip, input_forget)
        (h, c), y = keep_steps(new, [h, c], t, lengths)
        steps.append(y)
    return stack_steps(steps, h), drop_empty(h, lengths), drop_empty(c, lengths)


def dynamic_quantize_lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    sequence_lens: Tensor | None,
    *states_p_scales: Tensor | None,
    direction: str = "forward",
    activations: list[str] | None = None,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    clip: float | None = None,
    input_forget: int = 0,
) -> tuple[Tensor, ...]:
    """com.microsoft DynamicQuantizeLSTM: torch's quantised LSTM lacks ONNX's forms and rounding."""
    h, c, p, *scales = states_p_scales
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * len(w)
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    states = initial_states([h, c], x, len(w), r.shape[1])
    weights = [w, r, b, p, *scales]
    run = (x, sequence_lens, states, weights, direction, chosen)
    options = (clip, bool(input_forget))
    return in_directions(quantized_lstm_direction, *run, *options)


def matmul_fp_q4(
    a: Tensor, packed: Tensor, *, K: int, N: int, blk_quant_type: int = 1
) -> Tensor:
    """com.microsoft MatMulFpQ4: weights in blocks of a column, scale, zero point and 32 halves."""
    head = 5 if blk_quant_type else 4
    blocks = packed.reshape(N, -1, head + 16)
    scales = blocks[..., :4].contiguous().view(torch.float32)
    zeros = blocks[..., 4:head].float() if blk_quant_type else 8.0
    codes = blocks[..., head:]
    values = torch.cat([codes & 15, codes >> 4], -1).float()
    return a @ ((values - zeros) * scales).flatten(1)[:, :K].t()


def packed_rows(rows: Tensor, packed_type: int) -> Tensor:
    """Rows of real numbers from bytes in blocks, as GGML packs them."""
    if packed_type in (0, 1, 30):
        kinds = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
        return rows.contiguous().view(kinds[packed_type]).float()
    size = {2: 18, 6: 22, 8: 34, 13: 176, 14: 210, 20: 18, 23: 136}[packed_type]
    b = torch.unflatten(rows, -1, (-1, size))
    # K-quants of six bits have their scale at the end of a block.
    at = 208 if packed_type == 14 else 0
    scale = b[..., at : at + 2].contiguous().view(torch.float16).float()
    if packed_type == 8:
        return (b[..., 2:].view(torch.int8).float() * scale).flatten(-2)
    if packed_type in (2, 6, 20):
        codes = b[..., -16:]
        codes = torch.cat([codes & 15, codes >> 4], -1).to(torch.int32)
        if packed_type == 20:
            return (uneven_levels(codes) * scale).flatten(-2)
        if packed_type == 6:
            bits = unpack_bits(b[..., 2:6], 1).to(torch.int32)
            codes = codes | (bits << 4)
        return ((codes - (16 if packed_type == 6 else 8)) * scale).flatten(-2)
    if packed_type == 23:
        low, high = unpack_bits(b[..., 4:8], 4), unpack_bits(b[..., 2:4], 2)
        steps = (low.to(torch.int32) | (high.to(torch.int32) << 4)) - 32
        codes = torch.unflatten(b[..., 8:], -1, (8, 16))
        levels = uneven_levels(torch.cat([codes & 15, codes >> 4], -1).to(torch.int32))
        return (levels * (steps * scale).unsqueeze(-1)).flatten(-3)
    if packed_type == 14:
        low = torch.unflatten(b[..., :128], -1, (2, 2, 32))
        low = torch.cat([low & 15, low >> 4], -2)
        high = torch.unflatten(b[..., 128:192], -1, (2, 1, 32))
        high = torch.cat([(high >> shift) & 3 for shift in (0, 2, 4, 6)], -2)
        codes = (low | (high << 4)).to(torch.int32).flatten(-3) - 32
        steps = b[..., 192:208].view(torch.int8).float() * scale
        return (codes * steps.repeat_interleave(16, -1)).flatten(-2)
    least = b[..., 2:4].contiguous().view(torch.float16).float()
    first, second, third = b[..., 4:8], b[..., 8:12], b[..., 12:16]
    steps = torch.cat([first & 63, (third & 15) | (first >> 6 << 4)], -1)
    shifts = torch.cat([second & 63, (third >> 4) | (second >> 6 << 4)], -1)
    low = torch.unflatten(b[..., 48:], -1, (4, 1, 32))
    low = torch.cat([low & 15, low >> 4], -2).flatten(-3, -2)
    place = torch.arange(8, device=rows.device, dtype=torch.uint8).unsqueeze(-1)
    high = (b[..., 16:48].unsqueeze(-2) >> place) & 1
    codes = (low | (high << 4)).float()
    y = codes * (steps * scale).unsqueeze(-1) - (shifts * least).unsqueeze(-1)
    return y.flatten(-3)


def uneven_levels(codes: Tensor) -> Tensor:
    """The sixteen levels of GGML's IQ4 types."""
    levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    return torch.tensor(levels, dtype=torch.float32, device=codes.device)[codes]


def gather_packed(
    data: Tensor,
    indices: Tensor,
    *,
    packed_type: int,
    K: int,
    output_dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """com.microsoft GatherPacked: rows of a packed table; no such row means the first."""
    index = torch.where((indices < 0) | (indices >= data.shape[0]), 0, indices)
    return packed_rows(data[index.long()], packed_type).to(output_dtype)


def mul_integer(
    a: Tensor,
    a_zero_point: Tensor | None,
    b: Tensor,
    b_zero_point: Tensor | None = None,
) -> Tensor:
    """com.microsoft MulInteger: the product of bytes without their zero points, in int32."""
    left, right = a.to(torch.int32), b.to(torch.int32)
    if a_zero_point is not None:
        left = left - a_zero_point.to(torch.int32)
    if b_zero_point is not None:
        right = right - b_zero_point.to(torch.int32)
    return left * right
