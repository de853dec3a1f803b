"""Convolution helpers against ONNX's node cases and ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx.backend.test.case.test_case import TestCase

from int8_weights import int8_weights
from onnx2nn.runtime import conv

from . import vision_cases as vc


def without_kernel(a: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in a.items() if k != "kernel_shape"}


CALLS = {
    "Conv": lambda v, a: conv.conv_nd(*v, **without_kernel(a)),
    "ConvTranspose": lambda v, a: conv.conv_transpose_nd(*v, **without_kernel(a)),
    "DeformConv": lambda v, a: conv.deform_conv(*v, **without_kernel(a)),
    "Col2Im": lambda v, a: conv.col2im(v[0], v[1].tolist(), v[2].tolist(), **a),
    "ConvInteger": lambda v, a: conv.conv_integer(*v, **without_kernel(a)),
    "QLinearConv": lambda v, a: conv.qlinear_conv(*v, **without_kernel(a)),
    "CausalConvWithState": lambda v, a: conv.causal_conv_with_state(*v, **a),
}


@pytest.mark.parametrize("case", [c for op in CALLS for c in vc.cases_of(op)], ids=lambda c: c.name)
def test_node(case: TestCase) -> None:
    vc.check(case, CALLS[case.model.graph.node[0].op_type])


def configurations(count: int, seed: int) -> list[tuple[int, dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        n = int(rng.integers(1, 4))
        a: dict[str, Any] = {
            "strides": rng.integers(1, 4, n).tolist(),
            "dilations": rng.integers(1, 3, n).tolist(),
            "group": int(rng.integers(1, 3)),
        }
        if rng.random() < 0.4:
            a["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
            a["dilations"] = [1] * n  # ONNX Runtime refuses others here
        else:
            a["pads"] = rng.integers(0, 3, 2 * n).tolist()
        found.append((n, a))
    return found


@pytest.mark.parametrize("n, a", configurations(25, 0))
def test_conv_runtime(n: int, a: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal([2, 4, *[11, 9, 10][:n]]).astype(np.float32)
    w = rng.standard_normal([6, 4 // a["group"], *[3, 2, 3][:n]]).astype(np.float32)
    b = rng.standard_normal(6).astype(np.float32)
    (want,) = vc.runtime("Conv", [x, w, b], **a)
    got = conv.conv_nd(torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b), **a)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n, a", configurations(25, 2))
@pytest.mark.parametrize("shaped", [False, True])
def test_conv_transpose_runtime(n: int, a: dict[str, Any], shaped: bool) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal([2, 4, *[5, 4, 6][:n]]).astype(np.float32)
    w = rng.standard_normal([4, 3, *[3, 4, 3][:n]]).astype(np.float32)
    b = rng.standard_normal(3 * a["group"]).astype(np.float32)
    if shaped:
        a = a | {"output_shape": [s * t for s, t in zip(x.shape[2:], a["strides"], strict=True)]}
        a.pop("pads", None)
    elif "pads" in a:
        a = a | {"output_padding": [s - 1 for s in a["strides"]]}
    (want,) = vc.runtime("ConvTranspose", [x, w, b], **a)
    got = conv.conv_transpose_nd(torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b), **a)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)


def test_many_axes() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal([2, 4, 5, 4, 3, 1]))
    w = torch.from_numpy(rng.standard_normal([6, 2, 3, 2, 2, 1]))
    b = torch.from_numpy(rng.standard_normal(6))
    pads = [1, 0, 2, 0, 0, 1, 1, 0]
    strides = [2, 1, 1, 1]
    got = conv.conv_nd(x, w, b, group=2, pads=pads, strides=strides)
    want = conv.conv_nd(
        x[..., 0], w[..., 0], b, group=2, pads=pads[:3] + pads[4:7], strides=strides[:3]
    )
    torch.testing.assert_close(got[..., 0], want)
    w = torch.from_numpy(rng.standard_normal([4, 3, 3, 2, 2, 1]))
    got = conv.conv_transpose_nd(x, w, b, group=2, pads=pads, strides=strides)
    want = conv.conv_transpose_nd(
        x[..., 0], w[..., 0], b, group=2, pads=pads[:3] + pads[4:7], strides=strides[:3]
    )
    torch.testing.assert_close(got[..., 0], want)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_qlinear_conv_runtime(per_channel: bool, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max + 1
    m = 5
    x = rng.integers(low, high, (2, 6, 9, 8)).astype(dtype)
    w = int8_weights(rng, m, 3 * 2, 3, 3)
    zeros = np.zeros(m if per_channel else 1, np.int8)
    scales = rng.random(m if per_channel else 1).astype(np.float32) * 0.01
    arrays = [
        x,
        np.float32(0.02),
        np.array(3, dtype),
        w,
        scales if per_channel else scales[0],
        zeros if per_channel else zeros[0],
        np.float32(0.05),
        np.array(7, dtype),
        rng.integers(-1000, 1000, m).astype(np.int32),
    ]
    arrays = [np.asarray(a) for a in arrays]
    a: dict[str, Any] = {"pads": [1, 0, 2, 1], "strides": [2, 1]}
    (want,) = vc.runtime("QLinearConv", arrays, **a)
    got = conv.qlinear_conv(*[torch.from_numpy(np.array(v)) for v in arrays], **a)
    np.testing.assert_array_equal(got.numpy(), want)


def test_conv_integer_runtime() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (2, 4, 9, 8)).astype(np.uint8)
    w = rng.integers(0, 256, (6, 2, 3, 3)).astype(np.uint8)
    arrays = [x, w, np.array(100, np.uint8), np.array(90, np.uint8)]
    (want,) = vc.runtime("ConvInteger", arrays, group=2, auto_pad="SAME_LOWER", strides=[2, 2])
    got = conv.conv_integer(
        *[torch.from_numpy(v) for v in arrays], group=2, auto_pad="SAME_LOWER", strides=[2, 2]
    )
    np.testing.assert_array_equal(got.numpy(), want)
    assert got.dtype == torch.int32


def test_deform_conv_is_conv_without_offsets() -> None:
    for n in (1, 2, 3):
        x, w, b = torch.randn([2, 4, *[6] * n]), torch.randn([6, 2, *[3] * n]), torch.randn(6)
        a: dict[str, Any] = {"group": 2, "pads": [1] * n + [2] * n, "strides": [2] * n}
        want = conv.conv_nd(x, w, b, **a)
        offset = torch.zeros([2, 2 * 3**n * n, *want.shape[2:]])
        got = conv.deform_conv(x, w, offset, b, offset_group=2, **a)
        torch.testing.assert_close(got, want)
