"""Convolutions, pools, resizing and sampling."""

import math
from typing import Any

import numpy as np

from ..draw import Const, Draw, Node, Skip
from ..engine import Row, answer_at


def spatial(d: Draw, least: int = 3, most: int = 7) -> tuple[int, ...]:
    return tuple(d.integer(least, most) for _ in range(d.pick(1, 2, 2, 2, 3)))


def windows(d: Draw, rank: int, dilated: bool = True, auto: bool = True) -> dict[str, Any]:
    """Strides, dilations and pads that suit kernels of 2 or 3 on sizes from 5 up."""
    attrs: dict[str, Any] = {}
    if d.chance(0.5):
        attrs["strides"] = [d.integer(1, 3) for _ in range(rank)]
    if dilated and d.chance(0.3):
        attrs["dilations"] = [d.integer(1, 2) for _ in range(rank)]
    how = d.pick("none", "pads", "pads", "auto") if auto else d.pick("none", "pads")
    if how == "pads":
        attrs["pads"] = [d.integer(0, 1) for _ in range(2 * rank)]
        if d.chance(0.5):
            attrs["pads"] = attrs["pads"][:rank] * 2
    elif how == "auto":
        attrs["auto_pad"] = d.pick("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")
    return attrs


def known(d: Draw, node: Node, opset: int, always: bool = False) -> Node:
    """The node, with ONNX Runtime's answer of `opset` or later where it has no kernel for halves.

    The reference, which would be asked else, pools halves without their pads or rounds up,
    drops axes in GlobalMaxPool, and gives each group of ConvTranspose the first group's bias. The
    text of the operators has none of that.
    """
    if always or node.inputs[0].dtype.name in ("float16", "bfloat16"):
        node.expected = answer_at(d, node, max(opset, d.opset))
    return node


def conv_parts(d: Draw) -> tuple[Any, Any, dict[str, Any]]:
    size = spatial(d, 5)
    groups, each, filters = d.pick(1, 1, 2, 3), d.integer(1, 2), d.integer(1, 2)
    kernel = [d.integer(1, 3) for _ in size]
    attrs = windows(d, len(size))
    if str(attrs.get("auto_pad", "")).startswith("SAME"):
        attrs.pop("dilations", None)
    if d.chance(0.5):
        attrs["kernel_shape"] = kernel
    if groups > 1 or d.chance(0.2):
        attrs["group"] = groups
    x = (d.integer(1, 2), groups * each, *size)
    return x, (groups * filters, each, *kernel), attrs


def conv(d: Draw) -> Node:
    x, w, attrs = conv_parts(d)
    dtype = d.t("T")
    inputs = [d.x(x, dtype, -2, 2), d.const(d.x(w, dtype, -2, 2))]
    if d.chance(0.5):
        inputs.append(d.const(d.x(w[:1], dtype, -2, 2)))
    return Node(inputs, attrs)


def conv_integer(d: Draw) -> Node:
    x, w, attrs = conv_parts(d)
    first, second = d.t("T1", common=0), d.t("T2", common=0)
    inputs: list[Any] = [d.x(x, first, -30, 60), d.const(d.x(w, second, -30, 30))]
    if d.chance(0.6):
        inputs.append(d.x((), first, 0, 9))
        if d.chance(0.6):
            inputs.append(d.const(d.x((), second, 0, 9)))
    return Node(inputs, attrs)


def q_linear_conv(d: Draw) -> Node:
    x, w, attrs = conv_parts(d)
    kind = d.t("T1", common=0)
    signed = kind.name == "int8"
    other = np.dtype("int8") if signed or d.chance(0.5) else np.dtype("uint8")
    channels = w[:1] if d.chance(0.5) else ()
    inputs = [
        d.x(x, kind, -30, 60),
        d.const(d.x((), "float32", 0.01, 0.1), 1),
        d.const(d.x((), kind, 0, 9), 1),
        d.const(d.x(w, other, -30, 30), 1),
        d.const(d.x(channels, "float32", 0.01, 0.1), 1),
        d.const(np.zeros(channels, other) if channels else d.x((), other, 0, 3), 1),
        d.const(d.x((), "float32", 0.2, 0.6), 1),
        d.const(d.x((), kind, 0, 9), 1),
    ]
    if d.chance(0.5):
        inputs.append(Const(d.x(w[:1], "int32", -100, 100)))
    return Node(inputs, attrs)


