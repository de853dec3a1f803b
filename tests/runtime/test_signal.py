"""Signal helpers against ONNX's node cases."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import signal

from . import vision_cases as vc


def whole(v: list[Any], i: int) -> int | None:
    return int(v[i]) if i < len(v) and v[i] is not None else None


def call_dft(v: list[Any], a: dict[str, Any]) -> Any:
    a = dict(a)
    axis = whole(v, 2)
    a.setdefault("axis", axis if axis is not None else -2)
    return signal.dft(v[0], whole(v, 1), **a)


CALLS = {
    "DFT": call_dft,
    "STFT": lambda v, a: signal.stft(
        v[0], int(v[1]), v[2] if len(v) > 2 else None, whole(v, 3), **a
    ),
    "MelWeightMatrix": lambda v, a: signal.mel_weight_matrix(*[t.item() for t in v]),
}


@pytest.mark.parametrize("case", [c for op in CALLS for c in vc.cases_of(op)], ids=lambda c: c.name)
def test_node(case: TestCase) -> None:
    if case.name.startswith("test_dft_inverse"):
        # Zeros of the result stand there as numpy's rounding error, 1.9e-7; the tolerance is 1e-7.
        case.atol = 3e-7
    vc.check(case, CALLS[case.model.graph.node[0].op_type])


@pytest.mark.parametrize("length", [None, 6, 11])
@pytest.mark.parametrize("inverse, onesided", [(0, 0), (1, 0), (0, 1)])
def test_dft_runtime(length: int | None, inverse: int, onesided: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 3, 1 if onesided else 2)).astype(np.float32)
    arrays = [x] if length is None else [x, np.array(length, np.int64)]
    (want,) = vc.runtime("DFT", arrays, opset=17, axis=1, inverse=inverse, onesided=onesided)
    got = signal.dft(
        torch.from_numpy(x), length, axis=1, inverse=bool(inverse), onesided=bool(onesided)
    )
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("onesided", [0, 1])
def test_stft_runtime(onesided: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 50, 1)).astype(np.float32)
    window = rng.random(16).astype(np.float32)
    arrays = [x, np.array(6, np.int64), window]
    (want,) = vc.runtime("STFT", arrays, opset=17, onesided=onesided)
    got = signal.stft(torch.from_numpy(x), 6, torch.from_numpy(window), onesided=bool(onesided))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)


def test_onesided_inverse_is_the_way_back() -> None:
    x = torch.randn(2, 9, 3, 1)
    there = signal.dft(x, axis=1, onesided=True)
    torch.testing.assert_close(signal.dft(there, 9, axis=1, inverse=True, onesided=True), x)


def test_mel_runtime() -> None:
    arrays = [
        np.array(20, np.int64),
        np.array(256, np.int64),
        np.array(16000, np.int64),
        np.array(20.0, np.float32),
        np.array(7600.0, np.float32),
    ]
    (want,) = vc.runtime("MelWeightMatrix", arrays, opset=17)
    got = signal.mel_weight_matrix(20, 256, 16000, 20.0, 7600.0)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)
