"""Resizing, sampling, padding and rearranging of pictures and volumes, and choosing of boxes."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.indexing import movable, moved
from onnx2nn.runtime.pooling import to_torch_pads


def round_to_float32(value: float) -> float:
    """The float32 nearest to a Python float, without a tensor: ONNX's scales are float32."""
    spread = value * (2.0**29 + 1.0)
    return spread - (spread - value)


def plain_coordinates(at: Tensor, scale: float, mode: str) -> Tensor:
    """Where ONNX Resize's results lie, for the modes that know nothing of the length."""
    # A tensor: division by a number may become a product with its inverse, and round otherwise.
    scales = torch.full_like(at, scale)
    if mode == "asymmetric":
        return at / scales
    if mode == "half_pixel":
        return (at + 0.5) / scales - 0.5
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scales
    if mode == "pytorch_half_pixel":
        return (at + 0.5) / scales - 0.5 if len(at) > 1 else torch.zeros_like(at)
    raise ValueError(f"Resize: coordinate_transformation_mode {mode!r} is not known")


def resize_coordinates(
    length: int,
    count: int,
    scale: float,
    mode: str,
    region: tuple[float, float],
    like: Tensor,
) -> Tensor:
    """Where each of ONNX Resize's count results lies on an axis of this length."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    at = torch.arange(count, dtype=dtype, device=like.device)
    if mode == "half_pixel_symmetric":
        # The two middles meet, also where length times scale is no whole number.
        offset = length / 2 * (1 - count / (length * scale))
        return offset + (at + 0.5) / torch.full_like(at, scale) - 0.5
    if mode not in ("align_corners", "tf_crop_and_resize"):
        return plain_coordinates(at, scale, mode)
    # Rounded: a scale that float32 cannot hold must not move the last pixel off its corner.
    exact = round_to_float32(length * scale)
    start, end = (0.0, 1.0) if mode == "align_corners" else region
    if exact == 1 or count == 1:
        middle = 0.5 * (start + end) * (length - 1)
        return torch.full_like(at, 0.0 if mode == "align_corners" else middle)
    return start * (length - 1) + at * ((end - start) * (length - 1) / (exact - 1))


def nearest_index(at: Tensor, nearest_mode: str, scale: float) -> Tensor:
    """The index that ONNX Resize's nearest_mode takes; 'simple' is opset 10 and Upsample."""
    low = at.floor()
    rest = at - low
    if nearest_mode == "round_prefer_floor":
        return low + (rest > 0.5)
    if nearest_mode == "round_prefer_ceil":
        return low + (rest >= 0.5)
    if nearest_mode == "ceil" or (nearest_mode == "simple" and scale < 1):
        return at.ceil()
    if nearest_mode in ("floor", "simple"):
        return low
    raise ValueError(f"Resize: nearest_mode {nearest_mode!r} is not known")


def resize_filter(distance: Tensor, mode: str, cubic_coeff_a: float) -> Tensor:
    """Weight of a pixel at this distance: a triangle, or the cubic of this coefficient."""
    t = distance.abs()
    if mode == "linear":
        return (1 - t).clamp(min=0)
    a = cubic_coeff_a
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def resize_taps(
    at: Tensor, scale: float, mode: str, cubic_coeff_a: float, antialias: bool
) -> tuple[Tensor, Tensor]:
    """The pixels that count for each place, and their weights, [places, taps]."""
    stretch = min(scale, 1.0) if antialias else 1.0
    first = math.floor(-(1 if mode == "linear" else 2) / stretch) + 1
    taps = torch.arange(first, 2 - first, device=at.device)
    low = at.floor()
    distance = (taps - (at - low).unsqueeze(1)) * stretch
    weights = resize_filter(distance, mode, cubic_coeff_a)
    return low.to(torch.int64).unsqueeze(1) + taps, weights


