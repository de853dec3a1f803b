"""Random operators: type, shape, the first two moments, and what a seed says."""

from typing import Any

import numpy as np
import onnx

from ..draw import Draw, Node
from ..engine import Case, Row

# How many standard deviations a moment may be off.
_SIGMAS = 5


def drawn(
    d: Draw, like: Any, shape: tuple[int, ...], inputs: list[Any], param: str, attrs: Any
) -> Node:
    """The node; its type is an attribute, or that of its input."""
    if like is None or d.chance(0.5):
        kind = d.t(param, common=0.3)
        attrs["dtype"] = onnx.helper.np_dtype_to_tensor_dtype(kind)
    else:
        kind = like
    if d.chance(0.5):
        attrs["seed"] = float(d.integer(0, 99))
    return Node(inputs, attrs, expected=[np.zeros(shape, kind)])


def values(d: Draw) -> Node:
    shape = tuple(d.integer(8, 20) for _ in range(d.integer(2, 3)))
    normal = "Normal" in d.op_type
    choices = (
        {"mean": [-1.0, 2.0], "scale": [0.5, 3.0]} if normal else {"low": [-2.0], "high": [3.0]}
    )
    attrs = d.attrs(**choices)
    if d.op_type.endswith("Like"):
        x = d.x(shape, d.t("T1", "float"), special=False)
        return drawn(d, x.dtype, shape, [x], "T2", attrs)
    attrs["shape"] = list(shape)
    kind = np.dtype("float32")
    if d.chance(0.6):
        kind = d.t("T")
        attrs["dtype"] = onnx.helper.np_dtype_to_tensor_dtype(kind)
    if d.chance(0.5):
        attrs["seed"] = float(d.integer(0, 99))
    return Node([], attrs, expected=[np.zeros(shape, kind)])


def bernoulli(d: Draw) -> Node:
    x = d.x((d.integer(8, 20), d.integer(8, 20)), "T1", 0, 1)
    return drawn(d, x.dtype, x.shape, [x], "T2", {})


def multinomial(d: Draw) -> Node:
    x = d.x((d.integer(1, 3), d.integer(2, 5)), "T1", -2, 1)
    count = d.integer(400, 900)
    return drawn(d, np.dtype("int32"), (len(x), count), [x], "T2", {"sample_size": count})


def moments(case: Case, got: list[Any]) -> str:
    """Why the mean or the variance is not the distribution's; empty where they are near."""
    attrs, y = case.node.attrs, np.asarray(got[0]).astype(np.float64)
    if "Normal" in case.op_type:
        mean, deviation, fourth = attrs.get("mean", 0.0), attrs.get("scale", 1.0), 3.0
    else:
        low, high = attrs.get("low", 0.0), attrs.get("high", 1.0)
        if y.min() < low or y.max() > high:
            return f"values from {y.min()} to {y.max()}"
        mean, deviation, fourth = (low + high) / 2, (high - low) / 12**0.5, 1.8
    off = abs(y.mean() - mean) / (deviation / y.size**0.5)
    spread = abs(y.var() / deviation**2 - 1) / ((fourth - 1) / y.size) ** 0.5
    return "" if max(off, spread) < _SIGMAS else f"mean {y.mean()}, variance {y.var()}"


def trials(case: Case, got: list[Any]) -> str:
    p = next(iter(case.feeds.values())).astype(np.float64)
    y = np.asarray(got[0]).astype(np.float64)
    if not np.isin(y, (0, 1)).all():
        return "values other than 0 and 1"
    off = abs(y.sum() - p.sum()) / max((p * (1 - p)).sum() ** 0.5, 1e-3)
    return "" if off < _SIGMAS else f"{y.sum()} ones instead of {p.sum()}"


def categories(case: Case, got: list[Any]) -> str:
    x = next(iter(case.feeds.values())).astype(np.float64)
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    y = np.asarray(got[0])
    if y.min() < 0 or y.max() >= x.shape[1]:
        return "a class that there is not"
    counts = np.stack([(y == k).sum(1) for k in range(x.shape[1])], 1)
    off = np.abs(counts - y.shape[1] * p) / np.sqrt(y.shape[1] * p * (1 - p))
    return "" if off.max() < _SIGMAS else f"counts {counts.tolist()}"


ROWS = {
    "RandomNormal": Row(values, random=moments),
    "RandomUniform": Row(values, random=moments),
    "RandomNormalLike": Row(values, random=moments),
    "RandomUniformLike": Row(values, random=moments),
    "Bernoulli": Row(bernoulli, random=trials),
    "Multinomial": Row(multinomial, random=categories),
}
