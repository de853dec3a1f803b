"""Resizing, sampling, padding and box helpers against ONNX's node cases and ONNX Runtime."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import image, resize

from . import vision_cases as vc


def listed(v: list[Any], i: int) -> Any:
    return v[i].tolist() if i < len(v) and v[i] is not None and v[i].numel() else None


def call_resize(v: list[Any], a: dict[str, Any]) -> Any:
    return resize.resize(v[0], roi=listed(v, 1), scales=listed(v, 2), sizes=listed(v, 3), **a)


def call_pad(v: list[Any], a: dict[str, Any]) -> Any:
    value = v[2] if len(v) > 2 else None
    got = resize.pad_nd(v[0], v[1].tolist(), value=value, axes=listed(v, 3), **a)
    if value is not None:
        number = resize.pad_nd(v[0], v[1].tolist(), value=value.item(), axes=listed(v, 3), **a)
        assert torch.equal(got, number)
    return got


def call_nms(v: list[Any], a: dict[str, Any]) -> Any:
    most = int(v[2]) if len(v) > 2 else 0
    return resize.non_max_suppression(v[0], v[1], most, *v[3:], **a)


CALLS = {
    "Resize": call_resize,
    "GridSample": lambda v, a: resize.grid_sample(*v, **a),
    # Native: what the helper would be is one call.
    "AffineGrid": lambda v, a: F.affine_grid(
        v[0], v[1].tolist(), align_corners=bool(a.get("align_corners", 0))
    ),
    "CenterCropPad": lambda v, a: resize.center_crop_pad(v[0], v[1].tolist(), **a),
    "Pad": call_pad,
    "DepthToSpace": lambda v, a: resize.depth_to_space(*v, **a),
    "SpaceToDepth": lambda v, a: resize.space_to_depth(*v, **a),
    "NonMaxSuppression": call_nms,
    "ImageDecoder": lambda v, a: image.image_decoder(*v, **a),
    "Upsample": lambda v, a: resize.upsample(v[0], v[1].tolist(), **a),
}


@pytest.mark.parametrize("case", [c for op in CALLS for c in vc.cases_of(op)], ids=lambda c: c.name)
def test_node(case: TestCase) -> None:
    vc.check(case, CALLS[case.model.graph.node[0].op_type])


NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
TRANSFORMS = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]


def resize_both(x: np.ndarray, scales: Any, sizes: Any, a: dict[str, Any], rtol: float) -> None:
    arrays = [
        x,
        None,
        np.array(scales, np.float32) if scales is not None else None,
        np.array(sizes, np.int64) if sizes is not None else None,
    ]
    while arrays[-1] is None:
        arrays.pop()
    (want,) = vc.runtime("Resize", arrays, **a)
    floats = arrays[2].tolist() if scales is not None and arrays[2] is not None else None
    got = resize.resize(torch.from_numpy(x), scales=floats, sizes=sizes, **a)
    assert list(got.shape) == list(want.shape)
    np.testing.assert_allclose(got.numpy(), want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    "transform, nearest",
    list(itertools.product([*TRANSFORMS, "half_pixel_symmetric"], NEAREST)),
)
@pytest.mark.parametrize("seed", range(4))
def test_resize_nearest_runtime(transform: str, nearest: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, *rng.integers(4, 12, 2))).astype(np.float32)
    a = {"mode": "nearest", "coordinate_transformation_mode": transform, "nearest_mode": nearest}
    resize_both(x, None, [1, 2, *rng.integers(2, 25, 2).tolist()], a, 0)
    if transform != "align_corners":  # there ONNX Runtime and ONNX's own cases differ
        resize_both(x, [1, 1, *rng.uniform(0.3, 3, 2).tolist()], None, a, 0)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("seed", range(4))
def test_resize_runtime(mode: str, transform: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, *rng.integers(4, 12, 2))).astype(np.float32)
    a: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform}
    if mode == "cubic":
        a |= {"exclude_outside": seed % 2, "cubic_coeff_a": [-0.5, -0.75][seed // 2]}
    resize_both(x, None, [1, 2, *rng.integers(2, 25, 2).tolist()], a, 1e-4)
    if transform != "align_corners":
        resize_both(x, [1, 1, *rng.uniform(0.3, 3, 2).tolist()], None, a, 1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
def test_resize_antialias_runtime(mode: str, exclude: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 17, 23)).astype(np.float32)
    a: dict[str, Any] = {"mode": mode, "antialias": 1, "exclude_outside": exclude}
    resize_both(x, None, [1, 2, 6, 9], a, 1e-4)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_policy_runtime(policy: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 9)).astype(np.float32)
    a = {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": policy}
    resize_both(x, None, [5, 12], a, 1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_crop_runtime(mode: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 5, 7)).astype(np.float32)
    roi = [0, 0, 0.1, -0.3, 1, 1, 0.8, 1.2]
    sizes = [1, 1, 7, 8]
    a: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 5.0,
    }
    (want,) = vc.runtime("Resize", [x, np.array(roi, np.float32), None, np.array(sizes)], **a)
    got = resize.resize(torch.from_numpy(x), roi=roi, sizes=sizes, **a)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-5)


def test_resize_other_ranks_and_types() -> None:
    x = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    assert resize.resize(x, sizes=[2, 3, 8]).dtype == torch.uint8
    assert resize.resize(x, sizes=[2, 3, 8], mode="linear").dtype == torch.uint8
    assert resize.resize(x[:, :, 0] > 3, scales=[2.0, 1.5]).shape == (4, 4)
    y = torch.randn(1, 1, 3, 4, 5, 6, dtype=torch.float64)
    up = resize.resize(y, scales=[1, 1, 2, 2, 2, 2], mode="linear")
    assert up.shape == (1, 1, 6, 8, 10, 12)
    assert resize.resize(y[:0], scales=[1, 1, 2, 2, 2, 2], mode="cubic").shape[0] == 0


def test_upsample_runtime() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 7)).astype(np.float32)
    scales = np.array([1, 1, 1.6, 2.3], np.float32)
    for mode in ("nearest", "linear"):
        (want,) = vc.runtime("Upsample", [x, scales], opset=9, mode=mode)
        got = resize.upsample(torch.from_numpy(x), scales.tolist(), mode=mode)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)


def test_resize_opset_10_runtime() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 9, 7)).astype(np.float32)
    for scales in ([1, 1, 0.6, 0.4], [1, 1, 1.6, 2.3]):
        array = np.array(scales, np.float32)
        (want,) = vc.runtime("Resize", [x, array], opset=10, mode="nearest")
        got = resize.upsample(torch.from_numpy(x), array.tolist())
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_grid_sample_general(mode: str, padding: str, align: bool) -> None:
    """The general way, taken for mixed dtypes, against torch's own."""
    x = torch.randn(2, 3, 5, 7)
    grid = torch.rand(2, 4, 6, 2, dtype=torch.float64) * 5 - 2.5
    got = resize.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=align)
    torch_mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    want = F.grid_sample(x.double(), grid, torch_mode, padding, align)
    torch.testing.assert_close(got, want.float())
    line = resize.grid_sample(
        x[:, :, 0], grid[..., 0, :1], mode=mode, padding_mode=padding, align_corners=align
    )
    assert line.shape == (2, 3, 4)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint16, torch.int64, torch.float8_e4m3fn])
