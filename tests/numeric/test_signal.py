"""DFT, STFT, MelWeightMatrix and windows at every opset."""

from typing import Any

import numpy as np
import pytest

from .harness import Array, check

RNG = np.random.default_rng(23)


def f32(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def number(value: int) -> Array:
    return np.array(value, np.int64)


@pytest.mark.parametrize("form", [{}, {"inverse": 1}, {"onesided": 1}])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("length", [None, 6, 16])
@pytest.mark.parametrize("parts", [1, 2])
def test_dft(form: dict[str, Any], axis: int, length: int | None, parts: int) -> None:
    if parts == 2 and form.get("onesided"):
        pytest.skip("ONNX has no onesided transform of complex numbers")
    x = [f32(2, 9, 10, parts)] + ([number(length)] if length else [])
    tolerance = {"atol": 1e-4, "rtol": 1e-4}
    check("DFT", x, opset=17, attrs={"axis": axis, **form}, constants=[1], **tolerance)
    padded: list[Array | None] = [*x, number(axis)] if length else [*x, None, number(axis)]
    check("DFT", padded, opset=20, attrs=form, constants=[1, 2], **tolerance)
    check("DFT", padded, opset=20, attrs=form, constants=[2], dynamic=True, **tolerance)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("constants", [[1, 3], []])
def test_stft(onesided: int, window: bool, constants: list[int]) -> None:
    x: list[Array | None] = [f32(2, 40, 1), number(4)]
    x += [np.hanning(8).astype(np.float32) if window else None, number(8)]
    options = {"opset": 17, "attrs": {"onesided": onesided}, "constants": constants}
    check("STFT", x, atol=1e-4, **options)


def test_stft_of_a_signal_without_parts() -> None:
    x: list[Array | None] = [f32(2, 40), number(4), None, number(8)]
    check("STFT", x, opset=17, constants=[1, 3], atol=1e-4)


@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("op_type", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("constant", [False, True])
def test_window(op_type: str, periodic: int, constant: bool) -> None:
    attrs = {"periodic": periodic}
    kept = [0] if constant else []
    for size in (10, 2, 1):
        check(op_type, [number(size)], opset=17, attrs=attrs, constants=kept)
    if constant:
        double = {"periodic": periodic, "output_datatype": 11}
        check(op_type, [number(7)], opset=17, attrs=double, constants=kept)


def test_mel_weight_matrix() -> None:
    x = [number(8), number(64), number(8192)]
    edges = [np.array(20.0, np.float32), np.array(4000.0, np.float32)]
    check("MelWeightMatrix", [*x, *edges], opset=17, constants=[0, 1, 2, 3, 4], atol=1e-4)
    check("MelWeightMatrix", [*x, *edges], opset=17, atol=1e-4)
