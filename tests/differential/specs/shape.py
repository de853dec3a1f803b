"""Shapes, slices, indices."""

import math
from typing import Any

import numpy as np

from ..draw import Const, Draw, Node, Skip, kind_of
from ..engine import Row


def reshape(d: Draw) -> Node:
    shape = d.shape()
    size = math.prod(shape)
    target: list[int] = []
    rest = size
    zero = d.opset >= 14 and 0 in shape and d.chance(0.5)
    if size:
        for _ in range(d.integer(0, 3)):
            factor = d.pick(*[f for f in range(1, rest + 1) if rest % f == 0])
            target.append(factor)
            rest //= factor
        if rest != 1 or not target:
            target.append(rest)
        k = d.integer(0, len(target) - 1)
        if d.chance(0.5):
            target[k] = -1
        for i, t in enumerate(target):
            if i < len(shape) and t == shape[i] and d.chance(0.5):
                target[i] = 0
        if size == 1 and d.chance(0.2):
            target = []
    else:
        target = list(shape) if zero else [0] * len(shape)
        if zero and d.chance(0.5):
            target = [0, d.integer(1, 5)]
    attrs = {"allowzero": 1} if zero else {}
    x = d.x(shape, "T")
    if d.opset < 5:
        if not target:
            raise Skip("an attribute without elements has no type")
        return Node([x], {"shape": target})
    return Node([x, d.ints(target, 0.7)], attrs)


def flatten(d: Draw) -> Node:
    shape = d.shape(1)
    low = -len(shape) if d.opset >= 11 else 0
    return Node([d.x(shape, "T")], d.attrs(axis=lambda: d.integer(low, len(shape))))


def transpose(d: Draw) -> Node:
    shape = d.shape(0, 5)
    attrs = (
        {}
        if d.chance(0.3) or not shape
        else {"perm": [int(p) for p in d.rng.permutation(len(shape))]}
    )
    return Node([d.x(shape, "T")], attrs)


def squeeze(d: Draw) -> Node:
    shape = tuple(1 if d.chance(0.4) else s for s in d.shape())
    ones = [
        i - (len(shape) if d.chance(0.3) and d.opset >= 11 else 0)
        for i, s in enumerate(shape)
        if s == 1
    ]
    x = d.x(shape, "T")
    if d.chance(0.3):
        return Node([x])
    if not ones:
        raise Skip("nothing to squeeze")
    axes = [ones[int(i)] for i in d.rng.permutation(len(ones))[: d.integer(1, len(ones))]]
    return Node([x], {"axes": axes}) if d.opset < 13 else Node([x, d.ints(axes)])


def unsqueeze(d: Draw) -> Node:
    shape = d.shape()
    count = d.integer(1, 2)
    rank = len(shape) + count
    axes = [int(a) for a in d.rng.permutation(rank)[:count]]
    if d.opset >= 11:
        axes = [a - (rank if d.chance(0.3) else 0) for a in axes]
    else:
        axes.sort()
    x = d.x(shape, "T")
    return Node([x], {"axes": axes}) if d.opset < 13 else Node([x, d.ints(axes)])


def concat(d: Draw) -> Node:
    shape = d.shape(1)
    axis = d.axis(len(shape)) if d.opset >= 11 else d.integer(0, len(shape) - 1)
    inputs: list[Any] = []
    for _ in range(d.integer(1, 4)):
        dims = list(shape)
        dims[axis] = d.integer(0, 3)
        x = d.x(dims, "T")
        inputs.append(Const(x) if d.chance(0.2) else x)
    attrs = {"axis": axis}
    if d.opset < 4 and axis == 1 and d.chance(0.5):
        attrs = {}
    return Node(inputs, attrs)


