"""Reductions, softmaxes, norms, and what runs along an axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..draw import Const, Draw, Node, Skip, kind_of
from ..engine import Row


def axes_of(d: Draw, rank: int, axes: list[int] | None, since: int) -> tuple[list[Any], Any]:
    """Axes as an attribute, or as an input since some opset."""
    if axes is None:
        return [], {}
    if d.opset < since:
        return [], {"axes": axes}
    return [d.ints(axes, 0.8)], {}


def reduction(since: int, low: float | None = None) -> Callable[[Draw], Node]:
    def draw(d: Draw) -> Node:
        shape = d.shape(0 if d.opset >= 13 else 1)
        extreme = d.op_type in ("ReduceMax", "ReduceMin")
        if 0 in shape and (extreme or d.opset < 20):
            raise Skip("what remains of nothing was said later")
        if d.op_type == "ReduceLogSumExp" or extreme:
            # Whether NaN wins over infinity, or over numbers, depends on the order in ONNX Runtime.
            d.special = False
        dtype = d.t("T", "float") if d.op_type == "ReduceLogSumExp" else d.t("T")
        if d.special and kind_of(dtype) == "f":
            x = d.x(shape, dtype)
            x = np.where(np.abs(x.astype(np.float64)) > 1e30, 1, x.astype(np.float64)).astype(dtype)
        elif kind_of(dtype) == "f":
            x = d.x(shape, dtype, *((low, 3) if low is not None else (None, None)))
        else:
            x = d.x(shape, dtype, 1 if low is not None else -4, 4)
        if d.opset >= 11 or all(a >= 0 for a in shape):
            axes = d.axes(len(shape), 1) if len(shape) and d.chance(0.75) else None
        if axes is not None and d.opset < 11:
            axes = [a % len(shape) for a in axes]
        inputs, attrs = axes_of(d, len(shape), axes, since)
        attrs |= d.attrs(keepdims=[0, 1])
        if d.opset >= since:
            attrs |= d.attrs(noop_with_empty_axes=[0, 1])
            if axes is None and d.chance(0.3):
                inputs = [Const(np.zeros(0, np.int64))]
        return Node([x, *inputs], attrs)

    return draw


def arg(d: Draw) -> Node:
    shape = d.shape(1)
    if 0 in shape:
        raise Skip("nothing to find")
    x = np.round(d.x(shape, "T", -3, 3).astype(np.float64)).astype(d.t("T"))
    attrs = d.attrs(
        axis=lambda: d.axis(len(shape)) if d.opset >= 11 else d.integer(0, len(shape) - 1),
        keepdims=[0, 1],
    )
    if d.opset >= 12:
        attrs |= d.attrs(select_last_index=[0, 1])
    return Node([x], attrs)


def along(least: int = 1) -> Callable[[Draw], Node]:
    def draw(d: Draw) -> Node:
        shape = d.shape(least)
        if 0 in shape and d.op_type == "Hardmax":
            raise Skip("nothing is the greatest of nothing")
        rank = len(shape)
        # The reference takes the newer meaning for older opsets, whose halves no one else runs.
        wide = ("float32",) if d.op_type == "Hardmax" else ("float32", "float64")
        x = d.x(shape, d.t("T", *(wide if d.opset < 11 else ())), -4, 4)
        attrs = d.attrs(axis=lambda: d.axis(rank) if d.opset >= 11 else d.integer(0, rank - 1))
        if "axis" not in attrs and d.opset < 13 and (rank < 2 or d.opset < 11):
            # The reference takes the newer default.
            attrs["axis"] = 0
        return Node([x], attrs)

    return draw


def cumulative(d: Draw) -> Node:
    shape = d.shape(1)
    dtype = d.t("T")
    x = d.x(shape, dtype, -2 if kind_of(dtype) != "u" else 0, 2)
    axis = np.asarray(d.axis(len(shape)), d.pick(np.int32, np.int64))
    return Node([x, d.const(axis)], d.attrs(exclusive=[0, 1], reverse=[0, 1]))


def top_k(d: Draw) -> Node:
    shape = d.shape(1)
    rank = len(shape)
    axis = d.axis(rank) if d.opset >= 11 else d.integer(0, rank - 1)
    if 0 in shape:
        raise Skip("nothing to choose from")
    x = d.x(shape, "T", -9, 9)
    # Indices of equals are not said but for the sorted form.
    k = d.integer(1, shape[axis])
    attrs: dict[str, Any] = {"axis": axis} if axis != -1 or d.chance(0.5) else {}
    if d.opset == 1:
        return Node([x], attrs | {"k": k}, 2)
    if d.opset < 11 and "axis" not in attrs:
        attrs["axis"] = axis % rank
    if d.opset >= 11:
        attrs |= d.attrs(largest=[0, 1])
    return Node([x, d.ints([k])], attrs, 2)


def lp_norm(d: Draw) -> Node:
    shape = d.shape(1)
    if 0 in shape:
        raise Skip("a norm of nothing")
    # The reference takes no absolute values for p = 1.
    return Node([d.x(shape, "T", 0, 3)], d.attrs(axis=lambda: d.axis(len(shape)), p=[1, 2]))


def mean_variance(d: Draw) -> Node:
    shape = tuple(d.integer(2, 4) for _ in range(4))
    x = d.x(shape, "T", -3, 3)
    return Node([x], d.attrs(axes=[[0, 2, 3], [0, 1, 2, 3], [1], [2, 3], [-1, 0]]))


def batch_norm(d: Draw) -> Node:
    shape = (d.integer(1, 3), d.integer(1, 4), *d.shape(0, 3))
    if d.opset < 9:
        shape = (*shape[:2], *(d.integer(1, 4) for _ in range(2)))
    if 0 in shape:
        raise Skip("statistics of nothing")
    c = (shape[1],)
    x = d.x(shape, "T", -3, 3)
    other = d.t("T1") if d.opset >= 15 else d.t("T")
    third = d.t("T2") if d.opset >= 15 else d.t("U") if d.opset >= 14 else other
    inputs = [
        d.x(c, other, 0.5, 2),
        d.x(c, other, -1, 1),
        d.x(c, third, -1, 1),
        d.x(c, third, 0.3, 2),
    ]
    fixed = d.chance(0.5)
    attrs = d.attrs(epsilon=[1e-5, 1e-3, 0.1], momentum=[0.9, 0.5])
    outputs: Any = 1
    if d.opset < 7:
        attrs["is_test"] = 1
        attrs |= {"consumed_inputs": [0, 0, 0, 1, 1]} if d.opset < 6 else {}
        wide = [v.astype(np.float64).reshape(-1, *[1] * (len(shape) - 2)) for v in inputs]
        epsilon = attrs.get("epsilon", 1e-5)
        want = (x - wide[2]) / np.sqrt(wide[3] + epsilon) * wide[0] + wide[1]
        fixed_inputs = [Const(i) if fixed else i for i in inputs]
        return Node([x, *fixed_inputs], attrs, expected=[want.astype(x.dtype)])
    if d.opset >= 14 and d.chance(0.3):
        attrs["training_mode"] = 1
        outputs = 3
    return Node([x, *(Const(i) if fixed else i for i in inputs)], attrs, outputs)


def instance_norm(d: Draw) -> Node:
    # torch's own refuses a single place, whose answer is the bias.
    shape = (d.integer(1, 3), d.integer(1, 4), *(d.integer(2, 4) for _ in range(d.integer(1, 3))))
    dtype = d.t("T")
    inputs = [
        d.x(shape, dtype, -3, 3),
        d.x(shape[1:2], dtype, 0.5, 2),
        d.x(shape[1:2], dtype, -1, 1),
    ]
    return Node(inputs, d.attrs(epsilon=[1e-5, 1e-2]), atol=1e-4 if dtype == np.float32 else None)


def layer_norm(d: Draw) -> Node:
    shape = tuple(d.integer(1, 4) for _ in range(d.integer(1, 4)))
    axis = d.axis(len(shape))
    inner = shape[axis % len(shape) :]
    dtype = d.t("T")
    attrs = {"axis": axis} if axis != -1 or d.chance(0.5) else {}
    attrs |= d.attrs(epsilon=[1e-5, 1e-2])
    scale = d.x(inner, dtype, 0.5, 2)
    if d.op_type == "RMSNormalization":
        return Node([d.x(shape, dtype, -3, 3), d.const(d.x(inner, "V", 0.5, 2))], attrs)
    bias = d.maybe(d.x(inner, dtype, -1, 1))
    inputs = [d.x(shape, dtype, -3, 3), d.const(scale), bias if bias is None else d.const(bias)]
    return Node(inputs, attrs, d.pick(1, 3) if dtype == np.float32 else 1, atol=2e-5)


def group_norm(d: Draw) -> Node:
    groups = d.integer(1, 3)
    channels = groups * d.integer(1, 3)
    shape = (d.integer(1, 3), channels, *(d.integer(2, 4) for _ in range(d.integer(1, 3))))
    dtype = d.t("T")
    length = (groups,) if d.opset < 21 else (channels,)
    inputs = [d.x(shape, dtype, -3, 3), d.x(length, dtype, 0.5, 2), d.x(length, dtype, -1, 1)]
    fixed = d.chance(0.5)
    return Node(
        [inputs[0], *(Const(i) if fixed else i for i in inputs[1:])],
        {"num_groups": groups} | d.attrs(epsilon=[1e-5, 1e-2]),
        atol=2e-5 if dtype.itemsize > 2 else None,
    )


def lrn(d: Draw) -> Node:
    shape = (d.integer(1, 2), d.integer(1, 6), *(d.integer(1, 3) for _ in range(2)))
    attrs = d.attrs(alpha=[1e-4, 0.1, 1.0], beta=[0.75, 0.5], bias=[1.0, 2.0])
    size = d.pick(1, 3, 5, 2, 4)
    x = d.x(shape, "T", -3, 3)
    if size % 2 and x.dtype == np.float32:
        return Node([x], attrs | {"size": size})
    # ONNX Runtime refuses even sizes, and the reference looks at other channels than the text says.
    wide = x.astype(np.float64)
    total = np.zeros_like(wide)
    for c in range(shape[1]):
        low, high = max(0, c - (size - 1) // 2), min(shape[1], c + size // 2 + 1)
        total[:, c] = (wide[:, low:high] ** 2).sum(1)
    alpha, beta, bias = (
        attrs.get(k, v) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    want = wide / (bias + alpha / size * total) ** beta
    return Node([x], attrs | {"size": size}, expected=[want.astype(x.dtype)])


ROWS = {
    "ReduceL1": Row(reduction(18)),
    "ReduceL2": Row(reduction(18)),
    "ReduceLogSum": Row(reduction(18, 0.1)),
    # Close to 0 a half says little of the sum.
    "ReduceLogSumExp": Row(reduction(18), rtol={"float16": 0.03, "bfloat16": 0.2}),
    "ReduceMax": Row(reduction(18)),
    "ReduceMin": Row(reduction(18)),
    "ReduceMean": Row(reduction(18)),
    "ReduceProd": Row(reduction(18)),
    "ReduceSum": Row(reduction(13)),
    "ReduceSumSquare": Row(reduction(18)),
    "ArgMax": Row(arg),
    "ArgMin": Row(arg),
    "Softmax": Row(along()),
    "LogSoftmax": Row(along()),
    "Hardmax": Row(along()),
    "CumSum": Row(cumulative),
    "CumProd": Row(cumulative),
    "TopK": Row(top_k),
    "LpNormalization": Row(lp_norm),
    "MeanVarianceNormalization": Row(mean_variance),
    "BatchNormalization": Row(batch_norm),
    "InstanceNormalization": Row(instance_norm),
    "LayerNormalization": Row(layer_norm),
    "RMSNormalization": Row(layer_norm),
    "GroupNormalization": Row(group_norm),
    "LRN": Row(lrn),
}