def interpolate_axis(
    x: Tensor, axis: int, places: Tensor, weights: Tensor, many_taps: bool
) -> Tensor:
    """Weighted sums of pixels along one axis; of many taps as one product with a matrix."""
    weights, places = weights.to(x.dtype), places.clamp(0, x.shape[axis] - 1)
    if many_taps:
        matrix = weights.new_zeros([places.shape[0], x.shape[axis]])
        matrix = matrix.scatter_add(1, places, weights)
        return (x.movedim(axis, -1) @ matrix.transpose(0, 1)).movedim(-1, axis)
    shape = [-1] + [1] * (x.dim() - 1 - axis)
    total = x.index_select(axis, places[:, 0]) * weights[:, 0].reshape(shape)
    for i in range(1, places.shape[1]):
        part = x.index_select(axis, places[:, i]) * weights[:, i].reshape(shape)
        total = total + part
    return total


def resize_axis(
    x: Tensor,
    axis: int,
    at: Tensor,
    scale: float,
    *,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
) -> Tensor:
    """ONNX Resize along one axis, whose results lie at these places."""
    length = x.shape[axis]
    if mode == "nearest":
        index = nearest_index(at, nearest_mode, scale).clamp(0, length - 1)
        return x.index_select(axis, index.to(torch.int64))
    places, weights = resize_taps(at, scale, mode, cubic_coeff_a, antialias)
    if exclude_outside:
        weights = weights * ((places >= 0) & (places < length))
    if exclude_outside or antialias:
        weights = weights / weights.sum(1, keepdim=True)
    return interpolate_axis(x, axis, places, weights, antialias and scale < 1)


def resize_factors(
    lengths: list[int],
    scales: list[float] | None,
    sizes: list[int] | None,
    keep_aspect_ratio_policy: str,
) -> tuple[list[float], list[int]]:
    """The scale and the size of each axis of ONNX Resize, of which either is given."""
    if sizes is None:
        factors = [round_to_float32(s) for s in scales or []]
        products = zip(lengths, factors, strict=True)
        return factors, [math.floor(round_to_float32(n * s)) for n, s in products]
    factors = [s / n if n else 1.0 for s, n in zip(sizes, lengths, strict=True)]
    if keep_aspect_ratio_policy == "stretch":
        return factors, list(sizes)
    one = min(factors) if keep_aspect_ratio_policy == "not_larger" else max(factors)
    return [one] * len(lengths), [math.floor(one * n + 0.5) for n in lengths]


def as_pixels(y: Tensor, dtype: torch.dtype, antialias: bool) -> Tensor:
    """What was computed in floats in its own type again."""
    if dtype.is_floating_point or not y.dtype.is_floating_point:
        return y.to(dtype)
    limits = torch.iinfo(dtype)
    rounded = (y + 0.5).floor() if antialias else y
    return rounded.clamp(limits.min, limits.max).to(dtype)


def resize(
    x: Tensor,
    *,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    roi: list[float] | None = None,
    axes: list[int] | None = None,
    keep_aspect_ratio_policy: str = "stretch",
    **sampling: Any,
) -> Tensor:
    """ONNX Resize, axis by axis: F.interpolate has few of its modes and only some ranks."""
    axes = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
    lengths = [x.shape[a] for a in axes]
    factors, counts = resize_factors(lengths, scales, sizes, keep_aspect_ratio_policy)
    return resize_axes(x, axes, factors, counts, roi, **sampling)


