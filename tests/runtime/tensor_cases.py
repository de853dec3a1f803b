"""ONNX's backend node cases as torch values, for tests of single runtime helpers."""

import functools
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

WIDENED = {
    "int4": "int8",
    "uint4": "uint8",
    "int2": "int8",
    "uint2": "uint8",
    "float4_e2m1fn": "float32",
}


@functools.cache
def all_cases() -> list[TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model_tests(kind="node")


def cases_of(*op_types: str) -> list[TestCase]:
    """The cases whose model is one node of one of these operators."""
    found = []
    for case in all_cases():
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in op_types:
            found.append(case)
    return found


def as_array(x: Any) -> Any:
    """An array of a case's value; sub-byte and string ones come as TensorProto."""
    return onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x)


def to_torch(x: Any) -> Any:
    """A numpy value as the runtime carries it: sub-byte types widened, strings left alone."""
    if isinstance(x, list):
        return [to_torch(v) for v in x]
    if x is None:
        return None
    x = as_array(x)
    name = str(x.dtype)
    if name in WIDENED:
        x = x.astype(WIDENED[name])
    if x.dtype.kind in "OUS":
        return x.astype(object)
    if name == "bfloat16":
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    if name.startswith("float8"):
        return torch.from_numpy(x.view(np.uint8).copy()).view(getattr(torch, name))
    return torch.from_numpy(np.array(x, copy=True))


def to_numpy(y: Any, element_type: int) -> Any:
    if isinstance(y, list):
        return [to_numpy(v, element_type) for v in y]
    if not isinstance(y, torch.Tensor):
        return y
    y = y.detach()
    name = str(y.dtype).removeprefix("torch.")
    if name == "bfloat16":
        return y.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    if name.startswith("float8"):
        return y.contiguous().view(torch.uint8).numpy().view(getattr(ml_dtypes, name))
    array = y.numpy()
    narrow = {21: "uint4", 22: "int4", 23: "float4_e2m1fn", 25: "uint2", 26: "int2"}
    if element_type in narrow:
        assert array.dtype == WIDENED[narrow[element_type]]
        array = array.astype(getattr(ml_dtypes, narrow[element_type]))
    return array


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    out = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in out.items()}


def node_inputs(case: TestCase, values: list[Any]) -> list[Any]:
    """A node's inputs in order, None where one is left out."""
    named = dict(zip([i.name for i in case.model.graph.input], values))
    return [to_torch(named[name]) if name else None for name in case.model.graph.node[0].input]


def assert_equal(got: Any, wanted: Any, rtol: float, atol: float, name: str = "") -> None:
    wanted = as_array(wanted)
    assert got.dtype == wanted.dtype or wanted.dtype.kind in "OUS", (name, got.dtype, wanted.dtype)
    assert got.shape == wanted.shape, (name, got.shape, wanted.shape)
    if wanted.dtype.kind in "OUS":
        assert (got.astype(object) == wanted.astype(object)).all(), (name, got, wanted)
    elif wanted.dtype.kind == "V" or wanted.dtype.num >= 256:
        np.testing.assert_allclose(
            got.astype(np.float32), wanted.astype(np.float32), rtol=rtol, atol=atol, err_msg=name
        )
    else:
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol, err_msg=name)


def check(case: TestCase, helper: Any) -> None:
    """Calls helper(inputs, attributes) and compares its outputs with the case's."""
    node = case.model.graph.node[0]
    types = {o.name: o.type.tensor_type.elem_type for o in case.model.graph.output}
    for inputs, outputs in case.data_sets:
        got = helper(node_inputs(case, inputs), attributes(node))
        got = got if isinstance(got, tuple) else (got,)
        wanted = dict(zip([o.name for o in case.model.graph.output], outputs))
        for name, value in zip(node.output, got):
            if name:
                assert_equal(to_numpy(value, types[name]), wanted[name], case.rtol, case.atol, name)


def named(cases: list[TestCase]) -> dict[str, Any]:
    """Arguments for pytest.mark.parametrize."""
    return {"argvalues": cases, "ids": [c.name.removeprefix("test_") for c in cases]}
