"""One node run by ONNX Runtime, whose answers decide for com.microsoft operators."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper


def run_node(
    op_type: str,
    inputs: list[np.ndarray | None],
    outputs: int = 1,
    domain: str = "com.microsoft",
    opset: int = 21,
    types: dict[int, int] | None = None,
    extra: dict[str, Any] | None = None,
    shared: dict[int, int] | None = None,
    **attributes: Any,
) -> list[Any]:
    """The node's outputs; an input of None is left out, `extra` are more attributes.

    `shared` names outputs that must lie in the memory of an input.
    """
    attributes.update(extra or {})
    names = [f"i{i}" if x is not None else "" for i, x in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"o{i}" for i in range(outputs)], domain=domain)
    for name, value in attributes.items():
        node.attribute.append(helper.make_attribute(name, value))
    values = []
    for i, x in enumerate(inputs):
        if x is not None:
            element_type = (types or {}).get(i, helper.np_dtype_to_tensor_dtype(x.dtype))
            values.append(helper.make_tensor_value_info(f"i{i}", element_type, x.shape))
    results = [onnx.ValueInfoProto(name=f"o{i}") for i in range(outputs)]
    model = helper.make_model(
        helper.make_graph([node], "g", values, results),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {f"i{i}": x for i, x in enumerate(inputs) if x is not None}
    if not shared:
        return session.run(None, feeds)
    # The bound values lie in the arrays' memory, so copies of the arrays are kept.
    copies = {name: np.array(value) for name, value in feeds.items()}
    binding, kept = session.io_binding(), {}
    for name, value in copies.items():
        kept[name] = onnxruntime.OrtValue.ortvalue_from_numpy(value)
        binding.bind_ortvalue_input(name, kept[name])
    for i in range(outputs):
        if i in shared:
            binding.bind_ortvalue_output(f"o{i}", kept[f"i{shared[i]}"])
        else:
            binding.bind_output(f"o{i}")
    session.run_with_iobinding(binding)
    return [value.numpy().copy() for value in binding.get_outputs()]


def tensors(inputs: list[np.ndarray | None]) -> list[Any]:
    return [None if x is None else torch.from_numpy(np.array(x)) for x in inputs]


def assert_close(got: Any, wanted: np.ndarray, tolerance: float = 1e-5, steps: int = 0) -> None:
    """Floats within a tolerance; integers equal, or at most `steps` apart."""
    y = got.detach().numpy()
    assert y.dtype == wanted.dtype
    assert y.shape == wanted.shape
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(y, wanted, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_allclose(y.astype(np.int64), wanted.astype(np.int64), rtol=0, atol=steps)
