"""Convolutions with every padding that ONNX has, deformable, quantised and stateful ones."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.pooling import (
    explicit_pads,
    pooling_windows,
    same_pads,
    to_torch_pads,
)


def conv_windows(
    x: Tensor, w: Tensor, strides: list[int], dilations: list[int], group: int
) -> Tensor:
    """A convolution over any number of axes, as a product of matrices."""
    kernel = list(w.shape[2:])
    n = len(kernel)
    windows = pooling_windows(x, kernel, strides, dilations)
    out = list(windows.shape[2 : 2 + n])
    windows = windows.movedim(1, 1 + n)
    columns = windows.reshape(x.shape[0], math.prod(out), group, -1).transpose(1, 2)
    y: Tensor = columns @ w.reshape(group, w.shape[0] // group, -1).transpose(1, 2)
    return y.transpose(2, 3).reshape([x.shape[0], w.shape[0], *out])


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
    steps, dilated = strides or [1] * n, dilations or [1] * n
    pads = explicit_pads(list(x.shape[2:]), kernel, steps, dilated, pads, auto_pad)
    padding = pads[:n]
    if pads[:n] != pads[n:] or n > 3 or min(pads, default=0) < 0:
        x, padding = F.pad(x, to_torch_pads(pads)), [0] * n
    if n > 3:
        y = conv_windows(x, w, steps, dilated, group)
        return y if b is None else y + b.reshape([-1] + [1] * n)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    return convolve(x, w, b, steps, padding, dilated, group)


def conv_transpose_whole(
    x: Tensor, w: Tensor, strides: list[int], dilations: list[int], group: int
) -> Tensor:
    """A transposed convolution without pads, over any number of axes."""
    kernel = list(w.shape[2:])
    n = len(kernel)
    if n <= 3:
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
        y: Tensor = convolve(x, w, None, strides, 0, 0, group, dilations)
        return y
    # It is a convolution of x spread out by the strides.
    wide = [(size - 1) * s + 1 for size, s in zip(x.shape[2:], strides, strict=True)]
    spread = x.new_zeros([*x.shape[:2], *wide])
    places = spread
    for axis, step in enumerate(strides):
        places = places.unfold(axis + 2, 1, step).squeeze(-1)
    places.copy_(x)
    flipped = w.flip(list(range(2, n + 2))).reshape(group, -1, *w.shape[1:])
    flipped = flipped.transpose(1, 2).reshape([-1, w.shape[0] // group, *kernel])
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    spread = F.pad(spread, to_torch_pads(reach + reach))
    return conv_windows(spread, flipped, [1] * n, dilations, group)


def cut_to_shape(
    full: list[int], extra: list[int], shape: list[int], upper: bool
) -> list[int]:
    """Pads (cuts below 0) from a whole ConvTranspose to its output_shape."""
    begins: list[int] = []
    ends: list[int] = []
    for have, more, want in zip(full, extra, shape, strict=True):
        total = max(have + more - want, 0)
        begins.append(-(total // 2 if upper else total - total // 2))
        ends.append(want - have - begins[-1])
    return begins + ends


def conv_transpose_nd(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    output_shape: list[int] | None = None,
    strides: list[int] | None = None,
    **padding: list[int] | None,
) -> Tensor:
    """ONNX ConvTranspose: torch's has no output_shape, unequal or automatic pads."""
    n = x.dim() - 2
    steps = strides or [1] * n
    y = conv_transpose_whole(x, w, steps, dilations or [1] * n, group)
    shape = list(output_shape)[-n:] if output_shape is not None else None
    if shape is None and auto_pad.startswith("SAME"):
        shape = [size * s for size, s in zip(x.shape[2:], steps, strict=True)]
    cuts = transpose_cuts(list(y.shape[2:]), shape, auto_pad, **padding)
    y = F.pad(y, to_torch_pads(cuts)) if any(cuts) else y
    return y if b is None else y + b.reshape([-1] + [1] * n)


def transpose_cuts(
    full: list[int],
    shape: list[int] | None,
    auto_pad: str,
    pads: list[int] | None = None,
    output_padding: list[int] | None = None,
) -> list[int]:
    """Pads (cuts below 0) from a whole ConvTranspose to the one that is asked for."""
    n = len(full)
    extra = output_padding or [0] * n
    if shape is not None:
        return cut_to_shape(full, extra, shape, auto_pad == "SAME_UPPER")
    pads = [0] * (2 * n) if pads is None or auto_pad == "VALID" else pads
    ends = [e - p for e, p in zip(extra, pads[n:], strict=True)]
    return [-p for p in pads[:n]] + ends


