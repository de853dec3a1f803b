"""Pooling over any number of axes, with ONNX's paddings and rounding, and pooling of regions."""

import math

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


def window_pads(
    size: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int] | None,
    auto_pad: str,
    ceil_mode: bool,
) -> tuple[list[int], list[int]]:
    """Pads of an ONNX pooling operator, and what ceil_mode adds to each end (or drops)."""
    n = len(size)
    extra = [0] * n
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(
            size, kernel, strides, dilations, auto_pad == "SAME_LOWER"
        ), extra
    pads = [0] * (2 * n) if pads is None or auto_pad == "VALID" else pads
    if ceil_mode:
        for i in range(n):
            extent = (kernel[i] - 1) * dilations[i] + 1
            padded = size[i] + pads[i] + pads[n + i]
            count = -(-(padded - extent) // strides[i]) + 1
            if (count - 1) * strides[i] >= size[i] + pads[i]:
                count -= 1  # the last window would start in the padding at the end
            extra[i] = (count - 1) * strides[i] + extent - padded
    return pads, extra


def pooling_windows(
    x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> Tensor:
    """Every pooling window as a view [N, C, *outputs, *kernel] of x; F.unfold is 2-D only."""
    for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        x = x.unfold(i + 2, (k - 1) * d + 1, s)[..., ::d]
    return x


def padded_max_pool(
    x: Tensor,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    with_indices: bool,
) -> tuple[Tensor, Tensor | None]:
    """Max pooling of x padded with the lowest value; indices are those in the padded x."""
    n = len(kernel)
    if x.dtype.is_floating_point:
        wide, lowest = x, -math.inf
    else:
        wide, lowest = x.to(torch.float32), float(torch.iinfo(x.dtype).min)
    if any(pads):
        wide = F.pad(wide, to_torch_pads(pads), value=lowest)
    indices: Tensor | None = None
    if n > 3:
        if with_indices:
            raise NotImplementedError("MaxPool: indices of more than 3 spatial axes")
        y = pooling_windows(wide, kernel, strides, dilations).amax(list(range(-n, 0)))
    elif with_indices:
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
        y, indices = pool(
            wide, kernel, stride=strides, dilation=dilations, return_indices=True
        )
    else:
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
        y = pool(wide, kernel, stride=strides, dilation=dilations)
    return y.to(x.dtype), indices


def max_pool(
    x: Tensor,
    kernel_shape: list[int],
    *,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
) -> Tensor:
    """ONNX MaxPool: torch's has no unequal, automatic or large pads, and rounds up differently."""
    n = len(kernel_shape)
    strides = strides or [1] * n
    dilations = dilations or [1] * n
    size = list(x.shape[2:])
    pads, extra = window_pads(
        size, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    pads = pads[:n] + [p + e for p, e in zip(pads[n:], extra, strict=True)]
    return padded_max_pool(x, kernel_shape, strides, dilations, pads, False)[0]


def max_pool_with_indices(
    x: Tensor,
    kernel_shape: list[int],
    *,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
    storage_order: int = 0,
) -> tuple[Tensor, Tensor]:
    """ONNX MaxPool with Indices: they count over the whole of x, torch's over one channel."""
    n = len(kernel_shape)
    strides = strides or [1] * n
    dilations = dilations or [1] * n
    size = list(x.shape[2:])
    pads, extra = window_pads(
        size, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    pads = pads[:n] + [p + e for p, e in zip(pads[n:], extra, strict=True)]
    y, flat = padded_max_pool(x, kernel_shape, strides, dilations, pads, True)
    assert flat is not None
    position = torch.zeros_like(flat)
    place = 1  # of the axis at hand in a row-major x, and in a column-major one
    places = [
        math.prod(size[:i]) if storage_order else math.prod(size[i + 1 :])
        for i in range(n)
    ]
    for i in reversed(range(n)):
        padded = size[i] + pads[i] + pads[n + i]
        position = position + ((flat // place) % padded - pads[i]) * places[i]
        place *= padded
    batch, channels = x.shape[0], x.shape[1]
    plane = torch.arange(batch * channels, device=x.device).reshape(
        [batch, channels] + [1] * n
    )
    return y, position + plane * math.prod(size)


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
    n = len(kernel_shape)
    strides = strides or [1] * n
    dilations = dilations or [1] * n
    size = list(x.shape[2:])
    pads, extra = window_pads(
        size, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    wide = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
    ends = [p + e for p, e in zip(pads[n:], extra, strict=True)]
    total = window_sum(wide, kernel_shape, strides, dilations, pads[:n] + ends)
    if not any(extra) and (count_include_pad or not any(pads)):
        return (total / math.prod(kernel_shape)).to(x.dtype)
    for i in range(n):  # the places that count are a product over the axes
        starts = torch.arange(total.shape[i + 2], device=x.device) * strides[i]
        taps = torch.arange(kernel_shape[i], device=x.device) * dilations[i]
        places = starts.unsqueeze(1) + taps
        first = 0 if count_include_pad else pads[i]
        past = pads[i] + size[i] + (pads[n + i] if count_include_pad else 0)
        count = ((places >= first) & (places < past)).sum(1)
        total = total / count.reshape([-1] + [1] * (n - 1 - i))
    return total.to(x.dtype)


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
    n = len(kernel_shape)
    strides = strides or [1] * n
    dilations = dilations or [1] * n
    size = list(x.shape[2:])
    pads, extra = window_pads(
        size, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    pads = pads[:n] + [q + e for q, e in zip(pads[n:], extra, strict=True)]
    wide = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
    powers = window_sum(wide.abs().pow(p), kernel_shape, strides, dilations, pads)
    return powers.pow(1.0 / p).to(x.dtype)


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
    return low, (low + 1).clamp(max=size - 1), weight, used


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
    count, channels = rois.shape[0], x.shape[1]
    if sampling_ratio == 0 and count > 1:
        # Grids of the regions' own sizes: a few regions at a time, so that the largest does not
        # set the memory that all of them need.
        chunk = max(1, (1 << 24) // (channels * output_height * output_width * 16 + 1))
        if count > chunk:
            parts = zip(
                torch.split(rois, chunk), torch.split(batch_indices, chunk), strict=True
            )
            return torch.cat(
                [
                    roi_align(
                        x,
                        some,
                        batch,
                        output_height=output_height,
                        output_width=output_width,
                        spatial_scale=spatial_scale,
                        mode=mode,
                        coordinate_transformation_mode=coordinate_transformation_mode,
                    )
                    for some, batch in parts
                ]
            )
    height, width = x.shape[2], x.shape[3]
    half_pixel = coordinate_transformation_mode == "half_pixel"
    wide = torch.promote_types(rois.dtype, torch.float32)
    corners = rois.to(wide) * spatial_scale - (0.5 if half_pixel else 0.0)
    extents = corners[:, 2:] - corners[:, :2]
    if not half_pixel:
        extents = extents.clamp(min=1.0)
    if sampling_ratio > 0:
        grids = torch.full_like(extents, sampling_ratio)
        most_w = most_h = sampling_ratio
    else:
        bins = extents.new_tensor([output_width, output_height])
        grids = (extents / bins).ceil().clamp(min=0)
        most_w, most_h = (int(g) for g in grids.amax(0).tolist()) if count else (0, 0)
    shape = [count, channels, output_height, output_width]
    if count == 0 or most_w == 0 or most_h == 0:
        return x.new_zeros(shape)
    y0, y1, wy, use_y = roi_axis_samples(
        corners[:, 1], extents[:, 1], output_height, grids[:, 1], most_h, height
    )
    x0, x1, wx, use_x = roi_axis_samples(
        corners[:, 0], extents[:, 0], output_width, grids[:, 0], most_w, width
    )
    # Axes from here on: region, row, sample in the row, column, sample in the column.
    y0, y1, wy, use_y = (t[:, :, :, None, None] for t in (y0, y1, wy, use_y))
    x0, x1, wx, use_x = (t[:, None, None, :, :] for t in (x0, x1, wx, use_x))
    plane = batch_indices.to(torch.int64).reshape(-1, 1, 1, 1, 1) * (height * width)
    used = use_y & use_x
    seen = used & (y0 >= 0) & (x0 >= 0)
    flat = x.transpose(0, 1).reshape(channels, -1)
    corner_values: list[Tensor] = []
    for rows, row_weight in ((y0, 1 - wy), (y1, wy)):
        for columns, column_weight in ((x0, 1 - wx), (x1, wx)):
            index = plane + rows.clamp(min=0) * width + columns.clamp(min=0)
            weight = (row_weight * column_weight * seen).to(x.dtype)
            picked = flat.index_select(1, index.reshape(-1)).reshape(
                [channels, *index.shape]
            )
            corner_values.append(picked * weight)
    if mode == "avg":
        total = (
            corner_values[0] + corner_values[1] + corner_values[2] + corner_values[3]
        )
        y = (total * used).sum((3, 5))
        y = y / (grids[:, 0] * grids[:, 1]).clamp(min=1).to(x.dtype).reshape(-1, 1, 1)
    else:  # ONNX takes the greatest weighted corner, not the greatest interpolated value
        best = torch.stack(corner_values).amax(0).masked_fill(~used, -math.inf)
        y = best.amax((3, 5))
        y = y.masked_fill(y == -math.inf, 0)
    return y.transpose(0, 1)


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
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    weights: list[Tensor] = []
    outside: list[Tensor] = []
    for axis, (bins, size) in enumerate(zip(crop_size, (height, width), strict=True)):
        start, end = rois[:, axis : axis + 1], rois[:, axis + 2 : axis + 3]
        if bins > 1:
            step = (end - start) * (size - 1) / (bins - 1)
            at = start * (size - 1) + torch.arange(bins, device=x.device) * step
        else:
            at = 0.5 * (start + end) * (size - 1)
        outside.append((at < 0) | (at > size - 1))
        at = at.clamp(0, size - 1)
        low = at.floor() if mode == "bilinear" else (at + 0.5).floor()
        lows.append(low.to(torch.int64).clamp(max=size - 1))
        highs.append((lows[-1] + 1).clamp(max=size - 1))
        weights.append(
            (at - low).to(x.dtype) if mode == "bilinear" else torch.zeros_like(at)
        )
    flat = x.transpose(0, 1).reshape(x.shape[1], -1)
    plane = batch_indices.to(torch.int64).reshape(-1, 1, 1) * (height * width)

    wy, wx = weights[0].unsqueeze(2), weights[1].unsqueeze(1)
    total = flat.new_zeros([x.shape[1], rois.shape[0], *crop_size])
    for rows, row_weight in ((lows[0], 1 - wy), (highs[0], wy)):
        for columns, column_weight in ((lows[1], 1 - wx), (highs[1], wx)):
            index = plane + rows.unsqueeze(2) * width + columns.unsqueeze(1)
            picked = flat.index_select(1, index.reshape(-1)).reshape(total.shape)
            total = total + picked * (row_weight * column_weight)
    lost = outside[0].unsqueeze(2) | outside[1].unsqueeze(1)
    return total.masked_fill(lost, extrapolation_value).transpose(0, 1)


def max_pool_with_mask(
    x: Tensor,
    mask: Tensor,
    kernel: list[int],
    *,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    auto_pad: str = "NOTSET",
) -> Tensor:
    """com.microsoft MaxpoolWithMask: a row of a window ends where the mask is 0 for the first time.

    The very first element is never masked, unless x has one axis to pool over.
    """
    n = len(kernel)
    steps, ones = strides or [1] * n, [1] * n
    sizes = list(x.shape[2:])
    outside, _ = window_pads(sizes, kernel, steps, ones, pads, auto_pad, False)
    seen = (mask != 0).reshape(-1)[: math.prod(sizes)].reshape(1, 1, *sizes)
    if n > 1:
        first = torch.zeros_like(seen)
        first[(0, 0, *[0] * n)] = True
        seen = seen | first
    lowest = torch.finfo(x.dtype).min
    wide = F.pad(x, to_torch_pads(outside), value=lowest)
    kept = F.pad(seen.to(x.dtype), to_torch_pads(outside), value=1.0)
    going = pooling_windows(kept, kernel, steps, ones).cumprod(-1) > 0
    windows = pooling_windows(wide, kernel, steps, ones)
    return torch.where(going, windows, lowest).amax(list(range(-n, 0)))
