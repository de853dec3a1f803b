"""Pad in every mode and opset, and CenterCropPad."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch

import onnx2nn

from .harness import check, node_model


def values(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return (np.arange(int(np.prod(shape, dtype=np.int64))) % 100).reshape(shape).astype(dtype)


CASES = [
    ((1, 2, 3, 4), [0, 0, 1, 2, 0, 0, 2, 1]),
    ((1, 2, 3, 4), [0, 0, 0, 1, 0, 0, 0, 1]),
    ((2, 3, 4), [1, 0, 2, 0, 1, 1]),
    ((3, 4), [0, 1, 1, 3]),
    ((4,), [2, 3]),
    ((2, 3, 4), [0, 0, 0, 0, 0, 0]),
]


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_modes(mode: str, case: Any, constant: bool, dynamic: bool) -> None:
    shape, pads = case
    if mode == "reflect" and shape[0] <= max(pads[0], pads[len(shape)]):
        pytest.skip("ONNX Runtime reflects only once")
    inputs = [values(*shape), np.array(pads)]
    check(
        "Pad",
        inputs,
        opset=19,
        attrs={"mode": mode},
        constants=[1] if constant else [],
        dynamic=dynamic,
    )


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("opset", [2, 11, 13, 18])
def test_opsets(mode: str, opset: int) -> None:
    x, pads = values(1, 2, 3, 4), [0, 0, 1, 1, 0, 0, 1, 2]
    if opset == 2:
        check("Pad", [x], opset=2, attrs={"mode": mode, "pads": pads, "value": 1.5})
    else:
        for constants in [[], [1], [1, 2]]:
            value = np.array(1.5, np.float32)
            check(
                "Pad",
                [x, np.array(pads), value],
                opset=opset,
                attrs={"mode": mode},
                constants=constants,
            )


@pytest.mark.parametrize("constant", [False, True])
def test_axes_and_negative_pads(constant: bool) -> None:
    constants = [1, 3] if constant else []
    x = values(2, 3, 5)
    check(
        "Pad", [x, np.array([1, -1, 0, 2]), None, np.array([-1, 1])], opset=18, constants=constants
    )
    check("Pad", [x, np.array([-1, 2]), None, np.array([2])], opset=18, constants=constants)
    check("Pad", [x, np.array([0, 0, -1, 0, 1, -1])], opset=13, constants=[1] if constant else [])


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "int64", "int32", "uint8", "bool", "uint16"]
)
def test_dtypes(dtype: str) -> None:
    x, pads = values(2, 3, dtype=dtype), np.array([0, 1, 1, 0])
    value = np.array(1).astype(dtype)
    for constants in [[1], [1, 2]]:
        check("Pad", [x, pads, value], opset=21, constants=constants)


def test_first_opset() -> None:
    x = values(1, 1, 2, 2)
    expected = [np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=2)]
    attrs = {"paddings": [0, 0, 1, 0, 0, 0, 0, 2], "value": 2.0}
    check("Pad", [x], opset=1, attrs=attrs, expected=expected)


@pytest.mark.parametrize(("target", "axes"), [((4, 2, 7), None), ((5,), [1]), ((3, 6), [-1, 0])])
@pytest.mark.parametrize("constant", [False, True])
def test_center_crop_pad(target: Any, axes: Any, constant: bool) -> None:
    inputs = [values(3, 4, 5), np.array(target)]
    attrs = {} if axes is None else {"axes": axes}
    check("CenterCropPad", inputs, opset=18, attrs=attrs, constants=[1] if constant else [])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_value_that_halves_do_not_hold(name: str) -> None:
    """The lowest float32, as exporters write it for minus infinity."""
    lowest = float(np.finfo(np.float32).min)
    x = np.ones((1, 1, 2, 3), np.float16)
    elem_type = onnx.TensorProto.FLOAT16 if name == "float16" else onnx.TensorProto.BFLOAT16
    for attrs in ({"pads": [0, 0, 1, 1, 0, 0, 1, 1]}, {"pads": [1, 0, 0, 0, 0, 0, 0, 0]}):
        model, _ = node_model(
            "Pad", [x], opset=2, attrs=attrs | {"value": lowest}, elem_types={0: elem_type}
        )
        for simplify in (True, False):
            module = onnx2nn.load(model.SerializeToString(), simplify=simplify)
            y = module(torch.from_numpy(x).to(getattr(torch, name)))
            assert y.dtype == getattr(torch, name)
            assert (y == -torch.inf).sum() == y.numel() - x.size
