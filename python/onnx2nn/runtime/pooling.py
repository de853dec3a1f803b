"""Pooling over any number of axes, with ONNX's paddings and rounding, and pooling of regions."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def same_pads(
    size: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    lower: bool = False,
) -> list[int]:
    """Pads (begins, then ends) of ONNX's auto_pad SAME_*, which torch has only for stride 1."""
    begins: list[int] = []
    ends: list[int] = []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(((n + s - 1) // s - 1) * s + (k - 1) * d + 1 - n, 0)
        begins.append(total - total // 2 if lower else total // 2)
        ends.append(total // 2 if lower else total - total // 2)
    return begins + ends


def to_torch_pads(pads: list[int]) -> list[int]:
    """ONNX pads (all begins, then all ends) in F.pad's order (last axis first, in pairs)."""
    n = len(pads) // 2
    return [p for i in reversed(range(n)) for p in (pads[i], pads[i + n])]


def explicit_pads(
    size: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int] | None,
    auto_pad: str,
) -> list[int]:
    """The pads that ONNX's auto_pad stands for."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(size, kernel, strides, dilations, auto_pad == "SAME_LOWER")
    return [0] * (2 * len(size)) if pads is None or auto_pad == "VALID" else pads


def rounded_up(
    size: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
) -> list[int]:
    """What ceil_mode adds to the end of each axis (or drops): windows start before its padding."""
    n = len(size)
    extra: list[int] = []
    for i in range(n):
        extent = (kernel[i] - 1) * dilations[i] + 1
        padded = size[i] + pads[i] + pads[n + i]
        count = -(-(padded - extent) // strides[i]) + 1
        count -= (count - 1) * strides[i] >= size[i] + pads[i]
        extra.append((count - 1) * strides[i] + extent - padded)
    return extra


def pooling_pads(
    size: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
) -> tuple[list[int], list[int]]:
    """Pads of an ONNX pooling operator, and what ceil_mode adds to each end (or drops)."""
    given = explicit_pads(size, kernel, strides, dilations, pads, auto_pad)
    if not ceil_mode or auto_pad.startswith("SAME"):
        return given, [0] * len(size)
    return given, rounded_up(size, kernel, strides, dilations, given)


def joined_pads(pads: list[int], extra: list[int]) -> list[int]:
    """The same with what is added to the ends."""
    n = len(extra)
    return pads[:n] + [p + e for p, e in zip(pads[n:], extra, strict=True)]


def pooling_windows(
    x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> Tensor:
    """Every pooling window as a view [N, C, *outputs, *kernel] of x; F.unfold is 2-D only."""
    for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        x = x.unfold(i + 2, (k - 1) * d + 1, s)[..., ::d]
    return x


def pool_windows_max(
    x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> Tensor:
    """The largest of each window, for any number of axes."""
    n = len(kernel)
    if n > 3:
        windows = pooling_windows(x, kernel, strides, dilations)
        return windows.amax(list(range(-n, 0)))
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
    y: Tensor = pool(x, kernel, stride=strides, dilation=dilations)
    return y


def padded_with_lowest(x: Tensor, pads: list[int]) -> Tensor:
    """x with the lowest value around it; integers as float32, since torch pools no others."""
    if x.dtype.is_floating_point:
        wide, lowest = x, -math.inf
    else:
        wide, lowest = x.to(torch.float32), float(torch.iinfo(x.dtype).min)
    return F.pad(wide, to_torch_pads(pads), value=lowest) if any(pads) else wide


def max_pool(
    x: Tensor,
    kernel_shape: list[int],
    *,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    **padding: Any,
) -> Tensor:
    """ONNX MaxPool: torch's has no unequal, automatic or large pads, and rounds up differently.

    padding: pads, auto_pad and ceil_mode, as `pooling_pads` takes them.
    """
    steps = strides or [1] * len(kernel_shape)
    dilated = dilations or [1] * len(kernel_shape)
    size = list(x.shape[2:])
    pads = joined_pads(*pooling_pads(size, kernel_shape, steps, dilated, **padding))
    wide = padded_with_lowest(x, pads)
    return pool_windows_max(wide, kernel_shape, steps, dilated).to(x.dtype)


def places_of_largest(
    flat: Tensor, size: list[int], pads: list[int], storage_order: int
) -> Tensor:
    """Places in the padded channel as ONNX counts them: without the pads, over the whole of x."""
    n = len(size)
    position = torch.zeros_like(flat)
    place = 1
    for i in reversed(range(n)):
        padded = size[i] + pads[i] + pads[n + i]
        step = math.prod(size[:i]) if storage_order else math.prod(size[i + 1 :])
        position = position + ((flat // place) % padded - pads[i]) * step
        place *= padded
    planes = torch.arange(flat.shape[0] * flat.shape[1], device=flat.device)
    planes = planes.reshape(list(flat.shape[:2]) + [1] * n)
    return position + planes * math.prod(size)


def max_pool_with_indices(
    x: Tensor,
    kernel_shape: list[int],
    *,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    storage_order: int = 0,
    **padding: Any,
) -> tuple[Tensor, Tensor]:
    """ONNX MaxPool with Indices: they count over the whole of x, torch's over one channel."""
    n = len(kernel_shape)
    if n > 3:
        raise NotImplementedError("MaxPool: indices of more than 3 spatial axes")
    steps, dilated = strides or [1] * n, dilations or [1] * n
    size = list(x.shape[2:])
    pads = joined_pads(*pooling_pads(size, kernel_shape, steps, dilated, **padding))
    wide = padded_with_lowest(x, pads)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
    y, flat = pool(wide, kernel_shape, steps, dilation=dilated, return_indices=True)
    return y.to(x.dtype), places_of_largest(flat, size, pads, storage_order)


def window_sum(
    x: Tensor,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
) -> Tensor:
    """Sum over every pooling window of x padded with zeros."""
    n = len(kernel)
    if any(pads):
        x = F.pad(x, to_torch_pads(pads))
    if n == 2 and max(dilations) == 1:
        return F.avg_pool2d(x, kernel, strides, divisor_override=1)
    if n == 3 and max(dilations) == 1:
        return F.avg_pool3d(x, kernel, strides, divisor_override=1)
    return pooling_windows(x, kernel, strides, dilations).sum(list(range(-n, 0)))


def wide_half(x: Tensor) -> Tensor:
    """Half precision as float32."""
    return x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x


def pool_window(
    size: list[int],
    kernel: list[int],
    strides: list[int] | None,
    dilations: list[int] | None,
    pads: list[int] | None,
    auto_pad: str,
    ceil_mode: bool,
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, pads and what ceil_mode adds to each end."""
    steps = [1] * len(kernel) if strides is None else strides
    dilated = [1] * len(kernel) if dilations is None else dilations
    given, extra = pooling_pads(size, kernel, steps, dilated, pads, auto_pad, ceil_mode)
    return steps, dilated, given, extra


def counted_places(
    like: Tensor,
    kernel: list[int],
    window: tuple[list[int], list[int], list[int], list[int]],
    count_include_pad: bool,
) -> Tensor:
    """How many places of each window count in a mean: those of x, and perhaps of its padding."""
    steps, dilated, pads, extra = window
    ones = like.new_ones([1, 1] + list(like.shape[2:]))
    around = joined_pads(pads, extra)
    if count_include_pad:
        ones = F.pad(ones, to_torch_pads(pads), value=1.0)
        around = joined_pads([0] * len(pads), extra)
    return window_sum(ones, kernel, steps, dilated, around)


def average_pool(
    x: Tensor,
    kernel_shape: list[int],
    *,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Tensor:
    """ONNX AveragePool: torch's has no dilations, no unequal or automatic pads."""
    size, wide = list(x.shape[2:]), wide_half(x)
    window = pool_window(
        size, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    steps, dilated, given, extra = window
    around = joined_pads(given, extra)
    total = window_sum(wide, kernel_shape, steps, dilated, around)
    if not any(extra) and (count_include_pad or not any(given)):
        return (total / math.prod(kernel_shape)).to(x.dtype)
    counts = counted_places(wide, kernel_shape, window, count_include_pad)
    return (total / counts).to(x.dtype)


def lp_pool(
    x: Tensor,
    kernel_shape: list[int],
    *,
    p: float = 2,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
) -> Tensor:
    """ONNX LpPool: torch's has no pads or dilations, and sums signed powers."""
    size = list(x.shape[2:])
    steps, dilated, given, extra = pool_window(
        size, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    powers = wide_half(x).abs().pow(p)
    around = joined_pads(given, extra)
    total = window_sum(powers, kernel_shape, steps, dilated, around)
    return total.pow(1.0 / p).to(x.dtype)


def global_lp_pool(x: Tensor, *, p: float = 2) -> Tensor:
    """ONNX GlobalLpPool: the p-norm over all spatial axes, for any rank."""
    y: Tensor = torch.linalg.vector_norm(
        x, p, dim=list(range(2, x.dim())), keepdim=True
    )
    return y


def max_unpool(
    x: Tensor,
    indices: Tensor,
    kernel_shape: list[int],
    *,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    output_shape: list[int] | None = None,
) -> Tensor:
    """ONNX MaxUnpool: its indices count over the whole result, torch's over one channel."""
    n = len(kernel_shape)
    strides = strides or [1] * n
    pads = pads or [0] * (2 * n)
    shape = [
        (x.shape[i + 2] - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[n + i]
        for i in range(n)
    ]
    shape = [x.shape[0], x.shape[1], *shape]
    flat = x.new_zeros(math.prod(shape)).scatter(0, indices.reshape(-1), x.reshape(-1))
    y = flat.reshape(shape)
    if output_shape is not None and output_shape != shape:
        more = [want - got for want, got in zip(output_shape, shape, strict=True)]
        y = F.pad(y, to_torch_pads([0] * len(shape) + more))
    return y


def max_roi_pool(
    x: Tensor, rois: Tensor, pooled_shape: list[int], *, spatial_scale: float = 1.0
) -> Tensor:
    """ONNX MaxRoiPool (regions as [batch index, x1, y1, x2, y2]), which torch itself lacks."""
    y = x.index_select(0, rois[:, 0].to(torch.int64))
    corners = (rois[:, 1:] * spatial_scale).to(torch.float32)
    # Away from zero at halves, as C's round does; torch.round goes to the even neighbour.
    corners = corners.sign() * (corners.abs() + 0.5).floor()
    for axis in (3, 2):
        start, end = corners[:, 3 - axis], corners[:, 5 - axis]
        bins, size = pooled_shape[axis - 2], x.shape[axis]
        step = ((end - start + 1).clamp(min=1) / bins).unsqueeze(1)
        count = torch.arange(bins, device=x.device)
        first = (count * step).floor() + start.unsqueeze(1)
        past = ((count + 1) * step).ceil() + start.unsqueeze(1)
        places = torch.arange(size, device=x.device)
        outside = (places < first.unsqueeze(2)) | (places >= past.unsqueeze(2))
        shape = [-1, 1, 1, size] if axis == 3 else [-1, 1, size, 1]
        parts = [
            y.masked_fill(outside[:, i].reshape(shape), -math.inf).amax(axis)
            for i in range(bins)
        ]
        y = torch.stack(parts, axis)
    return y.masked_fill(y == -math.inf, 0)


def roi_axis_samples(
    start: Tensor, extent: Tensor, bins: int, grid: Tensor, most: int, size: int
) -> list[Tensor]:
    """RoiAlign's samples on an axis: low and high index, weight of the high one, use."""
    device = start.device
    per_bin = (extent / bins).reshape(-1, 1, 1)
    bin_index = torch.arange(bins, device=device).reshape(1, -1, 1)
    sample = torch.arange(most, device=device).reshape(1, 1, -1)
    grid = grid.reshape(-1, 1, 1)
    at = start.reshape(-1, 1, 1) + bin_index * per_bin + (sample + 0.5) * per_bin / grid
    inside = (at >= -1.0) & (at <= size)
    at = at.clamp(0, max(size - 1, 0))
    low = at.floor()
    used = (sample < grid).expand(at.shape)
    weight = at - low
    low = low.to(torch.int64)
    # A sample that counts but lies outside the picture is worth nothing: its index becomes -1.
    low = low.masked_fill(~inside, -1)
    return [low, (low + 1).clamp(max=size - 1), weight, used]


def roi_corners_of(
    rois: Tensor, spatial_scale: float, half_pixel: bool
) -> tuple[Tensor, Tensor]:
    """Where regions [x1, y1, x2, y2] begin, and their extents, both as [y, x]."""
    wide = torch.promote_types(rois.dtype, torch.float32)
    corners = rois.to(wide).flip(1) * spatial_scale - (0.5 if half_pixel else 0.0)
    extents = corners[:, :2] - corners[:, 2:]
    return corners[:, 2:], extents if half_pixel else extents.clamp(min=1.0)


def roi_samples(
    x: Tensor,
    rois: Tensor,
    bins: list[int],
    sampling_ratio: int,
    spatial_scale: float,
    half_pixel: bool,
) -> tuple[list[list[Tensor]], Tensor]:
    """RoiAlign's samples on x's last two axes, and how many there are in a bin of each region."""
    starts, extents = roi_corners_of(rois, spatial_scale, half_pixel)
    grids = torch.full_like(extents, sampling_ratio)
    if sampling_ratio <= 0:
        grids = (extents / extents.new_tensor(bins)).ceil().clamp(min=0)
    most = [int(g) for g in grids.amax(0).tolist()] if len(rois) else [0, 0]
    samples: list[list[Tensor]] = []
    for i, size in enumerate(x.shape[2:]):
        start, extent, grid = starts[:, i], extents[:, i], grids[:, i]
        samples.append(roi_axis_samples(start, extent, bins[i], grid, most[i], size))
    return samples, grids.prod(1)


def roi_corners(
    x: Tensor, batch_indices: Tensor, ys: list[Tensor], xs: list[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Weighted values at the four corners around each sample, and which samples count.

    Their axes: channel, region, row, sample in the row, column, sample in the column.
    """
    ys = [t[:, :, :, None, None] for t in ys]
    xs = [t[:, None, None, :, :] for t in xs]
    y0, y1, wy, use_y = ys[0], ys[1], ys[2], ys[3]
    x0, x1, wx, use_x = xs[0], xs[1], xs[2], xs[3]
    height, width = x.shape[2], x.shape[3]
    plane = batch_indices.to(torch.int64).reshape(-1, 1, 1, 1, 1) * (height * width)
    used = use_y & use_x
    seen = used & (y0 >= 0) & (x0 >= 0)
    flat = x.transpose(0, 1).flatten(1)
    values: list[Tensor] = []
    for rows, row_weight in ((y0, 1 - wy), (y1, wy)):
        for columns, column_weight in ((x0, 1 - wx), (x1, wx)):
            index = plane + rows.clamp(min=0) * width + columns.clamp(min=0)
            picked = flat[:, index.flatten()].reshape([flat.shape[0], *index.shape])
            weight = row_weight * column_weight * seen
            values.append(picked * weight.to(x.dtype))
    return values, used


def align_regions(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    bins: list[int],
    mode: str,
    sampling: tuple[int, float, bool],
) -> Tensor:
    """RoiAlign of a few regions."""
    samples, count = roi_samples(x, rois, bins, *sampling)
    ys, xs = samples[0], samples[1]
    if 0 in ys[0].shape or 0 in xs[0].shape:
        return x.new_zeros([len(rois), x.shape[1], *bins])
    values, used = roi_corners(x, batch_indices, ys, xs)
    if mode == "avg":
        total = (values[0] + values[1] + values[2] + values[3]) * used
        y = total.sum((3, 5)) / count.clamp(min=1).to(x.dtype).reshape(-1, 1, 1)
    else:  # ONNX takes the greatest weighted corner, not the greatest interpolated value
        best = torch.stack(values).amax(0).masked_fill(~used, -math.inf)
        y = best.amax((3, 5))
        y = y.masked_fill(y == -math.inf, 0)
    return y.transpose(0, 1)


def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    mode: str = "avg",
    coordinate_transformation_mode: str = "half_pixel",
) -> Tensor:
    """ONNX RoiAlign, which torch itself lacks; opset 10 is always output_half_pixel."""
    half_pixel = coordinate_transformation_mode == "half_pixel"
    sampling = (sampling_ratio, spatial_scale, half_pixel)
    bins = [output_height, output_width]
    # A few regions at a time, so that the largest does not set the memory that all need.
    chunk = max(1, (1 << 24) // (x.shape[1] * output_height * output_width * 16 + 1))
    regions, batches = [rois], [batch_indices]
    if sampling_ratio == 0 and len(rois) > chunk:
        regions = list(torch.split(rois, chunk))
        batches = list(torch.split(batch_indices, chunk))
    parts = [
        align_regions(x, region, batch, bins, mode, sampling)
        for region, batch in zip(regions, batches, strict=True)
    ]
    return torch.cat(parts)


def crop_axis(
    rois: Tensor, axis: int, bins: int, size: int, bilinear: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Two neighbours of each crop's places on an axis, their weights, and which are outside."""
    start, end = rois[:, axis : axis + 1], rois[:, axis + 2 : axis + 3]
    if bins > 1:
        step = (end - start) * (size - 1) / (bins - 1)
        at = start * (size - 1) + torch.arange(bins, device=rois.device) * step
    else:
        at = 0.5 * (start + end) * (size - 1)
    outside = (at < 0) | (at > size - 1)
    at = at.clamp(0, size - 1)
    low = at.floor() if bilinear else (at + 0.5).floor()
    weight = at - low if bilinear else torch.zeros_like(at)
    first = low.to(torch.int64).clamp(max=size - 1)
    return (first, (first + 1).clamp(max=size - 1)), (1 - weight, weight), outside


def crop_and_resize(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    crop_size: list[int],
    *,
    mode: str = "bilinear",
    extrapolation_value: float = 0.0,
) -> Tensor:
    """com.microsoft CropAndResize (regions as [y1, x1, y2, x2] in parts of x), not in torch."""
    height, width = x.shape[2], x.shape[3]
    bilinear = mode == "bilinear"
    rows, wy, lost_y = crop_axis(rois, 0, crop_size[0], height, bilinear)
    columns, wx, lost_x = crop_axis(rois, 1, crop_size[1], width, bilinear)
    flat = x.transpose(0, 1).flatten(1)
    plane = batch_indices.to(torch.int64).reshape(-1, 1, 1) * (height * width)
    total = flat.new_zeros([x.shape[1], rois.shape[0], *crop_size])
    for i, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
        index = plane + rows[i].unsqueeze(2) * width + columns[k].unsqueeze(1)
        weight = wy[i].unsqueeze(2).to(x.dtype) * wx[k].unsqueeze(1).to(x.dtype)
        total = total + flat[:, index.flatten()].reshape(total.shape) * weight
    lost = lost_y.unsqueeze(2) | lost_x.unsqueeze(1)
    return total.masked_fill(lost, extrapolation_value).transpose(0, 1)


def unmasked(mask: Tensor, sizes: list[int]) -> Tensor:
    """Where the mask is not 0; the very first is taken so, unless there is one axis to pool over."""
    seen = (mask != 0).reshape(-1)[: math.prod(sizes)].reshape(1, 1, *sizes)
    if len(sizes) == 1:
        return seen
    first = torch.zeros_like(seen)
    first.view(-1)[:1] = True
    return seen | first


def max_pool_with_mask(
    x: Tensor,
    mask: Tensor,
    kernel: list[int],
    *,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    auto_pad: str = "NOTSET",
) -> Tensor:
    """com.microsoft MaxpoolWithMask: a row of a window ends where the mask is 0 at first."""
    n = len(kernel)
    steps, ones = strides or [1] * n, [1] * n
    sizes = list(x.shape[2:])
    outside = to_torch_pads(explicit_pads(sizes, kernel, steps, ones, pads, auto_pad))
    lowest = torch.finfo(x.dtype).min
    kept = F.pad(unmasked(mask, sizes).to(x.dtype), outside, value=1.0)
    going = pooling_windows(kept, kernel, steps, ones).cumprod(-1) > 0
    windows = pooling_windows(F.pad(x, outside, value=lowest), kernel, steps, ones)
    return torch.where(going, windows, lowest).amax(list(range(-n, 0)))
