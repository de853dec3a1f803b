"""Weights whose products ONNX Runtime computes alike on every CPU."""

from typing import Any

import numpy as np


def int8_weights(rng: np.random.Generator, *shape: int) -> Any:
    """Random int8 of seven bits: without VNNI, ONNX Runtime adds two products of a uint8 and an int8 in 16 bits,
    which saturate for larger weights, so that its answer depends on the CPU."""
    return rng.integers(-64, 64, shape).astype(np.int8)
