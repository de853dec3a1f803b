"""One-node models: ONNX's own backend cases, and ONNX Runtime's answers to nodes made by hand."""

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TypeProto, helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests


@functools.cache
def node_cases() -> list[TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model_tests(kind="node")


def cases_of(*op_types: str) -> list[Any]:
    """The backend cases made of one node of these types, as pytest parameters."""
    return [
        pytest.param(case, id=case.name)
        for case in node_cases()
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in op_types
    ]


def plain(value: Any) -> Any:
    """An attribute's value with str for bytes, and lists or strings for tensors."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return plain(onnx.numpy_helper.to_array(value).reshape(-1).tolist())
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def attributes(case: TestCase) -> dict[str, Any]:
    return {
        a.name: plain(helper.get_attribute_value(a)) for a in case.model.graph.node[0].attribute
    }


def to_runtime(x: Any) -> Any:
    """numpy to what helpers take: tensors, string arrays as they are, lists and None."""
    if isinstance(x, list):
        return [to_runtime(v) for v in x]
    if not isinstance(x, np.ndarray):
        return x
    return x.astype(object) if x.dtype.kind in "OUS" else torch.from_numpy(np.array(x))


def check(actual: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Equal structure, dtype, shape and values."""
    if isinstance(expected, list):
        assert isinstance(actual, list)
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            check(a, e, rtol, atol)
        return
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert actual[key] == pytest.approx(expected[key], rel=rtol, abs=atol)
        return
    expected = np.asarray(expected)
    if isinstance(actual, torch.Tensor):
        actual = actual.numpy()
        assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype.kind in "OU":
        assert actual.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(actual, expected, rtol, atol)


def run_cases(case: TestCase, answer: Any) -> None:
    """Compares answer(inputs, attributes), a list of outputs, with the case's data."""
    for inputs, outputs in case.data_sets:
        got = answer([to_runtime(x) for x in inputs], attributes(case))
        for actual, expected in zip(got, outputs, strict=True):
            check(actual, expected)


def ort_answer(
    op_type: str,
    inputs: list[Any],
    *,
    outputs: int = 1,
    domain: str = "ai.onnx.ml",
    version: int = 3,
    types: list[TypeProto] | None = None,
    **attrs: Any,
) -> list[Any]:
    """What ONNX Runtime says to a model of this one node."""
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, domain=domain, **attrs)
    if types is None:
        types = [
            helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for x in inputs
        ]
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_value_info(n, t) for n, t in zip(names, types, strict=True)],
        [onnx.ValueInfoProto(name=n) for n in results],
    )
    opsets = [helper.make_opsetid(domain, version)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answers: list[Any] = session.run(None, dict(zip(names, inputs, strict=True)))
    return answers
