"""Pooling helpers against ONNX's node cases and ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import pooling

from . import vision_cases as vc


def both(case: TestCase) -> None:
    """MaxPool with one output goes through both functions."""
    if len(case.model.graph.node[0].output) == 2:
        vc.check(case, lambda v, a: pooling.max_pool_with_indices(v[0], **a))
    vc.check(
        case,
        lambda v, a: (
            pooling.max_pool(v[0], **{k: a[k] for k in a if k != "storage_order"}),
            *pooling.max_pool_with_indices(v[0], **a)[1:],
        ),
    )


@pytest.mark.parametrize("case", vc.cases_of("MaxPool"), ids=lambda c: c.name)
def test_max_pool(case: TestCase) -> None:
    both(case)


CALLS = {
    "AveragePool": lambda v, a: pooling.average_pool(v[0], **a),
    "LpPool": lambda v, a: pooling.lp_pool(v[0], **a),
    "MaxUnpool": lambda v, a: pooling.max_unpool(
        v[0], v[1], **a, output_shape=v[2].tolist() if len(v) > 2 else None
    ),
    "RoiAlign": lambda v, a: pooling.roi_align(*v, **a),
}


@pytest.mark.parametrize("case", [c for op in CALLS for c in vc.cases_of(op)], ids=lambda c: c.name)
def test_node(case: TestCase) -> None:
    vc.check(case, CALLS[case.model.graph.node[0].op_type])


def configurations(count: int, seed: int) -> list[tuple[list[int], dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        n = int(rng.integers(1, 4))
        kernel = rng.integers(1, 4, n).tolist()
        a: dict[str, Any] = {"kernel_shape": kernel, "strides": rng.integers(1, 4, n).tolist()}
        a["dilations"] = rng.integers(1, 3, n).tolist()
        if rng.random() < 0.3:
            a["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
            a.pop("dilations", None)
            # Of strides over kernels ONNX Runtime makes negative pads, which its MaxPool then refuses.
            a["strides"] = [min(k, t) for k, t in zip(kernel, a["strides"], strict=True)]
        else:
            a["pads"] = [int(rng.integers(0, k)) for k in kernel * 2]
        if "auto_pad" not in a:
            a["ceil_mode"] = int(rng.integers(0, 2))
        found.append(([2, 3, *rng.integers(6, 12, n).tolist()], a))
    return found


@pytest.mark.parametrize("shape, a", configurations(30, 0))
@pytest.mark.parametrize("order", [0, 1])
def test_max_pool_runtime(shape: list[int], a: dict[str, Any], order: int) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    want = vc.runtime("MaxPool", [x], outputs=2, storage_order=order, **a)
    got = pooling.max_pool_with_indices(torch.from_numpy(x), storage_order=order, **a)
    np.testing.assert_array_equal(got[0].numpy(), want[0])
    np.testing.assert_array_equal(got[1].numpy(), want[1])


@pytest.mark.parametrize("shape, a", configurations(30, 2))
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool_runtime(shape: list[int], a: dict[str, Any], include: int) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (want,) = vc.runtime("AveragePool", [x], count_include_pad=include, **a)
    got = pooling.average_pool(torch.from_numpy(x), count_include_pad=bool(include), **a)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape, a", configurations(20, 3))
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool_runtime(shape: list[int], a: dict[str, Any], p: int) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (want,) = vc.runtime("LpPool", [x], p=p, **a)
    got = pooling.lp_pool(torch.from_numpy(x), p=p, **a)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp_pool(p: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype(np.float32)
    (want,) = vc.runtime("GlobalLpPool", [x], p=p)
    got = pooling.global_lp_pool(torch.from_numpy(x), p=p)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5)


def test_max_pool_many_axes() -> None:
    x = torch.arange(2 * 3 * 4**4).reshape(2, 3, 4, 4, 4, 4).float()
    got = pooling.max_pool(x, [2] * 4, strides=[2] * 4)
    assert torch.equal(got, x[:, :, 1::2, 1::2, 1::2, 1::2])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_pool_integers(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(-100, 100, (1, 2, 7, 6)).astype(dtype)
    a: dict[str, Any] = {"kernel_shape": [3, 2], "pads": [2, 0, 1, 1], "strides": [2, 1]}
    (want,) = vc.runtime("MaxPool", [x], **a)
    np.testing.assert_array_equal(pooling.max_pool(torch.from_numpy(x), **a).numpy(), want)


def regions(rng: np.random.Generator, count: int, most: float) -> np.ndarray:
    low = rng.random((count, 2)) * most * 0.7
    high = low + rng.random((count, 2)) * most * 0.5
    return np.concatenate([low, high], 1).astype(np.float32)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
def test_roi_align_runtime(mode: str, ratio: int, transform: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 13, 17)).astype(np.float32)
    rois = regions(rng, 9, 40)
    batch = rng.integers(0, 2, 9)
    a = {
        "output_height": 3,
        "output_width": 4,
        "sampling_ratio": ratio,
        "spatial_scale": 0.5,
        "mode": mode,
        "coordinate_transformation_mode": transform,
    }
    (want,) = vc.runtime("RoiAlign", [x, rois, batch], opset=16, **a)
    got = pooling.roi_align(
        torch.from_numpy(x), torch.from_numpy(rois), torch.from_numpy(batch), **a
    )
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-5)


def test_roi_align_in_chunks() -> None:
    x = torch.rand(1, 2, 8, 8)
    rois = torch.tensor([[0.0, 0, 4, 4], [1, 2, 7, 7], [3, 3, 5, 4]])
    rois = rois.repeat(1500, 1)
    got = pooling.roi_align(
        x, rois, torch.zeros(len(rois), dtype=torch.int64), output_height=14, output_width=14
    )
    assert torch.allclose(got[:3], got[-3:])
    assert pooling.roi_align(x, rois[:0], torch.zeros(0)).shape == (0, 2, 1, 1)


def test_max_roi_pool_runtime() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 13, 17)).astype(np.float32)
    rois = np.concatenate([rng.integers(0, 2, (9, 1)), regions(rng, 9, 30)], 1)
    rois = rois.astype(np.float32)
    a: dict[str, Any] = {"pooled_shape": [3, 4], "spatial_scale": 0.5}
    (want,) = vc.runtime("MaxRoiPool", [x, rois], **a)
    got = pooling.max_roi_pool(torch.from_numpy(x), torch.from_numpy(rois), **a)
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [[3, 4], [1, 1]])
def test_crop_and_resize_runtime(mode: str, size: list[int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 13, 17)).astype(np.float32)
    rois = regions(rng, 9, 1.2)
    batch = rng.integers(0, 2, 9).astype(np.int32)
    (want,) = vc.runtime(
        "CropAndResize",
        [x, rois, batch, np.array(size, np.int32)],
        domain="com.microsoft",
        mode=mode,
        extrapolation_value=7.0,
    )
    got = pooling.crop_and_resize(
        torch.from_numpy(x),
        torch.from_numpy(rois),
        torch.from_numpy(batch),
        size,
        mode=mode,
        extrapolation_value=7.0,
    )
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-5)