def tap_places(
    offset: Tensor,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
) -> list[Tensor]:
    """Where on each axis DeformConv's taps lie, [batch, groups, taps, *outputs]."""
    n, out = len(kernel), list(offset.shape[4:])
    axes = [torch.arange(k, device=offset.device) for k in kernel]
    taps = torch.meshgrid(axes, indexing="ij")
    places: list[Tensor] = []
    for i in range(n):
        starts = torch.arange(out[i], device=offset.device) * strides[i] - pads[i]
        starts = starts.reshape([-1] + [1] * (n - 1 - i))
        tap = taps[i].reshape([-1] + [1] * n) * dilations[i]
        places.append(offset[:, :, :, i] + (tap + starts).to(offset.dtype))
    return places


def values_between(flat: Tensor, places: list[Tensor], size: list[int]) -> Tensor:
    """Linear interpolation of flat [batch, groups, channels, pixels]; zeros outside."""
    lows = [at.floor() for at in places]
    parts = [(at - low).to(flat.dtype) for at, low in zip(places, lows, strict=True)]
    whole = [low.to(torch.int64) for low in lows]
    total = flat.new_zeros([1])
    for corner in range(1 << len(size)):
        index = torch.zeros_like(whole[0])
        weight = torch.ones_like(parts[0])
        for i, length in enumerate(size):
            high = (corner >> i) & 1
            place = whole[i] + high
            inside = (place >= 0) & (place < length)
            weight = weight * (parts[i] if high else 1 - parts[i]) * inside
            index = index * length + place.clamp(0, length - 1)
        index = index.flatten(2).unsqueeze(2).expand(-1, -1, flat.shape[2], -1)
        total = total + flat.gather(3, index) * weight.flatten(2).unsqueeze(2)
    return total


def deformed_columns(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    groups: int,
) -> Tensor:
    """What DeformConv's taps see, [batch, groups, channels, taps * pixels]."""
    shape = [x.shape[0], groups, math.prod(kernel), len(kernel), *offset.shape[2:]]
    places = tap_places(offset.reshape(shape), kernel, strides, dilations, pads)
    flat = x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)
    columns = values_between(flat, places, list(x.shape[2:]))
    if mask is not None:
        columns = columns * mask.reshape(x.shape[0], groups, 1, -1)
    return columns


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
    kernel, steps, dilated, given = conv_window(
        list(w.shape[2:]), strides, dilations, pads
    )
    columns = deformed_columns(
        x, offset, mask, kernel, steps, dilated, given, offset_group
    )
    out = list(offset.shape[2:])
    columns = columns.reshape(x.shape[0], group, -1, math.prod(out))
    y = w.reshape(group, w.shape[0] // group, -1) @ columns
    y = y.reshape([x.shape[0], w.shape[0], *out])
    return y if b is None else y + b.reshape([-1] + [1] * len(kernel))


def conv_window(
    kernel: list[int],
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations and pads, those that are absent as ONNX has them then."""
    n = len(kernel)
    return kernel, strides or [1] * n, dilations or [1] * n, pads or [0] * (2 * n)


def block_places(
    padded: list[int], block: list[int], strides: list[int], dilations: list[int]
) -> Tensor:
    """The place in the image of each element of each block, row by row."""
    n = len(padded)
    index = torch.zeros([1] * (2 * n), dtype=torch.int64)
    for i in range(n):
        extent = (block[i] - 1) * dilations[i] + 1
        taps = torch.arange(block[i]) * dilations[i]
        starts = torch.arange((padded[i] - extent) // strides[i] + 1) * strides[i]
        taps = taps.reshape([-1] + [1] * (2 * n - 1 - i))
        index = index * padded[i] + taps + starts.reshape([-1] + [1] * (n - 1 - i))
    return index.reshape(-1)


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
    block, steps, dilated, given = conv_window(block_shape, strides, dilations, pads)
    padded = [image_shape[i] + given[i] + given[n + i] for i in range(n)]
    index = block_places(padded, block, steps, dilated).to(x.device)
    channels = x.shape[1] // math.prod(block_shape)
    y = x.new_zeros([x.shape[0], channels, math.prod(padded)])
    y = y.index_add(2, index, x.reshape(x.shape[0], channels, index.shape[0]))
    y = y.reshape([x.shape[0], channels, *padded])
    return F.pad(y, to_torch_pads([-p for p in given])) if any(given) else y


def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    **window: Any,
) -> Tensor:
    """ONNX ConvInteger: torch convolves no integers, so in float64, where these sums are exact.

    window: the attributes of Conv.
    """
    wide_x, wide_w = x.double(), w.double()
    if x_zero_point is not None:
        wide_x = wide_x - x_zero_point.double()
    if w_zero_point is not None:
        wide_w = wide_w - w_zero_point.double().reshape([-1] + [1] * (w.dim() - 1))
    return conv_nd(wide_x, wide_w, **window).to(torch.int32)


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
    **window: Any,
) -> Tensor:
    """ONNX QLinearConv: an exact integer convolution, then scaled, rounded and saturated."""
    y = conv_integer(x, w, x_zero_point, w_zero_point, **window)
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