def test_pad_types(dtype: torch.dtype) -> None:
    x = torch.ones(2, 3).to(dtype)
    for mode in ("constant", "edge", "reflect", "wrap"):
        assert resize.pad_nd(x, [1, 2, -1, 1], mode=mode).shape == (2, 6)
    assert resize.pad_nd(x, [0, 1, 0, -1], value=torch.ones([]).to(dtype)).shape == (2, 3)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_pad_against_numpy(mode: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 1, 4, 5))
    got = resize.pad_nd(torch.from_numpy(x), [0, 2, 1, 3, 4, 1, 1, 2, 0, 9], mode=mode)
    want = np.pad(x, [(0, 1), (2, 1), (1, 2), (3, 0), (4, 9)], mode=mode)
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("threshold", [None, 0.4])
@pytest.mark.parametrize("centre", [0, 1])
def test_nms_runtime(threshold: float | None, centre: int) -> None:
    rng = np.random.default_rng(0)
    low = rng.random((3, 60, 2))
    boxes = np.concatenate([low, low + rng.random((3, 60, 2)) * 0.4], 2).astype(np.float32)
    scores = rng.integers(0, 20, (3, 4, 60)).astype(np.float32) / 20  # with ties
    arrays = [boxes, scores, np.array([12], np.int64), np.array([0.3], np.float32)]
    if threshold is not None:
        arrays.append(np.array([threshold], np.float32))
    (want,) = vc.runtime("NonMaxSuppression", arrays, opset=11, center_point_box=centre)
    got = resize.non_max_suppression(
        torch.from_numpy(boxes),
        torch.from_numpy(scores),
        12,
        0.3,
        threshold,
        center_point_box=bool(centre),
    )
    np.testing.assert_array_equal(got.numpy(), want)


def test_nms_scores_that_are_not_numbers() -> None:
    """Square roots of negative numbers, say: above no threshold, and in nobody's way."""
    random = np.random.default_rng(3)
    boxes = random.random((1, 40, 4), np.float32)
    scores = random.standard_normal((1, 3, 40)).astype(np.float32)
    scores[scores < 0] = np.nan
    arrays = [
        boxes,
        scores,
        np.array([5], np.int64),
        np.array([0.6], np.float32),
        np.array([0.2], np.float32),
    ]
    (want,) = vc.runtime("NonMaxSuppression", arrays, opset=11)
    assert len(want) == 15
    got = resize.non_max_suppression(torch.from_numpy(boxes), torch.from_numpy(scores), 5, 0.6, 0.2)
    np.testing.assert_array_equal(got.numpy(), want)


def test_nms_nothing() -> None:
    boxes, scores = torch.rand(1, 5, 4), torch.rand(1, 2, 5)
    assert resize.non_max_suppression(boxes, scores).shape == (0, 3)
    assert resize.non_max_suppression(boxes, scores, 3, 0.5, 2.0).shape == (0, 3)
    assert resize.non_max_suppression(boxes[:, :0], scores[..., :0], 3).shape == (0, 3)
