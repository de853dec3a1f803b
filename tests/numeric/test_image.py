"""Resize and its older forms, and the operators about pictures."""

from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from .harness import check, node_model

Array = np.ndarray[Any, Any]


def picture(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_the_reference(inputs: Any, scale_axes: Any, **kwargs: Any) -> Any:
    """ONNX Runtime rounds the length before it places the corners; the operator's page does not."""
    mode = kwargs["attrs"]["coordinate_transformation_mode"]
    if mode not in ("align_corners", "half_pixel_symmetric") or all(
        (n * s) % 1 == 0 for n, s in scale_axes
    ):
        return None
    model, feeds = node_model("Resize", inputs, **kwargs)
    return list(ReferenceEvaluator(model).run(None, feeds))


COORDINATES = [
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "half_pixel_symmetric",
]
SCALES = [(2.0, 2.0), (3.0, 1.0), (0.5, 0.5), (1.5, 0.7), (2.0, 2.5)]


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_scales(mode: str, scales: Any, coordinates: str, dynamic: bool) -> None:
    if coordinates == "tf_half_pixel_for_nn" and mode != "nearest":
        pytest.skip("for nearest only, and gone in opset 13")
    opset = 11 if coordinates == "tf_half_pixel_for_nn" else 19
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    inputs = [picture(1, 2, 5, 6), None, np.array([1, 1, *scales], np.float32)]
    if opset == 11:
        inputs[1] = np.zeros([0], np.float32)
    constants = [1, 2] if opset == 11 else [2]
    given: dict[str, Any] = {"opset": opset, "attrs": attrs, "constants": constants}
    expected = by_the_reference(inputs, zip((5, 6), scales, strict=True), **given)
    check("Resize", inputs, **given, expected=expected, dynamic=dynamic, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("coordinates", COORDINATES[:4])
@pytest.mark.parametrize("sizes", [(10, 12), (7, 3), (1, 1), (5, 6)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("constant", [False, True])
def test_sizes(mode: str, sizes: Any, coordinates: str, constant: bool) -> None:
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    inputs = [picture(1, 2, 5, 6), None, None, np.array([1, 2, *sizes])]
    check(
        "Resize",
        inputs,
        opset=19,
        attrs=attrs,
        constants=[3] if constant else [],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("scale", [2.0, 3.0, 0.5, 0.4])
def test_nearest_modes(nearest: str, coordinates: str, scale: float) -> None:
    attrs = {
        "mode": "nearest",
        "nearest_mode": nearest,
        "coordinate_transformation_mode": coordinates,
    }
    inputs = [picture(1, 1, 7, 6), None, np.array([1, 1, scale, scale], np.float32)]
    given: dict[str, Any] = {"opset": 13, "attrs": attrs, "constants": [2]}
    expected = by_the_reference(inputs, ((7, scale), (6, scale)), **given)
    check("Resize", inputs, **given, expected=expected)


@pytest.mark.parametrize("shape", [(1, 2, 5), (1, 2, 4, 5), (1, 1, 3, 4, 5), (4, 5)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_ranks(shape: Any, mode: str) -> None:
    scales = np.array([1, 1, 2, 2, 2][: len(shape)] if len(shape) > 2 else [2, 2], np.float32)
    check(
        "Resize",
        [picture(*shape), None, scales],
        opset=13,
        attrs={"mode": mode},
        constants=[2],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "attrs",
    [
        {"mode": "linear", "antialias": 1},
        {"mode": "cubic", "antialias": 1},
        {"mode": "cubic", "cubic_coeff_a": -0.5},
        {"mode": "cubic", "exclude_outside": 1},
        {"mode": "nearest", "axes": [3, 2]},
        {"mode": "linear", "axes": [2, 3]},
    ],
)
def test_options(attrs: dict[str, Any]) -> None:
    scales = np.array([0.6, 0.8] if "axes" in attrs else [1, 1, 0.6, 0.8], np.float32)
    check(
        "Resize",
        [picture(1, 1, 6, 7), None, scales],
        opset=18,
        attrs=attrs,
        constants=[2],
        atol=1e-4,
    )


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_aspect_ratio(policy: str) -> None:
    attrs = {"axes": [2, 3], "keep_aspect_ratio_policy": policy}
    check(
        "Resize",
        [picture(1, 1, 4, 6), None, None, np.array([7, 8])],
        opset=18,
        attrs=attrs,
        constants=[3],
    )


def test_crop_and_resize() -> None:
    attrs = {
        "mode": "linear",
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 9.0,
    }
    roi = np.array([0, 0, 0.4, 0.6, 1, 1, 1.2, 1.7], np.float32)
    inputs = [picture(1, 1, 4, 5), roi, None, np.array([1, 1, 3, 4])]
    check("Resize", inputs, opset=13, attrs=attrs, constants=[1, 3])


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.0, 3.0), (1.5, 2.5)])
def test_older_forms(op: str, opset: int, mode: str, scales: Any) -> None:
    attrs: dict[str, Any] = {"mode": mode}
    inputs = [picture(1, 2, 3, 4)]
    if opset == 7:
        attrs["scales"] = [1.0, 1.0, *scales]
    else:
        inputs.append(np.array([1, 1, *scales], np.float32))
    for constants in [[1], []] if opset > 7 else [[]]:
        if opset < 10 and not constants and opset > 7:
            continue
        check(op, inputs, opset=opset, attrs=attrs, constants=constants, atol=1e-4)


def test_first_upsample() -> None:
    x = picture(1, 1, 2, 3)
    attrs = {"mode": "nearest", "width_scale": 2.0, "height_scale": 1.0}
    check("Upsample", [x], opset=1, attrs=attrs, expected=[x.repeat(2, axis=3)])


def test_common_forms_are_one_call() -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    attrs = {
        "mode": "nearest",
        "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric",
    }
    source = check(
        "Resize",
        [picture(1, 2, 3, 4), None, scales],
        opset=13,
        attrs=attrs,
        constants=[2],
        dynamic=True,
    )
    assert 'F.interpolate(x0, scale_factor=2.0, mode="nearest")' in source
    attrs = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    source = check(
        "Resize",
        [picture(1, 2, 3, 4), None, scales],
        opset=13,
        attrs=attrs,
        constants=[2],
        atol=1e-4,
    )
    assert 'F.interpolate(x0, scale_factor=2.0, mode="bilinear")' in source


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_depth_and_space(mode: str, dynamic: bool) -> None:
    check(
        "DepthToSpace",
        [picture(2, 8, 2, 3)],
        opset=13,
        attrs={"blocksize": 2, "mode": mode},
        dynamic=dynamic,
    )
    check("DepthToSpace", [picture(2, 8, 2, 3)], opset=1, attrs={"blocksize": 2}, dynamic=dynamic)
    check("SpaceToDepth", [picture(2, 2, 4, 6)], opset=13, attrs={"blocksize": 2}, dynamic=dynamic)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    x, grid = picture(2, 3, 5, 4), picture(2, 3, 2, 2, seed=1) * 0.8
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": align}
    check("GridSample", [x, grid], opset=20, attrs=attrs, dynamic=True, atol=1e-4)
    old = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    check("GridSample", [x, grid], opset=16, attrs={**attrs, "mode": old}, atol=1e-4)


@pytest.mark.parametrize("align", [0, 1])
def test_affine_grid(align: int) -> None:
    theta = picture(2, 2, 3)
    for constants in [[], [1]]:
        inputs = [theta, np.array([2, 3, 4, 5])]
        check("AffineGrid", inputs, opset=20, attrs={"align_corners": align}, constants=constants)


@pytest.mark.parametrize("opset", [10, 16])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("sampling", [0, 2])
def test_roi_align(opset: int, mode: str, sampling: int) -> None:
    rois = np.array([[0, 0, 3, 3], [1, 1, 4, 2]], np.float32)
    attrs = {
        "mode": mode,
        "sampling_ratio": sampling,
        "output_height": 2,
        "output_width": 3,
        "spatial_scale": 0.5,
    }
    if mode == "max":
        x = np.abs(picture(1, 2, 6, 6))
    else:
        x = picture(1, 2, 6, 6)
    check("RoiAlign", [x, rois, np.array([0, 0])], opset=opset, attrs=attrs, dynamic=True)


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("constant", [False, True])
def test_non_max_suppression(center: int, constant: bool) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 5, (2, 30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 3, (2, 30, 2))], 2).astype(np.float32)
    scores = rng.uniform(0, 1, (2, 3, 30)).astype(np.float32)
    limits = [np.array([4]), np.array([0.4], np.float32), np.array([0.2], np.float32)]
    constants = [2, 3, 4] if constant else []
    inputs = [boxes, scores, *limits]
    check(
        "NonMaxSuppression",
        inputs,
        opset=11,
        attrs={"center_point_box": center},
        constants=constants,
    )
