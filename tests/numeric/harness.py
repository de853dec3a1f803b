"""One-node models at an opset, converted and run by torch, against ONNX Runtime or the reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

import onnx2nn
import onnx2nn._native as native

Array = np.ndarray[Any, Any]


def node_model(
    op_type: str,
    inputs: Sequence[Array | None],
    *,
    opset: int,
    attrs: dict[str, Any] | None = None,
    constants: Sequence[int] = (),
    outputs: int | Sequence[bool] = 1,
    domain: str = "",
    dynamic: bool = False,
    elem_types: dict[int, int] | None = None,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model of one node, and what to feed it.

    Inputs in `constants` become initialisers, the others graph inputs; None is an absent input.
    `outputs` is a number, or says of each output whether it is there. `dynamic` makes every size
    of a graph input a symbol of its own.
    """
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    present = [True] * outputs if isinstance(outputs, int) else list(outputs)
    results = [f"y{i}" if there else "" for i, there in enumerate(present)]
    node = helper.make_node(op_type, names, results, domain=domain, name="node", **(attrs or {}))
    values, initializers, feeds = [], [], {}
    for i, x in enumerate(inputs):
        if x is None:
            continue
        elem_type = (elem_types or {}).get(i, helper.np_dtype_to_tensor_dtype(x.dtype))
        if i in constants:
            initializers.append(onnx.numpy_helper.from_array(x, names[i]))
            continue
        shape = [f"d{i}_{k}" for k in range(x.ndim)] if dynamic else x.shape
        values.append(helper.make_tensor_value_info(names[i], elem_type, shape))
        feeds[names[i]] = x
    graph = helper.make_graph(
        [node], "g", values, [onnx.ValueInfoProto(name=n) for n in results if n], initializers
    )
    imports = [helper.make_opsetid(domain, opset)]
    if domain:
        imports.append(helper.make_opsetid("", 21))
    return helper.make_model(graph, opset_imports=imports, ir_version=10), feeds


def expected_outputs(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Any]:
    """ONNX Runtime's answer; where it has no such kernel, that of ONNX's reference evaluator."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, feeds))
    except Exception:  # every kind of refusal means the same here
        return list(ReferenceEvaluator(model).run(None, feeds))


def source_of(model: onnx.ModelProto, simplify: bool = True) -> str:
    """The emitted source."""
    return str(native.convert(model.SerializeToString(), {"simplify": simplify}).source)


def run_converted(model: onnx.ModelProto, feeds: dict[str, Array], simplify: bool) -> list[Any]:
    module = onnx2nn.load(model.SerializeToString(), simplify=simplify)
    tensors = [
        torch.from_numpy(np.array(x)) if x.dtype.kind not in "OUS" else x for x in feeds.values()
    ]
    with torch.no_grad():
        got = module(*tensors)
    return list(got) if isinstance(got, tuple | list) else [got]


def compare(got: Any, wanted: Any, rtol: float, atol: float) -> None:
    """Equal dtype, shape and values."""
    wanted = np.asarray(wanted)
    if isinstance(got, torch.Tensor):
        got = got.float().numpy() if got.dtype == torch.bfloat16 else got.numpy()
        if wanted.dtype.name != "bfloat16":
            assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if wanted.dtype.kind in "OUS":
        assert got.tolist() == wanted.tolist()
    elif wanted.dtype.kind in "fcV":
        wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(got.astype(wide), wanted.astype(wide), rtol, atol)
    else:
        np.testing.assert_array_equal(got, wanted)


def check(
    op_type: str,
    inputs: Sequence[Array | None],
    *,
    expected: Sequence[Any] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    **kwargs: Any,
) -> str:
    """Converts the node both ways (simplified and not) and compares; returns the source."""
    model, feeds = node_model(op_type, inputs, **kwargs)
    wanted = expected if expected is not None else expected_outputs(model, feeds)
    for simplify in (True, False):
        got = run_converted(model, feeds, simplify)
        assert len(got) == len(wanted)
        for g, w in zip(got, wanted, strict=True):
            compare(g, w, rtol, atol)
    return source_of(model)
