"""The ONNX Backend API, and values on their way through it."""

import ml_dtypes
import numpy as np
import pytest
import torch

import onnx2nn.backend
from onnx2nn.tensors import as_outputs, to_numpy, to_torch
from stand_in import make_model


def test_prepare_and_run(core: object) -> None:
    model = make_model()
    x = np.ones((2, 4), np.float32)
    rep = onnx2nn.backend.prepare(model, "CPU")
    for given in ([x], (x,), x, {"x": x}):
        (y,) = rep.run(given)
        assert y.shape == (2, 3)
        assert y.dtype == np.float32
    (z,) = onnx2nn.backend.run_model(model, [x])
    np.testing.assert_array_equal(y, z)


def test_devices_and_compatibility(core: object) -> None:
    assert onnx2nn.backend.supports_device("CPU")
    assert not onnx2nn.backend.supports_device("TPU")
    assert onnx2nn.backend.is_compatible(make_model())
    model = make_model()
    model.graph.initializer[2].name = "other"
    assert not onnx2nn.backend.is_compatible(model)


@pytest.mark.parametrize(
    "name",
    ["float32", "float16", "int8", "uint16", "uint64", "bool", "complex64"]
    + ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu"],
)
def test_types_that_torch_has(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)
    for shape in ((2, 3), (), (0, 2)):
        x = np.ones(shape).astype(dtype)
        t = to_torch(x)
        assert t.dtype == getattr(torch, name)
        y = to_numpy(t, name)
        assert y.dtype == dtype
        assert y.shape == shape
        np.testing.assert_array_equal(x.astype(np.complex64), y.astype(np.complex64))


@pytest.mark.parametrize(
    ("name", "carried"),
    [
        ("int4", torch.int8),
        ("uint4", torch.uint8),
        ("int2", torch.int8),
        ("uint2", torch.uint8),
        ("float4_e2m1fn", torch.float32),
    ],
)
def test_types_that_are_carried(name: str, carried: torch.dtype) -> None:
    x = np.array([0, 1, 1, 0]).astype(getattr(ml_dtypes, name))
    t = to_torch(x)
    assert t.dtype == carried
    y = to_numpy(t, name)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(x.astype(np.float32), y.astype(np.float32))


def test_strings_sequences_optionals_maps() -> None:
    words = np.array(["a", "bc"])
    assert to_torch(words).dtype == object
    assert to_numpy(to_torch(words), "object").tolist() == ["a", "bc"]
    sequence = to_torch([np.ones(2), np.zeros(3)])
    assert [t.shape[0] for t in sequence] == [2, 3]
    assert [a.shape for a in to_numpy(sequence, "float64")] == [(2,), (3,)]
    assert to_numpy(None) is None
    assert to_torch(None) is None
    assert to_numpy({"a": 1}) == {"a": 1}
    assert to_numpy([], "float32") == []
    # A shape that was left as Python integers.
    np.testing.assert_array_equal(to_numpy([2, 3], "int64"), np.array([2, 3]))


def test_inputs_are_never_shared() -> None:
    x = np.zeros(3, np.float32)
    to_torch(x).fill_(1)
    assert not x.any()
    assert to_torch(np.asarray([1, 2], ">i4")).tolist() == [1, 2]
    assert to_torch(np.ones((2, 3)).T).shape == (3, 2)


def test_as_outputs() -> None:
    t = torch.zeros(1)
    assert as_outputs(t, 1) == [t]
    assert as_outputs((t,), 1) == [t]
    assert as_outputs((t, t), 2) == [t, t]
    assert as_outputs([t, t], 1) == [[t, t]]
    assert as_outputs({"a": t, "b": t}, 2) == [t, t]
