"""Convolutions with every padding that ONNX has, deformable, quantised and stateful ones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.pooling import pooling_windows, same_pads, to_torch_pads


def conv_nd(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """ONNX Conv: torch's has no unequal or automatic pads with strides, and 3 axes at most."""
    kernel = list(w.shape[2:])
    n = len(kernel)
    strides = strides or [1] * n
    dilations = dilations or [1] * n
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        lower = auto_pad == "SAME_LOWER"
        pads = same_pads(list(x.shape[2:]), kernel, strides, dilations, lower)
    elif pads is None or auto_pad == "VALID":
        pads = [0] * (2 * n)
    padding = pads[:n]
    if pads[:n] != pads[n:] or n > 3 or min(pads, default=0) < 0:
        x = F.pad(x, to_torch_pads(pads))
        padding = [0] * n
    if n == 1:
        return F.conv1d(x, w, b, strides, padding, dilations, group)
    if n == 2:
        return F.conv2d(x, w, b, strides, padding, dilations, group)
    if n == 3:
        return F.conv3d(x, w, b, strides, padding, dilations, group)
    windows = pooling_windows(x, kernel, strides, dilations)
    out = list(windows.shape[2 : 2 + n])
    places = [i + 2 for i in range(n)]
    windows = windows.permute([0, *places, 1, *[i + 2 + n for i in range(n)]])
    columns = windows.reshape(x.shape[0], math.prod(out), group, -1).transpose(1, 2)
    y: Tensor = columns @ w.reshape(group, w.shape[0] // group, -1).transpose(1, 2)
    y = y.transpose(2, 3).reshape([x.shape[0], w.shape[0], *out])
    return y if b is None else y + b.reshape([-1] + [1] * n)


def conv_transpose_nd(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """ONNX ConvTranspose: torch's has no output_shape, unequal or automatic pads."""
    kernel = list(w.shape[2:])
    n = len(kernel)
    strides = strides or [1] * n
    dilations = dilations or [1] * n
    extra = output_padding or [0] * n
    size = list(x.shape[2:])
    full = [
        (size[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1
        for i in range(n)
    ]
    if output_shape is not None:
        output_shape = list(output_shape)[-n:]
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        output_shape = [size[i] * strides[i] for i in range(n)]
    if output_shape is not None:
        totals = [max(full[i] + extra[i] - output_shape[i], 0) for i in range(n)]
        halves = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in totals]
        pads = halves + [t - h for t, h in zip(totals, halves, strict=True)]
    elif pads is None or auto_pad == "VALID":
        pads = [0] * (2 * n)
    if output_shape is None:
        output_shape = [full[i] + extra[i] - pads[i] - pads[n + i] for i in range(n)]
    if n > 3:
        # The transpose of a convolution is a convolution of x spread out by the strides.
        wide = [(size[i] - 1) * strides[i] + 1 for i in range(n)]
        spread = x.new_zeros([*x.shape[:2], *wide])
        spread[tuple(slice(None, None, t) for t in [1, 1, *strides])] = x
        flipped = (
            w.flip(list(range(2, n + 2)))
            .reshape(group, -1, *w.shape[1:])
            .transpose(1, 2)
        )
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        flipped = flipped.reshape([group * w.shape[1], w.shape[0] // group, *kernel])
        y = conv_nd(
            spread, flipped, dilations=dilations, group=group, pads=reach + reach
        )
    else:
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
        y = convolve(x, w, None, strides, 0, 0, group, dilations)
    ends = [output_shape[i] + pads[i] - full[i] for i in range(n)]
    crops = [-p for p in pads[:n]] + ends
    if any(crops):
        y = F.pad(y, to_torch_pads(crops))
    return y if b is None else y + b.reshape([-1] + [1] * n)


def deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: list[int] | None = None,
    group: int = 1,
    offset_group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """ONNX DeformConv for any number of spatial axes, which torch itself lacks."""
    kernel, size = list(w.shape[2:]), list(x.shape[2:])
    n = len(kernel)
    strides = strides or [1] * n
    dilations = dilations or [1] * n
    pads = pads or [0] * (2 * n)
    batch, channels, taps = x.shape[0], x.shape[1], math.prod(kernel)
    out = list(offset.shape[2:])
    offsets = offset.reshape([batch, offset_group, taps, n, *out])
    axes = [torch.arange(k, device=x.device) for k in kernel]
    tap_places = torch.meshgrid(axes, indexing="ij")
    lows: list[Tensor] = []
    weights: list[Tensor] = []
    for i in range(n):
        starts = torch.arange(out[i], device=x.device) * strides[i] - pads[i]
        starts = starts.reshape([-1] + [1] * (n - 1 - i))
        tap = (tap_places[i].reshape([-1] + [1] * n)) * dilations[i]
        at = offsets[:, :, :, i] + (tap + starts).to(offset.dtype)
        low = at.floor()
        weights.append((at - low).to(x.dtype))
        lows.append(low.to(torch.int64))
    flat = x.reshape(batch, offset_group, channels // offset_group, -1)
    columns = flat.new_zeros(
        [batch, offset_group, flat.shape[2], taps * math.prod(out)]
    )
    for corner in range(1 << n):
        index = torch.zeros_like(lows[0])
        weight = torch.ones_like(weights[0])
        inside = torch.ones_like(lows[0], dtype=torch.bool)
        for i in range(n):
            high = (corner >> i) & 1
            place = lows[i] + high
            weight = weight * (weights[i] if high else 1 - weights[i])
            inside = inside & (place >= 0) & (place < size[i])
            index = index * size[i] + place.clamp(0, size[i] - 1)
        index = index.reshape(batch, offset_group, 1, -1).expand(
            -1, -1, flat.shape[2], -1
        )
        columns = columns + flat.gather(3, index) * (weight * inside).reshape(
            batch, offset_group, 1, -1
        )
    if mask is not None:
        columns = columns * mask.reshape(batch, offset_group, 1, -1)
    columns = columns.reshape(batch, group, (channels // group) * taps, math.prod(out))
    y = w.reshape(group, w.shape[0] // group, -1) @ columns
    y = y.reshape([batch, w.shape[0], *out])
    return y if b is None else y + b.reshape([-1] + [1] * n)


def col2im(
    x: Tensor,
    image_shape: list[int],
    block_shape: list[int],
    *,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """ONNX Col2Im for any number of axes and any pads; F.fold is 2-D with equal ones."""
    n = len(image_shape)
    dilations = dilations or [1] * n
    pads = pads or [0] * (2 * n)
    strides = strides or [1] * n
    padded = [image_shape[i] + pads[i] + pads[n + i] for i in range(n)]
    index = torch.zeros([1] * (2 * n), dtype=torch.int64, device=x.device)
    for i in range(n):
        extent = (block_shape[i] - 1) * dilations[i] + 1
        taps = torch.arange(block_shape[i], device=x.device) * dilations[i]
        starts = (
            torch.arange((padded[i] - extent) // strides[i] + 1, device=x.device)
            * strides[i]
        )
        at = taps.reshape([-1] + [1] * (2 * n - 1 - i)) + starts.reshape(
            [-1] + [1] * (n - 1 - i)
        )
        index = index * padded[i] + at
    index = index.reshape(-1)
    channels = x.shape[1] // math.prod(block_shape)
    y = x.new_zeros([x.shape[0], channels, math.prod(padded)])
    y = y.index_add(2, index, x.reshape(x.shape[0], channels, index.shape[0]))
    y = y.reshape([x.shape[0], channels, *padded])
    return F.pad(y, to_torch_pads([-p for p in pads])) if any(pads) else y


def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """ONNX ConvInteger: torch convolves no integers, so in float64, where these sums are exact."""
    wide_x, wide_w = x.to(torch.float64), w.to(torch.float64)
    if x_zero_point is not None:
        wide_x = wide_x - x_zero_point.to(torch.float64)
    if w_zero_point is not None:
        wide_w = wide_w - w_zero_point.to(torch.float64).reshape(
            [-1] + [1] * (w.dim() - 1)
        )
    y = conv_nd(
        wide_x,
        wide_w,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        pads=pads,
        strides=strides,
    )
    return y.to(torch.int32)


def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """ONNX QLinearConv: an exact integer convolution, then scaled, rounded and saturated."""
    y = conv_integer(
        x,
        w,
        x_zero_point,
        w_zero_point,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        pads=pads,
        strides=strides,
    )
    channels = [-1] + [1] * (x.dim() - 2)
    if b is not None:
        y = y + b.reshape(channels)
    scale = x_scale * w_scale / y_scale
    scaled = (y.to(scale.dtype) * scale.reshape(channels)).round()
    limits = torch.iinfo(y_zero_point.dtype)
    zero = y_zero_point.to(scaled.dtype)
    return (scaled + zero).clamp(limits.min, limits.max).to(y_zero_point.dtype)


def causal_conv_with_state(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past_state: Tensor | None = None,
    *,
    activation: str = "none",
) -> tuple[Tensor, Tensor]:
    """ONNX CausalConvWithState: depthwise over past_state and x, and the state to carry on."""
    carry = weight.shape[2] - 1
    if past_state is None:
        past_state = x.new_zeros([x.shape[0], x.shape[1], carry])
    seen = torch.cat([past_state, x], 2)
    y = F.conv1d(seen, weight, bias, groups=x.shape[1])
    if activation in ("silu", "swish"):
        y = F.silu(y)
    return y, seen[:, :, seen.shape[2] - carry :]


def pad_same(
    x: Tensor,
    kernel: list[int],
    strides: list[int],
    *,
    dilations: list[int] | None = None,
    lower: bool = False,
) -> Tensor:
    """ONNX auto_pad SAME_* of an x whose size is known at run time only; torch has stride 1 only."""
    dilations = dilations or [1] * len(kernel)
    pads = same_pads(list(x.shape[2:]), kernel, strides, dilations, lower)
    return F.pad(x, to_torch_pads(pads))


def word_conv_embedding(
    words: Tensor, weight: Tensor, bias: Tensor, embedding: Tensor
) -> Tensor:
    """com.microsoft WordConvEmbedding: words from their characters, 0 ending them.

    A word without characters gives zeros; ONNX Runtime leaves its row as it was.
    """
    width = weight.shape[2]
    lengths = torch.where(words[:, 0] > 0, (words > 0).sum(1), 0).unsqueeze(1)
    characters = F.embedding(words.clamp(min=0), embedding).unsqueeze(1)
    y = torch.tanh(F.conv2d(characters, weight, bias)).squeeze(-1)
    places = torch.arange(y.shape[2], device=words.device)
    inside = places <= lengths.clamp(min=width) - width
    y = y.masked_fill(~inside.unsqueeze(1), -torch.inf).amax(-1)
    return torch.where(lengths > 0, y, 0.0)
