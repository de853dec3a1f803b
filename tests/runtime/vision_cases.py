"""ONNX's backend node cases of one operator, as torch tensors, and ONNX Runtime on one node."""

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests


@functools.cache
def all_cases() -> list[TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model_tests(kind="node")


def cases_of(op_type: str) -> list[TestCase]:
    """Cases whose model is one node of this operator."""
    return [
        c
        for c in all_cases()
        if len(c.model.graph.node) == 1 and c.model.graph.node[0].op_type == op_type
    ]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for a in node.attribute:
        value = helper.get_attribute_value(a)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, list) and value and isinstance(value[0], bytes):
            value = [v.decode() for v in value]
        found[a.name] = list(value) if isinstance(value, (list, tuple)) else value
    return found


def check(case: TestCase, call: Any) -> None:
    """Compares call(inputs, attributes) with the outputs of each data set, as the suite would."""
    model = case.model
    node = model.graph.node[0]
    names = [i.name for i in model.graph.input]
    for arrays, expected in case.data_sets:
        given = dict(zip(names, arrays, strict=True))
        inputs = [torch.from_numpy(np.array(given[name])) if name else None for name in node.input]
        got = call(inputs, attributes(node))
        got = got if isinstance(got, tuple) else (got,)
        outputs = {n: g for n, g in zip(node.output, got, strict=False) if n}
        for info, want in zip(model.graph.output, expected, strict=True):
            compare(outputs[info.name], want, case.rtol, case.atol)


def compare(got: torch.Tensor, want: np.ndarray, rtol: float, atol: float) -> None:
    have = got.detach().numpy()
    assert have.dtype == want.dtype
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, rtol=rtol, atol=atol)


def runtime(
    op_type: str,
    arrays: list[np.ndarray | None],
    outputs: int = 1,
    opset: int = 19,
    domain: str = "",
    **attrs: Any,
) -> list[np.ndarray]:
    """ONNX Runtime's results of one node."""
    import onnxruntime as ort

    names = [f"x{i}" if a is not None else "" for i, a in enumerate(arrays)]
    node = helper.make_node(
        op_type, names, [f"y{i}" for i in range(outputs)], domain=domain, **attrs
    )
    given = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in given.items()
        ],
        [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)],
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, given))
