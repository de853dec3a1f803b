"""Fourier transforms, windows and mel filters; pictures in files."""

import io
from typing import Any

import numpy as np
from PIL import Image

from ..draw import Draw, Node
from ..engine import Row


def window(d: Draw) -> Node:
    size = np.array(d.integer(1, 12), d.t("T1"))
    return Node([d.const(size, 0.5)], d.attrs(periodic=[0, 1], output_datatype=[1, 11, 10]))


def dft(d: Draw) -> Node:
    rank = d.integer(1, 3)
    shape = (*(d.integer(1, 8) for _ in range(rank)), d.pick(1, 2))
    shape = (d.integer(1, 2), *shape)
    axis = d.integer(1, rank)
    attrs: dict[str, Any] = {}
    how = d.pick("plain", "plain", "inverse", "onesided")
    if how == "inverse":
        attrs["inverse"] = 1
    elif how == "onesided":
        shape = (*shape[:-1], 1)
        attrs["onesided"] = 1
    x = d.x(shape, d.t("T1", "float32", "float64"), special=False)
    length = d.maybe(d.const(np.array(d.integer(2, 9), d.t("T2"))), 0.4)
    if d.opset < 20:
        return Node([x] if length is None else [x, length], attrs | {"axis": axis})
    if d.chance(0.5):
        axis -= rank + 2
    return Node([x, length, d.const(np.array(axis))], attrs)


def stft(d: Draw) -> Node:
    dtype = d.t("T1", "float32", "float64")
    many, size, step = d.integer(12, 20), d.integer(3, 8), d.integer(1, 4)
    x = d.x((d.integer(1, 2), many, d.pick(1, 1, 2)), dtype, special=False)
    taps = d.maybe(d.x((size,), dtype, 0.1, 1))
    kind = d.t("T2")
    attrs = {"onesided": int(d.chance(0.5))}
    if x.shape[2] == 2:
        attrs["onesided"] = 0
    length = d.const(np.array(size, kind))
    return Node([x, d.const(np.array(step, kind)), taps, length], attrs)


def mel(d: Draw) -> Node:
    kind = d.t("T1")
    low = d.pick(0.0, 20.0, 100.0)
    numbers = [np.array(v, kind) for v in (d.integer(2, 8), d.pick(16, 32, 64), d.pick(800, 8192))]
    edges = [np.array(v, "float32") for v in (low, d.pick(200.0, 400.0))]
    fixed = d.chance(0.5)
    return Node(
        [d.const(v, 1.0 if fixed else 0.0) for v in numbers + edges],
        d.attrs(output_datatype=[1, 11]),
    )


def decode(d: Draw) -> Node:
    height, width = d.integer(1, 6), d.integer(1, 6)
    pixels = d.rng.integers(0, 256, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, d.pick("PNG", "BMP", "TIFF"))
    encoded = np.frombuffer(file.getvalue(), np.uint8)
    return Node([encoded], d.attrs(pixel_format=["RGB", "BGR", "Grayscale"]))


# What is left of sums of terms of one, relative to the whole.
SUMS = {"float32": 1e-4}
# ONNX Runtime computes their factors in float32.
WINDOWS = {"float32": 1e-4, "float64": 1e-6}
ROWS = {
    "HannWindow": Row(window, rtol=WINDOWS),
    "HammingWindow": Row(window, rtol=WINDOWS),
    "BlackmanWindow": Row(window, rtol=WINDOWS),
    "DFT": Row(dft, rtol=SUMS),
    "STFT": Row(stft, rtol=SUMS),
    "MelWeightMatrix": Row(mel, rtol=SUMS),
    "ImageDecoder": Row(decode),
}