def conv_transpose(d: Draw) -> Node:
    size = spatial(d, 2, 4)
    groups, each, filters = d.pick(1, 1, 2), d.integer(1, 2), d.integer(1, 2)
    kernel = [d.integer(2, 3) for _ in size]
    attrs = windows(d, len(size), auto=False)
    strides = attrs.get("strides", [1] * len(size))
    if d.chance(0.3):
        attrs["output_padding"] = [d.integer(0, s - 1) for s in strides]
    elif d.chance(0.2):
        attrs.pop("pads", None)
        attrs.pop("dilations", None)
        attrs["auto_pad"] = d.pick("SAME_UPPER", "SAME_LOWER", "VALID")
    if d.chance(0.5):
        attrs["kernel_shape"] = kernel
    if groups > 1:
        attrs["group"] = groups
    dtype = d.t("T")
    w = (groups * each, filters, *kernel)
    inputs = [
        d.x((d.integer(1, 2), groups * each, *size), dtype, -2, 2),
        d.const(d.x(w, dtype, -2, 2)),
    ]
    if d.chance(0.5):
        inputs.append(d.const(d.x((groups * filters,), dtype, -2, 2)))
    return known(d, Node(inputs, attrs), 11)


def deform_conv(d: Draw) -> Node:
    h, w = d.integer(4, 6), d.integer(4, 6)
    kernel = [d.integer(1, 3), d.integer(1, 3)]
    n, c, filters = d.integer(1, 2), 2, 2
    attrs = d.attrs(strides=[[1, 1], [2, 1]], pads=[[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]])
    strides, pads = attrs.get("strides", [1, 1]), attrs.get("pads", [0] * 4)
    out = [(s + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, s in enumerate((h, w))]
    groups = d.pick(1, 2)
    dtype = d.t("T", "float32", "float64")
    count = groups * math.prod(kernel)
    inputs = [
        d.x((n, c, h, w), dtype, -2, 2),
        d.const(d.x((filters, c, *kernel), dtype, -2, 2)),
        d.x((n, 2 * count, *out), dtype, -1.5, 1.5),
        d.maybe(d.x((filters,), dtype, -1, 1)),
        d.maybe(d.x((n, count, *out), dtype, 0, 1)),
    ]
    while inputs[-1] is None:
        inputs.pop()
    if groups > 1:
        attrs["offset_group"] = groups
    return Node(inputs, attrs | {"kernel_shape": kernel})


def pool(d: Draw) -> Node:
    size = spatial(d, 5)
    rank = len(size)
    newer = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[d.op_type]
    dilated = d.opset >= newer
    attrs = windows(d, rank, dilated) | {"kernel_shape": [d.integer(2, 3) for _ in size]}
    if str(attrs.get("auto_pad", "")).startswith("SAME"):
        attrs.pop("dilations", None)
        # With larger strides the pads are negative to both oracles, and zero to the text.
        if "strides" in attrs:
            both = zip(attrs["strides"], attrs["kernel_shape"], strict=True)
            attrs["strides"] = [min(s, k) for s, k in both]
    if (d.opset >= newer and d.op_type != "LpPool") or d.opset >= 18:
        attrs |= d.attrs(ceil_mode=[0, 1])
    if d.op_type == "AveragePool" and d.opset >= 7:
        attrs |= d.attrs(count_include_pad=[0, 1])
    if d.op_type == "LpPool":
        attrs |= d.attrs(p=[1, 2, 3]) if d.opset >= 2 else {"p": d.pick(1.0, 2.0)}
    if d.op_type == "LpPool" and d.opset < 2 and "pads" in attrs:
        del attrs["pads"]
    x = d.x((d.integer(1, 2), d.integer(1, 3), *size), "T", -4, 4)
    outputs = 1
    if d.op_type == "MaxPool" and d.opset >= 8 and d.chance(0.3):
        outputs = 2
        attrs |= d.attrs(storage_order=[0, 1])
    node = Node([x], attrs, outputs)
    if d.op_type == "LpPool":
        return node
    # Before opset 7 padding did not count, to ONNX Runtime also; the reference counts it.
    old = d.op_type == "AveragePool" and d.opset < 7
    if old and x.dtype == np.float64:
        raise Skip("ONNX Runtime averages no float64")
    return known(d, node, {"MaxPool": 12, "AveragePool": 10}[d.op_type], old)


def global_pool(d: Draw) -> Node:
    shape = (d.integer(1, 2), d.integer(1, 3), *spatial(d, 1, 4))
    attrs: dict[str, Any] = {}
    if d.op_type == "GlobalLpPool":
        attrs = d.attrs(p=[1, 2, 3]) if d.opset >= 2 else {"p": d.pick(1.0, 2.0)}
    node = Node([d.x(shape, "T", -4, 4)], attrs)
    return known(d, node, 1) if d.op_type == "GlobalMaxPool" else node


def max_unpool(d: Draw) -> Node:
    h, w = d.integer(1, 3), d.integer(1, 3)
    n, c = d.integer(1, 2), d.integer(1, 2)
    x = d.x((n, c, h, w), "T1", 0.1, 3)
    rows, columns = 2 * h, 2 * w
    corner = (np.arange(h)[:, None] * 2 * columns + np.arange(w) * 2) + d.pick(0, 1)
    first = (np.arange(n * c) * rows * columns).reshape(n, c, 1, 1)
    places = (corner + first).astype(np.int64)
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return Node([x, places], attrs)


def roi_align(d: Draw) -> Node:
    n, c, h, w = d.integer(1, 2), d.integer(1, 2), d.integer(4, 8), d.integer(4, 8)
    many = d.integer(1, 3)
    dtype = d.t("T1", "float32", "float64") if d.opset < 22 else d.t("T1")
    corner = d.rng.uniform(0, 4, (many, 2))
    rois = np.concatenate([corner, corner + d.rng.uniform(0.5, 5, (many, 2))], 1).astype(dtype)
    attrs = d.attrs(
        output_height=[1, 2, 3],
        output_width=[1, 2],
        sampling_ratio=[0, 1, 2],
        spatial_scale=[1.0, 0.5],
        mode=["avg", "max"],
    )
    if d.opset >= 16:
        attrs |= d.attrs(coordinate_transformation_mode=["half_pixel", "output_half_pixel"])
    return Node([d.x((n, c, h, w), dtype, 0, 3), rois, d.rng.integers(0, n, (many,))], attrs)


def max_roi_pool(d: Draw) -> Node:
    n, c, h, w = d.integer(1, 2), d.integer(1, 2), d.integer(4, 8), d.integer(4, 8)
    many = d.integer(1, 3)
    corner = d.rng.integers(0, 3, (many, 2))
    rois = np.concatenate(
        [d.rng.integers(0, n, (many, 1)), corner, corner + d.rng.integers(0, 4, (many, 2))], 1
    )
    attrs = {"pooled_shape": [d.integer(1, 3), d.integer(1, 3)]} | d.attrs(spatial_scale=[1.0, 0.5])
    dtype = d.t("T")
    if dtype == np.float64:
        raise Skip("no oracle pools regions of float64")
    node = Node([d.x((n, c, h, w), dtype, -3, 3), rois.astype(dtype)], attrs)
    node.expected = answer_at(d, node, 1)
    return node


def col2im(d: Draw) -> Node:
    size = tuple(d.integer(4, 6) for _ in range(d.pick(1, 2, 2, 3)))
    block = [d.integer(1, 3) for _ in size]
    attrs: dict[str, Any] = {}
    if d.chance(0.4):
        attrs["strides"] = [d.integer(1, 2) for _ in size]
    if d.chance(0.4):
        attrs["pads"] = [d.integer(0, 1) for _ in range(2 * len(size))]
    strides, pads = attrs.get("strides", [1] * 3), attrs.get("pads", [0] * 6)
    many = math.prod(
        (s + pads[i] + pads[i + len(size)] - block[i]) // strides[i] + 1 for i, s in enumerate(size)
    )
    shape = (d.integer(1, 2), d.integer(1, 2) * math.prod(block), many)
    return Node([d.x(shape, "T", -4, 4), d.ints(size), d.ints(block)], attrs)


def resize(d: Draw) -> Node:
    mode = d.pick("nearest", "linear", "cubic") if d.opset >= 11 else d.pick("nearest", "linear")
    rank = d.pick(2, 4, 4, 4)
    shape = (d.integer(1, 2), d.integer(1, 2), *(d.integer(2, 6) for _ in range(2)))[-rank:]
    still = rank - 2
    dtype = d.t("T1" if d.opset >= 11 else "T", "float32", "uint8", "int8", "int32")
    if mode != "nearest" and dtype != np.float32:
        raise Skip("what is rounded between two pictures is not said")
    x = d.x(shape, dtype, 0, 9)
    scales = [d.pick(0.5, 0.75, 1.5, 2.0, 2.6, 1.0) for _ in range(2)]
    if d.opset < 11:
        return Node([x, d.const(np.array([1.0] * still + scales, np.float32))], {"mode": mode})
    attrs: dict[str, Any] = {"mode": mode}
    ways = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
    attrs |= d.attrs(
        coordinate_transformation_mode=ways + ["half_pixel_symmetric"] * (d.opset >= 19)
    )
    if mode == "nearest":
        attrs |= d.attrs(nearest_mode=["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        attrs |= d.attrs(cubic_coeff_a=[-0.5, -0.75], exclude_outside=[0, 1])
    axes = None
    if d.opset >= 18 and d.chance(0.4):
        axes = [rank - 2, rank - 1]
        attrs["axes"] = axes if d.chance(0.5) else [-2, -1]
    if d.opset >= 18 and mode != "nearest" and d.chance(0.3):
        attrs["antialias"] = 1
    roi = np.zeros(0, np.float32) if d.opset < 13 else None
    head: list[Any] = [x, roi if roi is None else Const(roi)]
    if d.chance(0.5):
        values = ([] if axes else [1.0] * still) + scales
        return Node([*head, d.const(np.array(values, np.float32))], attrs)
    sizes = [max(1, round(s * k)) for s, k in zip(shape[-2:], scales, strict=True)]
    if d.opset >= 18 and axes and d.chance(0.4):
        attrs["keep_aspect_ratio_policy"] = d.pick("not_larger", "not_smaller", "stretch")
        # ONNX Runtime looks for the ratio on other axes where they count from the back.
        attrs["axes"] = axes
    none = None if d.opset >= 13 else Const(np.zeros(0, np.float32))
    target = sizes if axes else [*shape[:still], *sizes]
    return Node([*head, none, d.ints(target)], attrs)


def upsample(d: Draw) -> Node:
    mode = d.pick("nearest", "linear") if d.opset >= 7 else d.pick("nearest", "bilinear")
    shape = (d.integer(1, 2), d.integer(1, 2), d.integer(1, 5), d.integer(1, 5))
    scales = [d.pick(1.0, 1.5, 2.0, 3.0) for _ in range(2)]
    x = d.x(shape, "float32", -3, 3)
    if d.opset < 7:
        old = {"height_scale": scales[0], "width_scale": scales[1], "mode": mode}
        new = {"scales": [1.0, 1.0, *scales], "mode": mode.removeprefix("bi")}
        return Node([x], old, expected=answer_at(d, Node([x], new), 7))
    if d.opset < 9:
        return Node([x], {"scales": [1.0, 1.0, *scales], "mode": mode})
    return Node([x, d.const(np.array([1.0, 1.0, *scales], np.float32))], {"mode": mode})


def grid_sample(d: Draw) -> Node:
    deep = d.opset >= 20 and d.chance(0.3)
    rank = 3 if deep else 2
    modes = ["bilinear", "nearest", "bicubic"] if d.opset < 20 else ["linear", "nearest", "cubic"]
    mode = d.pick(*(modes[:2] if deep else modes))
    n = d.integer(1, 2)
    x = d.x((n, d.integer(1, 2), *(d.integer(2, 4) for _ in range(rank))), "T1", -3, 3)
    if x.dtype != np.float32:
        raise Skip("ONNX Runtime samples float32 only")
    grid = d.x((n, *(d.integer(1, 4) for _ in range(rank)), rank), "float32", -1.3, 1.3)
    attrs = d.attrs(padding_mode=["zeros", "border", "reflection"], align_corners=[0, 1])
    return Node([x, grid], attrs | {"mode": mode})


def affine_grid(d: Draw) -> Node:
    rank = d.pick(2, 3)
    n = d.integer(1, 2)
    theta = d.x((n, rank, rank + 1), "T1", -1, 1)
    size = [n, d.integer(1, 2), *(d.integer(1, 4) for _ in range(rank))]
    attrs = d.attrs(align_corners=[0, 1])
    if attrs.get("align_corners") and 1 in size[2:]:
        raise Skip("where one pixel lies that is two corners: -1, 0 and 1 say three oracles")
    return Node([theta, d.ints(size)], attrs)


def crop(d: Draw) -> Node:
    x = d.x((1, 2, 6, 7), "float32")
    border = [d.integer(0, 2) for _ in range(4)]
    left, top, right, bottom = border
    if d.chance(0.5):
        size = [d.integer(1, 3), d.integer(1, 3)]
        want = x[:, :, top : top + size[0], left : left + size[1]]
        return Node([x], {"border": border, "scale": size}, expected=[want])
    return Node([x], {"border": border}, expected=[x[:, :, top : 6 - bottom, left : 7 - right]])


def image_scaler(d: Draw) -> Node:
    c = d.integer(1, 3)
    x = d.x((d.integer(1, 2), c, 2, 3), "float32", -2, 2)
    bias, scale = [float(v) for v in range(c)], d.pick(1.0, 0.5)
    want = x * np.float32(scale) + np.array(bias, np.float32).reshape(1, c, 1, 1)
    return Node([x], {"bias": bias, "scale": scale}, expected=[want])


def non_max_suppression(d: Draw) -> Node:
    n, classes, many = d.integer(1, 2), d.integer(1, 2), d.integer(1, 6)
    corner = d.rng.uniform(0, 3, (n, many, 2))
    boxes = np.concatenate([corner, corner + d.rng.uniform(0.5, 3, (n, many, 2))], 2)
    # Scores that differ: the order of equals is not said.
    scores = d.rng.permutation(n * classes * many).reshape(n, classes, many) / (n * classes * many)
    attrs = d.attrs(center_point_box=[0, 1])
    inputs: list[Any] = [
        boxes.astype(np.float32),
        scores.astype(np.float32),
        d.maybe(d.const(np.array(d.pick([1], [2], [9]), np.int64))),
        d.maybe(d.const(np.array([d.pick(0.0, 0.3, 0.5, 1.0)], np.float32))),
        d.maybe(d.const(np.array([0.4], np.float32))),
    ]
    while inputs[-1] is None:
        inputs.pop()
    return Node(inputs, attrs)


HALF = {"float16": 1e-2, "bfloat16": 6e-2}
ROWS = {
    "Conv": Row(conv, rtol=HALF),
    "ConvInteger": Row(conv_integer),
    "QLinearConv": Row(q_linear_conv),
    "ConvTranspose": Row(conv_transpose, rtol=HALF),
    "DeformConv": Row(deform_conv),
    "MaxPool": Row(pool),
    "AveragePool": Row(pool),
    "LpPool": Row(pool),
    "GlobalAveragePool": Row(global_pool),
    "GlobalMaxPool": Row(global_pool),
    "GlobalLpPool": Row(global_pool),
    "MaxUnpool": Row(max_unpool),
    "MaxRoiPool": Row(max_roi_pool),
    "RoiAlign": Row(roi_align),
    "Col2Im": Row(col2im),
    "Resize": Row(resize),
    "Upsample": Row(upsample),
    "GridSample": Row(grid_sample),
    "AffineGrid": Row(affine_grid),
    "Crop": Row(crop),
    "ImageScaler": Row(image_scaler),
    "NonMaxSuppression": Row(non_max_suppression),
}