def resize_axes(
    x: Tensor,
    axes: list[int],
    factors: list[float],
    counts: list[int],
    roi: list[float] | None,
    coordinate_transformation_mode: str = "half_pixel",
    extrapolation_value: float = 0.0,
    **sampling: Any,
) -> Tensor:
    """ONNX Resize to these sizes; cropped to a region, what is outside of x is filled."""
    crop = coordinate_transformation_mode == "tf_crop_and_resize"
    nearest = sampling.get("mode", "nearest") == "nearest"
    y = x if nearest or x.dtype == torch.float64 else x.to(torch.float32)
    lost = torch.zeros([1], dtype=torch.bool, device=x.device)
    for i, (axis, size, factor) in enumerate(zip(axes, counts, factors, strict=True)):
        n, mode = x.shape[axis], coordinate_transformation_mode
        region = (roi[i], roi[i + len(axes)]) if crop and roi else (0.0, 1.0)
        if size != n or factor != 1 or region != (0.0, 1.0):
            at = resize_coordinates(n, size, factor, mode, region, y)
            outside = ((at < 0) | (at > n - 1)).unsqueeze(-1)
            lost = lost | outside.reshape([-1] + [1] * (x.dim() - 1 - axis))
            y = resize_axis(y, axis, at, factor, **sampling)
    y = y.masked_fill(lost, extrapolation_value) if crop else y
    return as_pixels(y, x.dtype, sampling.get("antialias", False))


def upsample(x: Tensor, scales: list[float], *, mode: str = "nearest") -> Tensor:
    """ONNX Upsample (opsets 7 and 9): from the corner and downwards, for any rank."""
    return resize(
        x,
        scales=scales,
        mode=mode,
        nearest_mode="simple",
        coordinate_transformation_mode="asymmetric",
    )


def reflect_coordinates(at: Tensor, low: float, high: float) -> Tensor:
    """Mirrors places at both borders, as often as it takes, for ONNX GridSample."""
    span = high - low
    if span <= 0:
        return torch.zeros_like(at)
    rest = (at - low).abs().remainder(2 * span)
    return torch.where(rest > span, 2 * span - rest, rest) + low


