"""Resizing, sampling, padding and rearranging of pictures and volumes, and choosing of boxes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.indexing import movable, moved
from onnx2nn.runtime.pooling import to_torch_pads


def round_to_float32(value: float) -> float:
    """The float32 nearest to a Python float, without a tensor: ONNX's scales are float32."""
    spread = value * (2.0**29 + 1.0)
    return spread - (spread - value)


def resize_coordinates(
    length: int,
    count: int,
    scale: float,
    mode: str,
    start: float,
    end: float,
    like: Tensor,
) -> Tensor:
    """Where each of ONNX Resize's count results lies on an axis of this length."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    at = torch.arange(count, dtype=dtype, device=like.device)
    # A tensor: division by a number may become a product with its inverse, and round otherwise.
    scales = torch.full_like(at, scale)
    if mode == "asymmetric":
        return at / scales
    if mode == "half_pixel":
        return (at + 0.5) / scales - 0.5
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scales
    if mode == "pytorch_half_pixel":
        return (at + 0.5) / scales - 0.5 if count > 1 else torch.zeros_like(at)
    if mode == "half_pixel_symmetric":
        # The two middles meet, also where length times scale is no whole number.
        offset = length / 2 * (1 - count / (length * scale))
        return offset + (at + 0.5) / scales - 0.5
    # Rounded: a scale that float32 cannot hold must not move the last pixel off its corner.
    exact = round_to_float32(length * scale)
    if mode == "align_corners":
        if exact == 1 or count == 1:
            return torch.zeros_like(at)
        return at * ((length - 1) / (exact - 1))
    if mode == "tf_crop_and_resize":
        if exact == 1 or count == 1:
            return torch.full_like(at, 0.5 * (start + end) * (length - 1))
        return start * (length - 1) + at * ((end - start) * (length - 1) / (exact - 1))
    raise ValueError(f"Resize: coordinate_transformation_mode {mode!r} is not known")


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


def resize_axis(
    x: Tensor,
    axis: int,
    at: Tensor,
    scale: float,
    mode: str,
    cubic_coeff_a: float,
    exclude_outside: bool,
    antialias: bool,
) -> Tensor:
    """Linear or cubic interpolation along one axis at the given places."""
    length = x.shape[axis]
    stretch = min(scale, 1.0) if antialias else 1.0
    reach = 1 if mode == "linear" else 2
    low = at.floor()
    rest = at - low
    first = math.floor(-reach / stretch) + 1
    taps = torch.arange(first, 2 - first, device=x.device)
    weights = resize_filter((taps - rest.unsqueeze(1)) * stretch, mode, cubic_coeff_a)
    places = low.to(torch.int64).unsqueeze(1) + taps
    if exclude_outside:
        weights = weights * ((places >= 0) & (places < length))
    if exclude_outside or antialias:
        weights = weights / weights.sum(1, keepdim=True)
    weights = weights.to(x.dtype)
    places = places.clamp(0, length - 1)
    if antialias and stretch < 1:  # many taps: one product with a matrix
        matrix = torch.zeros([at.shape[0], length], dtype=x.dtype, device=x.device)
        matrix = matrix.scatter_add(1, places, weights)
        return (x.movedim(axis, -1) @ matrix.transpose(0, 1)).movedim(-1, axis)
    shape = [-1] + [1] * (x.dim() - 1 - axis)
    parts = [
        x.index_select(axis, places[:, i]) * weights[:, i].reshape(shape)
        for i in range(taps.shape[0])
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def resize(
    x: Tensor,
    *,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    roi: list[float] | None = None,
    axes: list[int] | None = None,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: bool = False,
    extrapolation_value: float = 0.0,
    antialias: bool = False,
    keep_aspect_ratio_policy: str = "stretch",
) -> Tensor:
    """ONNX Resize, axis by axis: F.interpolate has few of its modes and only some ranks."""
    axes = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
    lengths = [x.shape[a] for a in axes]
    if sizes is not None:
        sizes = list(sizes)
        scales = [s / n if n else 1.0 for s, n in zip(sizes, lengths, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            one = (
                min(scales) if keep_aspect_ratio_policy == "not_larger" else max(scales)
            )
            scales = [one] * len(axes)
            sizes = [math.floor(one * n + 0.5) for n in lengths]
    else:
        assert scales is not None
        scales = [round_to_float32(s) for s in scales]
        sizes = [
            math.floor(round_to_float32(n * s))
            for n, s in zip(lengths, scales, strict=True)
        ]
    crop = coordinate_transformation_mode == "tf_crop_and_resize"
    y = x
    computed = mode != "nearest" and x.dtype not in (torch.float32, torch.float64)
    if computed:
        y = x.to(torch.float32)
    lost: Tensor | None = None
    for i, axis in enumerate(axes):
        start, end = (roi[i], roi[i + len(axes)]) if crop and roi else (0.0, 1.0)
        if sizes[i] == lengths[i] and scales[i] == 1 and (start, end) == (0.0, 1.0):
            continue
        at = resize_coordinates(
            lengths[i],
            sizes[i],
            scales[i],
            coordinate_transformation_mode,
            start,
            end,
            y,
        )
        if crop:
            outside = (at < 0) | (at > lengths[i] - 1)
            outside = outside.reshape([-1] + [1] * (x.dim() - 1 - axis))
            lost = outside if lost is None else lost | outside
        if mode == "nearest":
            index = nearest_index(at, nearest_mode, scales[i])
            y = y.index_select(axis, index.clamp(0, lengths[i] - 1).to(torch.int64))
        else:
            y = resize_axis(
                y, axis, at, scales[i], mode, cubic_coeff_a, exclude_outside, antialias
            )
    if lost is not None:
        y = torch.where(
            lost, torch.full([], extrapolation_value, device=x.device).to(y.dtype), y
        )
    if computed and not x.dtype.is_floating_point:
        limits = torch.iinfo(x.dtype)
        y = ((y + 0.5).floor() if antialias else y).clamp(limits.min, limits.max)
    return y.to(x.dtype)


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
    wide = x
    if mode != "nearest" and x.dtype != grid.dtype:
        wide = x.to(torch.promote_types(x.dtype, grid.dtype))
    batch, channels, out = x.shape[0], x.shape[1], list(grid.shape[1:-1])
    first, count = (
        (0, 1) if mode == "nearest" else ((0, 2) if mode == "linear" else (-1, 4))
    )
    flat = wide.reshape(batch, channels, -1)
    index = torch.zeros([batch, 1, *out], dtype=torch.int64, device=x.device)
    weight = torch.ones([batch, 1, *out], dtype=grid.dtype, device=x.device)
    # After each axis the second axis of index and weight holds all combinations of taps so far.
    for i in range(n):
        size = x.shape[i + 2]
        at = grid[..., n - 1 - i]
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        at = (at + 1) / 2 * (high - low) + low
        if mode != "cubic":
            if padding_mode == "border":
                at = at.clamp(0, size - 1)
            elif padding_mode == "reflection":
                at = reflect_coordinates(at, low, high).clamp(0, size - 1)
        base = at.round() if mode == "nearest" else at.floor()
        taps = torch.arange(first, first + count, device=x.device).reshape(
            [-1] + [1] * len(out)
        )
        places = base.unsqueeze(1) + taps
        if mode == "nearest":
            weights = torch.ones_like(places)
        else:
            weights = resize_filter(places - at.unsqueeze(1), mode, -0.75)
        if padding_mode == "reflection":
            places = reflect_coordinates(places, low, high)
        elif padding_mode == "zeros":
            weights = weights * ((places >= 0) & (places <= size - 1))
        places = places.clamp(0, size - 1).to(torch.int64)
        index = (index.unsqueeze(2) * size + places.unsqueeze(1)).flatten(1, 2)
        weight = (weight.unsqueeze(2) * weights.unsqueeze(1)).flatten(1, 2)
    picked = flat.gather(2, index.reshape(batch, 1, -1).expand(-1, channels, -1))
    picked = picked.reshape([batch, channels, *index.shape[1:]])
    if mode == "nearest":
        return picked.squeeze(2).masked_fill(weight == 0, 0)
    return (picked * weight.unsqueeze(1)).sum(2).to(x.dtype)


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


def pad_nd(
    x: Tensor,
    pads: list[int],
    *,
    mode: str = "constant",
    value: Tensor | float | bool | None = None,
    axes: list[int] | None = None,
) -> Tensor:
    """ONNX Pad: F.pad reflects, repeats and wraps only some ranks, axes and dtypes."""
    axes = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
    begins, ends = [0] * x.dim(), [0] * x.dim()
    for i, a in enumerate(axes):
        begins[a], ends[a] = pads[i], pads[i + len(axes)]
    if mode == "constant":
        if not isinstance(value, Tensor):
            return torch.constant_pad_nd(x, to_torch_pads(begins + ends), value or 0)
        shape = [b + n + e for b, n, e in zip(begins, x.shape, ends, strict=True)]
        inner = [-min(p, 0) for p in begins + ends]
        kept = torch.constant_pad_nd(x, to_torch_pads([-p for p in inner]))
        y = value.reshape([]).to(x.dtype).expand(shape).clone()
        begin = [max(b, 0) for b in begins]
        y[tuple(slice(b, b + n) for b, n in zip(begin, kept.shape, strict=True))] = kept
        return y
    for a in axes:
        if begins[a] < 0 or ends[a] < 0:
            first, past = -min(begins[a], 0), x.shape[a] + min(ends[a], 0)
            x = x.narrow(a, first, past - first)
        before, size, after = max(begins[a], 0), x.shape[a], max(ends[a], 0)
        if before == 0 and after == 0:
            continue
        at = torch.arange(-before, size + after, device=x.device)
        if mode == "reflect":
            period = max(2 * (size - 1), 1)
            at = at.remainder(period)
            at = torch.where(at < size, at, period - at)
        elif mode == "edge":
            at = at.clamp(0, size - 1)
        elif mode == "wrap":
            at = at.remainder(size)
        else:
            raise ValueError(f"Pad: mode {mode!r} is not known")
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
    classes, total = scores.shape[1], scores.shape[2]
    groups = scores.shape[0] * classes
    limit = min(max_output_boxes_per_class, total)
    if limit <= 0 or groups == 0:
        return torch.zeros([0, 3], dtype=torch.int64, device=boxes.device)
    if center_point_box:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        low, high = middle - half, middle + half
    else:
        low = torch.minimum(boxes[..., :2], boxes[..., 2:])
        high = torch.maximum(boxes[..., :2], boxes[..., 2:])
    if score_threshold is not None:
        # NaN is above no threshold, but would be sorted to the front.
        scores = scores.masked_fill(scores.isnan(), -torch.inf)
    ordered, order = scores.reshape(groups, total).sort(
        dim=1, descending=True, stable=True
    )
    alive = torch.ones_like(ordered, dtype=torch.bool)
    if score_threshold is not None:
        alive = ordered > score_threshold
        # Those that count come first; nobody needs the columns after the last of them.
        total = int(alive.sum(1).amax()) if total else 0
        alive, order, limit = alive[:, :total], order[:, :total], min(limit, total)
    owner = torch.arange(groups, device=boxes.device)
    image = (owner // classes).unsqueeze(1)
    low, high = low[image, order], high[image, order]
    area = (high - low).prod(2)
    rank = torch.arange(total, 0, -1, device=boxes.device)
    picks: list[Tensor] = []
    valid: list[Tensor] = []
    for _ in range(limit):
        best, at = (rank * alive).max(1)
        found = best > 0
        if not bool(found.any()):
            break
        picks.append(order.gather(1, at.unsqueeze(1)))
        valid.append(found.unsqueeze(1))
        own_low, own_high = low[owner, at].unsqueeze(1), high[owner, at].unsqueeze(1)
        sides = torch.minimum(high, own_high) - torch.maximum(low, own_low)
        shared = sides.clamp(min=0).prod(2)
        own_area = area.gather(1, at.unsqueeze(1))
        union = area + own_area - shared
        real = (shared > 0) & (area > 0) & (own_area > 0) & (union > 0)
        alive = alive & ~(real & (shared / union > iou_threshold))
        alive = alive.scatter(1, at.unsqueeze(1), False)
    if not picks:
        return torch.zeros([0, 3], dtype=torch.int64, device=boxes.device)
    chosen, kept = torch.cat(picks, 1), torch.cat(valid, 1)
    owners = owner.unsqueeze(1).expand(chosen.shape)[kept]
    return torch.stack([owners // classes, owners % classes, chosen[kept]], 1)