def split(d: Draw) -> Node:
    shape = list(d.shape(1))
    axis = d.axis(len(shape)) if d.opset >= 11 else d.integer(0, len(shape) - 1)
    count = d.integer(1, 3)
    attrs = {"axis": axis} if axis != 0 or d.chance(0.5) else {}
    sizes = [d.integer(0 if d.opset >= 11 else 1, 3) for _ in range(count)]
    if d.chance(0.4):
        each = d.integer(1, 3)
        shape[axis] = each * count
        if d.opset >= 18:
            attrs["num_outputs"] = count
            if each > 1 and count > 1:
                shape[axis] -= d.integer(0, 1)
        # ONNX Runtime's chunks are the same; only as many as divide are drawn.
        if d.opset < 2:
            raise Skip("no oracle runs opset 1")
        if d.opset >= 18 and -(-shape[axis] // count) * (count - 1) >= shape[axis]:
            raise Skip("an empty last chunk")
        return Node([d.x(shape, "T")], attrs, count)
    shape[axis] = sum(sizes)
    x = d.x(shape, "T")
    if d.opset < 2:
        places = np.cumsum(sizes)[:-1]
        want = np.split(x, places, attrs.get("axis", 0))
        return Node([x], attrs | {"split": sizes, "axis": axis}, count, expected=want)
    if d.opset < 13:
        return Node([x], attrs | {"split": sizes}, count)
    return Node([x, d.ints(sizes)], attrs, count)


def given_tensor_fill(d: Draw) -> Node:
    x = d.x(d.shape(1), "float32", special=False)
    attrs = {"shape": list(x.shape), "values": x.reshape(-1).tolist()}
    return Node(
        [], attrs if x.size else {"shape": [0, 2]}, expected=[x if x.size else x.reshape(0, 2)]
    )


def dynamic_slice(d: Draw) -> Node:
    shape = d.shape(1, 4, 6)
    axes = d.axes(len(shape), 1)
    kind, p = d.pick(np.int64, np.int32), d.pick(0, 1, 1)
    bounds = [[d.pick(2**31 - 1, 9, -9, *range(-7, 8)) for _ in axes] for _ in range(2)]
    dtype = d.pick("float32", "float64", "int64", "uint8", "bool", "int32")
    inputs = [d.x(shape, dtype), d.ints(bounds[0], p, kind), d.ints(bounds[1], p, kind)]
    if axes != list(range(len(axes))) or d.chance(0.5):
        inputs.append(d.ints(axes, p, kind))
    return Node(inputs)


def slice_(d: Draw) -> Node:
    shape = d.shape(1, 4, 6)
    axes = d.axes(len(shape), 1)
    big = [2**31 - 1, 2**63 - 1, -(2**31), -(2**63) + 1, 9, -9]
    starts = [d.pick(*big) if d.chance(0.2) else d.integer(-7, 7) for _ in axes]
    ends = [d.pick(*big) if d.chance(0.2) else d.integer(-7, 7) for _ in axes]
    x = d.x(shape, "T")
    if d.opset < 10:
        axes = [a % len(shape) for a in axes]
        if d.chance(0.3):
            axes = list(range(len(axes)))
            return Node([x], {"starts": starts, "ends": ends})
        return Node([x], {"starts": starts, "ends": ends, "axes": axes})
    if d.opset == 10:
        axes = [a % len(shape) for a in axes]
    kind = d.pick(np.int64, np.int32)
    if kind == np.int32:
        starts, ends = ([min(max(v, -(2**31)), 2**31 - 1) for v in vs] for vs in (starts, ends))
    steps = [d.pick(1, 1, 2, -1, -2, 3) for _ in axes] if d.chance(0.6) else None
    p = d.pick(0, 1, 1)
    inputs: list[Any] = [x, d.ints(starts, p, kind), d.ints(ends, p, kind)]
    if axes == list(range(len(axes))) and d.chance(0.5) and steps is None:
        return Node(inputs)
    inputs.append(d.ints(axes, p, kind))
    if steps is not None:
        inputs.append(d.ints(steps, p, kind))
    return Node(inputs)


def gather(d: Draw) -> Node:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    size = shape[axis]
    indices = d.index(d.shape(0, 2), size, d.pick(np.int64, np.int32))
    if d.opset < 11:
        indices = indices % size
    attrs = {"axis": axis} if axis != 0 or d.chance(0.5) else {}
    return Node([d.x(shape, "T"), d.const(indices, 0.4)], attrs)


def gather_elements(d: Draw) -> Node:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    to = [d.integer(1, max(s, 1)) for s in shape]
    to[axis] = d.integer(1, 5)
    if 0 in shape:
        raise Skip("nothing to gather")
    indices = d.index(to, shape[axis], d.pick(np.int64, np.int32))
    attrs = {"axis": axis} if axis != 0 or d.chance(0.5) else {}
    return Node([d.x(shape, "T"), d.const(indices, 0.3)], attrs)


def gather_nd(d: Draw) -> Node:
    shape = d.shape(1, 4)
    if 0 in shape:
        raise Skip("nothing to gather")
    batch = d.integer(0, len(shape) - 1) if d.opset >= 12 else 0
    depth = d.integer(1, len(shape) - batch)
    outer = (*shape[:batch], *(d.integer(1, 3) for _ in range(d.integer(0, 2))))
    columns = [d.index(outer, s) for s in shape[batch : batch + depth]]
    attrs = {"batch_dims": batch} if batch or (d.chance(0.3) and d.opset >= 12) else {}
    return Node([d.x(shape, "T"), d.const(np.stack(columns, -1), 0.3)], attrs)


def reductions(d: Draw) -> dict[str, Any]:
    if d.opset >= 18:
        names = ["none", "add", "mul", "max", "min"]
    else:
        names = ["none", "add", "mul"] if d.opset >= 16 else []
    if (names and kind_of(d.t("T")) not in "iuf") or "8" in d.t("T").name[5:]:
        names = []
    return d.attrs(reduction=names) if names else {}


def scatter_elements(d: Draw) -> Node:
    shape = d.shape(1)
    if 0 in shape:
        raise Skip("nowhere to scatter")
    axis = d.axis(len(shape))
    to = [d.integer(1, s) for s in shape]
    attrs = {"axis": axis} if axis != 0 or d.chance(0.5) else {}
    how = reductions(d)
    if how.get("reduction", "none") == "none":
        # Which of two writes to one place wins is not said.
        columns = np.argsort(d.rng.random([*to[:-1], to[-1]]), axis)
        indices = (columns - (shape[axis] if d.chance(0.3) else 0)).astype(np.int64)
    else:
        indices = d.index(to, shape[axis])
    dtype = d.t("T")
    x, updates = d.x(shape, dtype, -3, 3), d.x(to, dtype, -3, 3)
    return Node([x, d.const(indices, 0.3), updates], attrs | how)


def scatter(d: Draw) -> Node:
    node = scatter_elements(d)
    x, given, updates = node.inputs
    indices = given.value if isinstance(given, Const) else given
    axis = node.attrs.get("axis", 0)
    part = [slice(0, s) for s in indices.shape]
    part[axis] = slice(None)
    want = x.copy()
    inner = want[tuple(part)]
    np.put_along_axis(inner, indices % x.shape[axis], updates, axis)
    want[tuple(part)] = inner
    return Node(node.inputs, node.attrs, expected=[want])


def scatter_nd(d: Draw) -> Node:
    shape = d.shape(1, 3)
    if 0 in shape:
        raise Skip("nowhere to scatter")
    depth = d.integer(1, len(shape))
    how = reductions(d)
    total = math.prod(shape[:depth])
    count = d.integer(1, total)
    if how.get("reduction", "none") == "none":
        flat = d.rng.permutation(total)[:count]
    else:
        flat = d.rng.integers(0, total, count)
    indices = np.stack(np.unravel_index(flat, shape[:depth]), -1).astype(np.int64)
    if d.chance(0.3) and d.opset >= 13:
        indices = indices - np.array(shape[:depth])
    dtype = d.t("T")
    x = d.x(shape, dtype, -3, 3)
    return Node([x, d.const(indices, 0.3), d.x((count, *shape[depth:]), dtype, -3, 3)], how)


def expand(d: Draw) -> Node:
    a, b = d.broadcast(2)
    return Node([d.x(a, "T"), d.ints(b)])


def tile(d: Draw) -> Node:
    shape = d.shape(1 if d.opset < 13 else 0, 3)
    x = d.x(shape, "T")
    if d.opset < 6:
        axis, times = d.integer(0, len(shape) - 1), d.integer(1, 3)
        repeats = [times if i == axis else 1 for i in range(len(shape))]
        inputs = [x, Const(np.array([times], x.dtype)), Const(np.array([axis], x.dtype))]
        return Node(inputs, expected=[np.tile(x, repeats)], ranked=True)
    return Node([x, d.ints([d.integer(0 if d.chance(0.1) else 1, 3) for _ in shape])])


def shape_of(d: Draw) -> Node:
    shape = d.shape()
    attrs = (
        d.attrs(start=lambda: d.integer(-5, 5), end=lambda: d.integer(-5, 5))
        if d.opset >= 15
        else {}
    )
    return Node([d.x(shape, "T", special=False)], attrs)


def compress(d: Draw) -> Node:
    shape = d.shape(1)
    attrs = d.attrs(
        axis=lambda: d.axis(len(shape)) if d.opset >= 11 else d.integer(0, len(shape) - 1)
    )
    size = shape[attrs["axis"]] if "axis" in attrs else math.prod(shape)
    condition = d.x((d.integer(min(1, size), size),), "bool")
    return Node([d.x(shape, "T"), d.const(condition, 0.3)], attrs)


def one_hot(d: Draw) -> Node:
    depth = d.integer(1, 5)
    shape = d.shape(1, 3)
    indices = d.rng.integers(-depth if d.opset >= 11 else 0, depth + 1, shape)
    kind = d.t("T1", "int", "float")
    if kind_of(kind) == "u":
        indices = np.abs(indices)
    values = d.x((2,), "T3")
    where = len(shape) + 1
    attrs = d.attrs(
        axis=lambda: d.integer(-where, where - 1) if d.opset >= 11 else d.integer(-1, where - 1)
    )
    size = np.asarray(depth if d.chance(0.5) else [depth]).astype(d.t("T2", "int", "float"))
    return Node([indices.astype(kind), d.const(size), d.const(values)], attrs)


def trilu(d: Draw) -> Node:
    shape = d.shape(2)
    k = d.maybe(np.asarray(d.integer(-5, 5)))
    return Node([d.x(shape, "T"), k if k is None else d.const(k)], d.attrs(upper=[0, 1]))


def range_(d: Draw) -> Node:
    dtype = d.t("T", "float", "int")
    delta = d.pick(1, 2, 3, -1, -2, 0.5 if kind_of(dtype) == "f" else 1)
    start, limit = d.integer(-5, 5), d.integer(-5, 5)
    p = d.pick(0, 1)
    return Node([d.const(np.asarray(v, dtype), p) for v in (start, limit, delta)])


def eye(d: Draw) -> Node:
    from onnx import helper

    attrs = d.attrs(k=lambda: d.integer(-4, 4))
    x = d.x((d.integer(0, 4), d.integer(1, 4)), "T1")
    if d.chance(0.5):
        target = d.t("T2", "float", "int")
        attrs["dtype"] = helper.np_dtype_to_tensor_dtype(target)
    return Node([x], attrs)


def constant_of_shape(d: Draw) -> Node:
    from onnx import numpy_helper

    attrs = {}
    if d.chance(0.7):
        attrs["value"] = numpy_helper.from_array(d.x((1,), "T2", special=False))
    return Node([d.ints(d.shape())], attrs)


def space(d: Draw) -> Node:
    b = d.integer(1, 3)
    n, c, h, w = (d.integer(1, 3) for _ in range(4))
    if d.op_type == "DepthToSpace":
        shape = (n, c * b * b, h, w)
        attrs = d.attrs(mode=["DCR", "CRD"]) if d.opset >= 11 else {}
    else:
        shape = (n, c, h * b, w * b)
        attrs = d.attrs(mode=["DCR", "CRD"]) if d.opset >= 28 else {}
    return Node([d.x(shape, "T")], attrs | {"blocksize": b})


def reverse_sequence(d: Draw) -> Node:
    shape = (d.integer(1, 4), d.integer(1, 4), *(d.integer(1, 3) for _ in range(d.integer(0, 2))))
    time = d.integer(0, 1)
    attrs = {"time_axis": time, "batch_axis": 1 - time}
    if time == 0 and d.chance(0.3):
        attrs = {}
    lengths = d.rng.integers(1, shape[time] + 1, (shape[1 - time],))
    return Node([d.x(shape, "T"), d.const(lengths, 0.3)], attrs)


def unique(d: Draw) -> Node:
    shape = d.shape(1, 3)
    if 0 in shape:
        raise Skip("nothing")
    x = d.x(shape, "T", -2, 2)
    if kind_of(x.dtype) == "f":
        x = np.round(x.astype(np.float64)).astype(x.dtype) + np.asarray(0, x.dtype)
    attrs = d.attrs(axis=lambda: d.axis(len(shape)), sorted=[0, 1])
    if kind_of(x.dtype) == "c":
        raise Skip("complex numbers have no order")
    if d.opset >= 28:
        # Only the reference runs it, which sorts in any case.
        attrs["sorted"] = 1
    return Node([x], attrs, d.pick(1, 4, [True, False, True], [True, False, False, True]))


def pad(d: Draw) -> Node:
    shape = d.shape(1, 4, 5)
    rank = len(shape)
    modes = ["constant", "reflect", "edge"] + (["wrap"] if d.opset >= 19 else [])
    mode = d.pick(*modes)
    axes = d.axes(rank, 1) if d.opset >= 18 and d.chance(0.4) else None
    chosen = list(range(rank)) if axes is None else [a % rank for a in axes]
    if 0 in shape:
        raise Skip("nothing to pad with")
    starts, ends = [], []
    for a in chosen:
        # Beyond the tensor itself a reflection is not said.
        most = shape[a] - 1 if mode == "reflect" else shape[a] if mode == "wrap" else 3
        starts.append(d.integer(0, most))
        ends.append(d.integer(0, most))
        if mode == "constant" and d.chance(0.2) and shape[a] > 1:
            starts[-1] = -d.integer(1, shape[a] - 1)
    dtype = d.t("T")
    if mode != "constant" and kind_of(dtype) == "s":
        raise Skip("strings are padded with constants only")
    x = d.x(shape, dtype)
    attrs = {"mode": mode} if mode != "constant" or d.chance(0.5) else {}
    if d.opset < 11:
        value = {"value": d.pick(0.0, 1.5, -2.0)} if d.chance(0.5) else {}
        name = "paddings" if d.opset < 2 else "pads"
        want = None
        if d.opset < 2:
            if min(starts + ends) < 0:
                raise Skip("not negative in opset 1")
            kw = {"constant_values": value.get("value", 0.0)} if mode == "constant" else {}
            want = [np.pad(x, list(zip(starts, ends, strict=True)), mode, **kw)]  # type: ignore[call-overload]
        return Node([x], attrs | value | {name: starts + ends}, expected=want)
    filler = d.maybe(d.x((), dtype, special=False)) if mode == "constant" else None
    inputs = [x, d.ints(starts + ends, 0.8), filler if filler is None else d.const(filler)]
    if axes is not None:
        inputs.append(d.ints(axes, 0.8))
    return Node(inputs, attrs)


def center_crop_pad(d: Draw) -> Node:
    shape = tuple(d.integer(1, 6) for _ in range(d.integer(1, 4)))
    axes = d.axes(len(shape), 1) if d.chance(0.6) else None
    count = len(shape) if axes is None else len(axes)
    attrs = {} if axes is None else {"axes": axes}
    return Node([d.x(shape, "T"), d.ints([d.integer(1, 7) for _ in range(count)])], attrs)


def non_zero(d: Draw) -> Node:
    x = d.x(d.shape(1), "T", -1, 1)
    if kind_of(x.dtype) == "s":
        raise Skip("only some strings are true to the reference")
    return Node([np.asarray(x)])


ROWS = {
    "Reshape": Row(reshape),
    "Flatten": Row(flatten),
    "Transpose": Row(transpose),
    "Squeeze": Row(squeeze),
    "Unsqueeze": Row(unsqueeze),
    "Concat": Row(concat),
    "Split": Row(split),
    "DynamicSlice": Row(dynamic_slice),
    "GivenTensorFill": Row(given_tensor_fill),
    "Slice": Row(
        slice_,
        judge="either",
        reason="with a negative step ONNX Runtime takes an end of INT64_MAX for the very first",
    ),
    "Gather": Row(
        gather, judge="either", reason="ONNX Runtime loses strings of rows that are taken twice"
    ),
    "GatherElements": Row(gather_elements),
    "GatherND": Row(gather_nd),
    # No oracle has it.
    "Scatter": Row(scatter),
    "ScatterElements": Row(scatter_elements),
    "ScatterND": Row(scatter_nd),
    "Expand": Row(expand),
    "Tile": Row(tile),
    "Shape": Row(shape_of),
    "Size": Row(lambda d: Node([d.x(d.shape(), "T", special=False)])),
    "Compress": Row(compress),
    "OneHot": Row(one_hot),
    "Trilu": Row(trilu),
    "Range": Row(range_),
    "EyeLike": Row(eye),
    "ConstantOfShape": Row(constant_of_shape),
    "SpaceToDepth": Row(space),
    "DepthToSpace": Row(space),
    "ReverseSequence": Row(reverse_sequence),
    "Unique": Row(unique),
    "Pad": Row(pad),
    "CenterCropPad": Row(center_crop_pad),
    "NonZero": Row(non_zero),
}