def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    mode: str = "linear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """ONNX GridSample for any rank and dtype; F.grid_sample where that can."""
    n = x.dim() - 2
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    if x.dtype == grid.dtype and (n == 2 or (n == 3 and mode != "cubic")) and x.numel():
        torch_mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
        return F.grid_sample(x, grid, torch_mode, padding_mode, bool(align_corners))
    wide = x if mode == "nearest" else x.to(torch.promote_types(x.dtype, grid.dtype))
    index, weight = grid_places(x, grid, mode, padding_mode, bool(align_corners))
    flat = wide.reshape(x.shape[0], x.shape[1], -1)
    picked = flat.gather(2, index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1))
    picked = picked.reshape([x.shape[0], x.shape[1], *index.shape[1:]])
    if mode == "nearest":
        return picked.squeeze(2).masked_fill(weight == 0, 0)
    return (picked * weight.unsqueeze(1)).sum(2).to(x.dtype)


def grid_places(
    x: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """All combinations of taps over the axes: places in x and weights, [batch, taps, *outputs]."""
    n = x.dim() - 2
    shape = [x.shape[0], 1, *grid.shape[1:-1]]
    index = torch.zeros(shape, dtype=torch.int64, device=x.device)
    weight = torch.ones(shape, dtype=grid.dtype, device=x.device)
    for i in range(n):
        size, at = x.shape[i + 2], grid[..., n - 1 - i]
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        at = (at + 1) / 2 * (high - low) + low
        if mode != "cubic" and padding_mode == "border":
            at = at.clamp(0, size - 1)
        elif mode != "cubic" and padding_mode == "reflection":
            at = reflect_coordinates(at, low, high).clamp(0, size - 1)
        places, weights = grid_taps(at, mode)
        if padding_mode == "reflection":
            places = reflect_coordinates(places, low, high)
        elif padding_mode == "zeros":
            weights = weights * ((places >= 0) & (places <= size - 1))
        places = places.clamp(0, size - 1).to(torch.int64)
        index = (index.unsqueeze(2) * size + places.unsqueeze(1)).flatten(1, 2)
        weight = (weight.unsqueeze(2) * weights.unsqueeze(1)).flatten(1, 2)
    return index, weight


def grid_taps(at: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """The pixels around a place on one axis and their weights, taps as axis 1."""
    first, count = {"nearest": (0, 1), "linear": (0, 2), "cubic": (-1, 4)}[mode]
    taps = torch.arange(first, first + count, device=at.device)
    base = at.round() if mode == "nearest" else at.floor()
    places = base.unsqueeze(1) + taps.reshape([-1] + [1] * (at.dim() - 1))
    if mode == "nearest":
        return places, torch.ones_like(places)
    return places, resize_filter(places - at.unsqueeze(1), mode, -0.75)


def center_crop_pad(
    x: Tensor, shape: list[int], *, axes: list[int] | None = None
) -> Tensor:
    """ONNX CenterCropPad: pads with zeros or crops on both sides, the odd one at the end."""
    axes = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes]
    begins, ends = [0] * x.dim(), [0] * x.dim()
    for a, want in zip(axes, shape, strict=True):
        more = want - x.shape[a]
        begins[a] = more // 2 if more >= 0 else -(-more // 2)
        ends[a] = more - begins[a]
    return torch.constant_pad_nd(x, to_torch_pads(begins + ends), 0)


def sides_of_axes(
    x: Tensor, pads: list[int], axes: list[int] | None
) -> tuple[list[int], list[int]]:
    """Pads of all axes, those that are not named having none: begins and ends."""
    axes = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
    begins, ends = [0] * x.dim(), [0] * x.dim()
    for i, a in enumerate(axes):
        begins[a], ends[a] = pads[i], pads[i + len(axes)]
    return begins, ends


def pad_constant(
    x: Tensor, begins: list[int], ends: list[int], value: Tensor | float | bool | None
) -> Tensor:
    """F.pad by a constant, which may be a tensor."""
    if not isinstance(value, Tensor):
        return torch.constant_pad_nd(x, to_torch_pads(begins + ends), value or 0)
    shape = [b + n + e for b, n, e in zip(begins, x.shape, ends, strict=True)]
    kept = torch.constant_pad_nd(x, to_torch_pads([min(p, 0) for p in begins + ends]))
    y = value.reshape([]).to(x.dtype).expand(shape).clone()
    inner = y
    for axis, (begin, size) in enumerate(zip(begins, kept.shape, strict=True)):
        inner = inner.narrow(axis, max(begin, 0), size)
    inner.copy_(kept)
    return y


def pad_places(before: int, size: int, after: int, mode: str, like: Tensor) -> Tensor:
    """Where the elements of an axis padded by `mode` are taken from."""
    at = torch.arange(-before, size + after, device=like.device)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        at = at.remainder(period)
        return torch.where(at < size, at, period - at)
    if mode == "edge":
        return at.clamp(0, size - 1)
    if mode == "wrap":
        return at.remainder(size)
    raise ValueError(f"Pad: mode {mode!r} is not known")


def pad_nd(
    x: Tensor,
    pads: list[int],
    *,
    mode: str = "constant",
    value: Tensor | float | bool | None = None,
    axes: list[int] | None = None,
) -> Tensor:
    """ONNX Pad: F.pad reflects, repeats and wraps only some ranks, axes and dtypes."""
    begins, ends = sides_of_axes(x, pads, axes)
    if mode == "constant":
        return pad_constant(x, begins, ends, value)
    for a, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin < 0 or end < 0:
            first, past = -min(begin, 0), x.shape[a] + min(end, 0)
            x = x.narrow(a, first, past - first)
        if begin > 0 or end > 0:
            at = pad_places(max(begin, 0), x.shape[a], max(end, 0), mode, x)
            x = moved(movable(x).index_select(a, at), x.dtype)
    return x


def depth_to_space(x: Tensor, blocksize: int, *, mode: str = "DCR") -> Tensor:
    """ONNX DepthToSpace: F.pixel_shuffle is its mode CRD only."""
    n, c, h, w = x.shape
    c //= blocksize * blocksize
    if mode == "CRD":
        y = x.reshape(n, c, blocksize, blocksize, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(n, blocksize, blocksize, c, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c, h * blocksize, w * blocksize)


def space_to_depth(x: Tensor, blocksize: int, *, mode: str = "DCR") -> Tensor:
    """ONNX SpaceToDepth: F.pixel_unshuffle is its mode CRD only."""
    n, c, h, w = x.shape
    h, w = h // blocksize, w // blocksize
    y = x.reshape(n, c, h, blocksize, w, blocksize)
    y = y.permute(0, 1, 3, 5, 2, 4) if mode == "CRD" else y.permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * blocksize * blocksize, h, w)


def box_corners(boxes: Tensor, center_point_box: bool) -> tuple[Tensor, Tensor]:
    """The lower and the upper corners of boxes."""
    if center_point_box:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        return middle - half, middle + half
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.minimum(first, second), torch.maximum(first, second)


def overlaps_box(
    low: Tensor, high: Tensor, at: Tensor, iou_threshold: float | Tensor
) -> Tensor:
    """Which boxes share more than the threshold with the one at `at` of their group."""
    own = at.reshape(-1, 1, 1).expand(-1, 1, 2)
    own_low, own_high = low.gather(1, own), high.gather(1, own)
    sides = torch.minimum(high, own_high) - torch.maximum(low, own_low)
    shared = sides.clamp(min=0).prod(2)
    area, own_area = (high - low).prod(2), (own_high - own_low).prod(2)
    union = area + own_area - shared
    real = (shared > 0) & (area > 0) & (own_area > 0) & (union > 0)
    return real & (shared / union > iou_threshold)


def pick_boxes(
    low: Tensor, high: Tensor, alive: Tensor, limit: int, threshold: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The places of the first boxes of each group that no box before suppresses, and whether
    there is one, [groups, picks]."""
    rank = torch.arange(alive.shape[1], 0, -1, device=low.device)
    picks = [alive.new_zeros([alive.shape[0], 0], dtype=torch.int64)]
    valid = [alive.new_zeros([alive.shape[0], 0])]
    for _ in range(limit):
        best, at = (rank * alive).max(1, keepdim=True)
        if not bool((best > 0).any()):
            break
        picks.append(at)
        valid.append(best > 0)
        alive = alive & ~overlaps_box(low, high, at, threshold)
        alive = alive.scatter(1, at, False)
    return torch.cat(picks, 1), torch.cat(valid, 1)


