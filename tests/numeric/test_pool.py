"""Poolings: every padding and rounding, at fixed and at free sizes."""

import itertools
from typing import Any

import numpy as np
import pytest

from .harness import check

RNG = np.random.default_rng(1)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


WINDOWS: list[dict[str, Any]] = [
    {},
    {"strides": [2, 2]},
    {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "pads": [0, 1, 1, 0]},
    {"strides": [3, 2], "pads": [2, 2, 2, 2]},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [3, 2], "auto_pad": "SAME_LOWER"},
    {"auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("attrs", WINDOWS, ids=str)
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("dynamic", [False, True])
def test_max_pool(attrs: dict[str, Any], ceil_mode: int, dynamic: bool) -> None:
    attrs = {"kernel_shape": [3, 3], **attrs}
    if ceil_mode:
        attrs["ceil_mode"] = 1
    for size in ((7, 8), (10, 9)):
        x = normal(2, 3, *size)
        check("MaxPool", [x], opset=12, attrs=attrs, dynamic=dynamic)
        check("MaxPool", [x], opset=12, attrs=attrs, dynamic=dynamic, outputs=2)


@pytest.mark.parametrize("attrs", WINDOWS, ids=str)
@pytest.mark.parametrize(("ceil_mode", "count"), list(itertools.product([0, 1], [0, 1])), ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_average_pool(attrs: dict[str, Any], ceil_mode: int, count: int, dynamic: bool) -> None:
    attrs = {"kernel_shape": [3, 3], "count_include_pad": count, **attrs}
    if ceil_mode:
        attrs["ceil_mode"] = 1
    for size in ((7, 8), (10, 9)):
        check("AveragePool", [normal(2, 3, *size)], opset=19, attrs=attrs, dynamic=dynamic)


@pytest.mark.parametrize("opset", [1, 8, 10, 11, 12, 22])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool_opsets(opset: int, rank: int) -> None:
    attrs = {"kernel_shape": [2] * rank, "strides": [2] * rank}
    source = check("MaxPool", [normal(1, 2, *[6] * rank)], opset=opset, attrs=attrs)
    assert f"F.max_pool{rank}d(x0, 2)" in source


@pytest.mark.parametrize("opset", [1, 7, 10, 11, 19, 22])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_average_pool_opsets(opset: int, rank: int) -> None:
    attrs = {"kernel_shape": [2] * rank, "strides": [2] * rank}
    source = check("AveragePool", [normal(1, 2, *[6] * rank)], opset=opset, attrs=attrs)
    assert f"F.avg_pool{rank}d(x0, 2)" in source


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16, np.float64])
def test_max_pool_dtypes(dtype: Any) -> None:
    x = (RNG.standard_normal((1, 2, 6, 6)) * 50).astype(dtype)
    check("MaxPool", [x], opset=12, attrs={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})


@pytest.mark.parametrize("storage_order", [0, 1])
def test_max_pool_storage_order(storage_order: int) -> None:
    attrs = {"kernel_shape": [2, 2], "storage_order": storage_order, "dilations": [2, 1]}
    check("MaxPool", [normal(2, 2, 5, 6)], opset=10, attrs=attrs, outputs=2)


@pytest.mark.parametrize("opset", [2, 11, 18])
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("attrs", WINDOWS, ids=str)
def test_lp_pool(opset: int, p: int, attrs: dict[str, Any]) -> None:
    if attrs.get("pads") == [2, 2, 2, 2]:
        pytest.skip("ONNX Runtime's answer is wrong there")
    attrs = {"kernel_shape": [3, 3], "p": p, **attrs}
    check("LpPool", [normal(1, 2, 7, 8)], opset=opset, attrs=attrs)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 2), (1, 2, 1, 3, 2, 2)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_global(op: str, shape: tuple[int, ...], dynamic: bool) -> None:
    if len(shape) > 5 and op != "GlobalAveragePool":
        pytest.skip("ONNX Runtime gives the result two more axes")
    check(op, [normal(*shape)], opset=2, dynamic=dynamic)


@pytest.mark.parametrize("opset", [9, 11, 22])
def test_max_unpool(opset: int) -> None:
    x = normal(1, 2, 3, 3)
    index = np.stack([RNG.permutation(36)[:9].reshape(3, 3) + 36 * i for i in range(2)])[None]
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
    check("MaxUnpool", [x, index], opset=opset, attrs=attrs)


def test_max_roi_pool() -> None:
    rois = np.array([[0, 0, 0, 4, 4], [1, 1, 2, 6, 7]], np.float32)
    attrs = {"pooled_shape": [2, 3], "spatial_scale": 0.5}
    check("MaxRoiPool", [normal(2, 3, 8, 8), rois], opset=1, attrs=attrs)
