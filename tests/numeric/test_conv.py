"""Convolutions at every padding, rank and kind of weight."""

from typing import Any

import numpy as np
import pytest

from int8_weights import int8_weights

from .harness import check

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def conv_attrs() -> list[dict[str, Any]]:
    return [
        {},
        {"strides": [2, 1], "pads": [1, 2, 1, 2]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0], "dilations": [1, 2]},
        {"pads": [2, 0, 0, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"auto_pad": "NOTSET", "pads": [1, 1, 1, 1], "group": 2},
    ]


@pytest.mark.parametrize("attrs", conv_attrs(), ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("constants", [(1, 2), (1,), ()])
def test_conv(attrs: dict[str, Any], dynamic: bool, constants: tuple[int, ...]) -> None:
    inputs = [normal(2, 4, 7, 9), normal(6, 4 // attrs.get("group", 1), 3, 2), normal(6)]
    source = check(
        "Conv",
        inputs,
        opset=11,
        attrs={"kernel_shape": [3, 2], **attrs},
        constants=constants,
        dynamic=dynamic,
    )
    assert ("nn.Conv2d(" in source) == (constants == (1, 2))


@pytest.mark.parametrize("opset", [1, 11, 22])
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_conv_ranks(opset: int, rank: int) -> None:
    x, w = normal(1, 2, *[5] * rank), normal(3, 2, *[3] * rank)
    reference = check("Conv", [x, w], opset=opset, constants=[1], rtol=1e-4, atol=1e-4)
    assert ("bias=False" in reference) == (rank < 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_conv_dtypes(dtype: Any) -> None:
    x, w = normal(1, 2, 5, 5).astype(dtype), normal(3, 2, 3, 3).astype(dtype)
    check("Conv", [x, w], opset=11, constants=[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"strides": [2, 3]},
        {"strides": [2, 3], "output_padding": [1, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [3, 3], "pads": [2, 1, 0, 0]},
        {"strides": [3, 3], "pads": [0, 0, 1, 2]},
        {"strides": [1, 1], "pads": [2, 0, 0, 1]},
        {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [10, 13]},
        {"strides": [2, 2], "output_shape": [9, 12], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "group": 2},
        {"auto_pad": "VALID"},
    ],
    ids=str,
)
@pytest.mark.parametrize("constants", [(1, 2), ()])
@pytest.mark.parametrize("dynamic", [False, True])
def test_conv_transpose(attrs: dict[str, Any], constants: tuple[int, ...], dynamic: bool) -> None:
    group = attrs.get("group", 1)
    inputs = [normal(2, 4, 5, 6), normal(4, 3, 3, 3), normal(3 * group)]
    check(
        "ConvTranspose",
        inputs,
        opset=11,
        attrs={"kernel_shape": [3, 3], **attrs},
        constants=constants,
        dynamic=dynamic,
        rtol=1e-4,
    )


@pytest.mark.parametrize("opset", [1, 11, 22])
@pytest.mark.parametrize("rank", [1, 3])
def test_conv_transpose_ranks(opset: int, rank: int) -> None:
    x, w = normal(1, 2, *[4] * rank), normal(2, 3, *[3] * rank)
    source = check(
        "ConvTranspose", [x, w], opset=opset, attrs={"strides": [2] * rank}, constants=[1]
    )
    assert f"nn.ConvTranspose{rank}d(" in source
    assert "2, 3, kernel_size=3, stride=2, bias=False" in source


def integers(dtype: Any, *shape: int) -> Any:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("zero_points", [0, 1, 2])
def test_conv_integer(zero_points: int) -> None:
    x, w = integers(np.uint8, 1, 2, 5, 5), integers(np.uint8, 3, 2, 3, 3)
    zeros = [np.array(3, np.uint8), np.array(120, np.uint8)][:zero_points]
    attrs = {"pads": [1, 0, 0, 1], "strides": [2, 1]}
    check("ConvInteger", [x, w, *zeros], opset=10, attrs=attrs, constants=[1, 2, 3])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("constants", [(1, 2, 3, 4, 5, 6, 7, 8), ()])
def test_qlinear_conv(dtype: Any, constants: tuple[int, ...]) -> None:
    scale = np.array(0.02, np.float32)
    zero = np.array(5, dtype)
    w_scale = np.array([0.01, 0.02, 0.03], np.float32)
    inputs = [
        integers(dtype, 1, 2, 6, 6),
        scale,
        zero,
        int8_weights(RNG, 3, 2, 3, 3),
        w_scale,
        np.zeros(3, np.int8),
        np.array(0.05, np.float32),
        zero,
        integers(np.int16, 3).astype(np.int32),
    ]
    check("QLinearConv", inputs, opset=10, attrs={"pads": [1, 1, 1, 1]}, constants=constants)


def test_deform_conv() -> None:
    x, w, b = normal(1, 2, 5, 6), normal(3, 2, 3, 2), normal(3)
    offset, mask = normal(1, 12, 3, 5), normal(1, 6, 3, 5)
    check("DeformConv", [x, w, offset, b, mask], opset=19, constants=[1, 3], rtol=1e-4)


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 2]])
@pytest.mark.parametrize("constants", [(1, 2), ()])
def test_col2im(pads: list[int], constants: tuple[int, ...]) -> None:
    blocks = (6 + pads[0] + pads[2] - 1) * (7 + pads[1] + pads[3] - 2)
    inputs = [normal(2, 3 * 6, blocks), np.array([6, 7]), np.array([2, 3])]
    check("Col2Im", inputs, opset=18, attrs={"pads": pads}, constants=constants)
