"""Quantisation, and products of quantised factors; torch's own lack their types and rounding."""

import torch
from torch import Tensor

from onnx2nn.runtime.recurrent import (
    drop_empty,
    in_directions,
    in_order,
    initial_states,
    join_directions,
    keep_steps,
    lstm_step,
    of_direction,
    own_weights,
    rnn_activations,
    stack_steps,
)


def over_blocks(value: Tensor, shape: torch.Size) -> Tensor:
    """A scale or zero point that is one for each block along an axis, once for each element."""
    for axis, size in enumerate(value.shape):
        if 1 < size < shape[axis]:
            value = value.repeat_interleave(shape[axis] // size, dim=axis)
    return value


def dequantized(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the weights real that are integers beside scales; `like` has their shapes."""
    for key in [k for k in state if f"{k}.scale" in state]:
        scale, zero = state.pop(f"{key}.scale"), state.pop(f"{key}.zero_point", None)
        value, shape = state[key], like.get(key, state[key]).shape
        if value.shape != shape:  # two of four bits in a byte, the lower ones first
            value = torch.stack([value << 4 >> 4, value >> 4], dim=-1).flatten(-2)
        real = (
            value.float() if zero is None else value.float() - over_blocks(zero, shape)
        )
        state[key] = (real * over_blocks(scale.float(), shape)).to(scale.dtype)
    return state


def fake_quantize(x: Tensor, scale: float, zero: int) -> Tensor:
    """torch.fake_quantize_per_tensor_affine to a byte, but with ONNX's division and rounding."""
    steps = (x / scale).clamp(-128 - zero, 127 - zero)
    return (steps + (steps.round() - steps).detach()) * scale


def fake_quantize_between(
    x: Tensor, scale: float, zero: int, low: int, high: int
) -> Tensor:
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


def real_values(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """Integers to real values by one scale and zero point."""
    value = x.float() if zero_point is None else x.float() - zero_point.float()
    return value * scale.float()


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


def matmul_integer16(a: Tensor, b: Tensor) -> Tensor:
    """com.microsoft MatMulInteger16: torch.matmul of 16-bit integers overflows."""
    return integer_product(a, b)


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
    given: list[Tensor | None],
    lengths: Tensor | None,
    states: list[Tensor],
    activations: list[tuple[str, float, float]],
    limits: tuple[float | None, bool],
) -> list[Tensor]:
    """One direction of DynamicQuantizeLSTM over x [time, batch, input]."""
    (w, r, w_scale, w_zero, r_scale, r_zero), (b, p) = weights, given
    (h, c), recurrent = states, r.double()
    inputs = quantized_product(x, w, w_scale, w_zero)
    if b is not None:
        inputs = inputs + b[: b.shape[0] // 2] + b[b.shape[0] // 2 :]
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        gates = inputs[t] + quantized_product(h, recurrent, r_scale, r_zero)
        new = lstm_step(gates, c, p, activations, limits[0], limits[1])
        (h, c), y = keep_steps(new, [h, c], t, lengths)
        steps.append(y)
    return [stack_steps(steps, h), drop_empty(h, lengths), drop_empty(c, lengths)]


def quantized_lstm_directions(
    x: Tensor,
    weights: list[Tensor | None],
    given: list[Tensor | None],
    lengths: Tensor | None,
    states: list[Tensor],
    direction: str,
    activations: list[tuple[str, float, float]],
    limits: tuple[float | None, bool],
) -> list[list[Tensor]]:
    """Outputs and last states of each direction."""
    parts: list[list[Tensor]] = []
    for d, chosen in enumerate(in_directions(activations, 3)):
        ordered, own = in_order(x, lengths, direction, d), own_weights(weights, d)
        extra, first = [of_direction(t, d) for t in given], [s[d] for s in states]
        y, h, c = quantized_lstm_direction(
            ordered, own, extra, lengths, first, chosen, limits
        )
        parts.append([in_order(y, lengths, direction, d), h, c])
    return parts


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
    h, c, p = states_p_scales[:3]
    weights: list[Tensor | None] = [w, r]
    weights += states_p_scales[3:]
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * len(w)
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    states = initial_states([h, c], x, len(w), r.shape[1])
    run = (x, weights, [b, p], sequence_lens, states, direction, chosen)
    limits = (clip, bool(input_forget))
    return join_directions(quantized_lstm_directions(*run, limits))


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