def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: int = 0,
    iou_threshold: float | Tensor = 0.0,
    score_threshold: float | Tensor | None = None,
    *,
    center_point_box: bool = False,
) -> Tensor:
    """ONNX NonMaxSuppression, not in torch: all classes of all batch entries pick at once."""
    classes = scores.shape[1]
    order, alive = ordered_scores(scores.flatten(0, 1), score_threshold)
    limit = max(min(max_output_boxes_per_class, order.shape[1]), 0)
    owner = torch.arange(order.shape[0], device=boxes.device).unsqueeze(1)
    low, high = box_corners(boxes, center_point_box)
    image = owner // classes
    low, high = low[image, order], high[image, order]
    places, kept = pick_boxes(low, high, alive, limit, iou_threshold)
    chosen, owners = order.gather(1, places)[kept], owner.expand(kept.shape)[kept]
    return torch.stack([owners // classes, owners % classes, chosen], 1)


def ordered_scores(
    scores: Tensor, threshold: float | Tensor | None
) -> tuple[Tensor, Tensor]:
    """Boxes of each group by falling score, and which are above the threshold."""
    if threshold is None:
        order = scores.sort(dim=1, descending=True, stable=True).indices
        return order, torch.ones_like(order, dtype=torch.bool)
    # NaN is above no threshold, but would be sorted to the front.
    scores = scores.masked_fill(scores.isnan(), -torch.inf)
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    alive = ordered > threshold
    # Those that count come first; nobody needs the columns after the last of them.
    count = int(alive.sum(1).amax()) if alive.numel() else 0
    return order[:, :count], alive[:, :count]
