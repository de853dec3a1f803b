"""Operators of com.microsoft in each float type of their schemas, against the same in float32.

The cases are those of `test_contrib.py`, which compares float32 with ONNX Runtime; its CPU has few kernels of halves.
"""

import os
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

import onnx2nn.backend

from .one_node import Spec, chosen, make_case, model_of, name_of
from .test_contrib import SPECS

Array = Any
# How far an output may be off, relative to its root mean square.
NEAR: dict[str, tuple[Any, float]] = {
    "float16": (np.dtype(np.float16), 0.03),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 0.2),
    "double": (np.dtype(np.float64), 1e-3),
}
COUNT = int(os.environ.get("ONNX2NN_DIFFERENTIAL", "8")) // 3
SCHEMAS = {(s.domain, s.name): s for s in runtime.get_all_operator_schema()}
# The lowest float32, which exporters write for minus infinity: no half holds it.
LOWEST = float(np.finfo(np.float32).min)


# Products of bytes, unscaled, are beyond what halves hold.
BEYOND = {("QAttention", "float16")}


def floats_of(spec: Spec, type_name: str) -> list[str]:
    """Of each formal input, its parameter where it takes both float32 and this type, else ""."""
    schema = SCHEMAS[spec.key]
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    names = []
    for i in schema.inputs:
        types = allowed.get(i.typeStr, [])
        both = "tensor(float)" in types and f"tensor({type_name})" in types
        names.append(i.typeStr if both else "")
    return names


def in_type(model: onnx.ModelProto, at: set[str], dtype: Any) -> onnx.ModelProto:
    """The model whose float32 values of these names are of another type."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for value in out.graph.input:
        if value.name in at:
            value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    for tensor in out.graph.initializer:
        if tensor.name in at:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name)
            )
    return out


def run(model: onnx.ModelProto, feeds: list[Array]) -> list[Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(onnx2nn.backend.prepare(model).run(feeds))


def check(spec: Spec, options: dict[str, Any], type_name: str, lowest: bool) -> bool:
    """Whether there was something to compare."""
    dtype, near = NEAR[type_name]
    case = make_case(spec, options)
    assert case is not None
    attrs = dict(case.attrs)
    if lowest:
        if "mask_filter_value" not in attrs:
            return False
        attrs["mask_filter_value"] = LOWEST
    model, feeds = model_of(spec, case, case.inputs, attrs)
    formal = floats_of(spec, type_name)
    at = {
        f"x{i}"
        for i, x in enumerate(case.inputs)
        if x is not None and x.dtype == np.float32 and formal[min(i, len(formal) - 1)]
    }
    if not at:
        return False
    rounded = in_type(in_type(model, at, dtype), at, np.dtype(np.float32))
    halves = [x.astype(dtype) if k in at else x for k, x in feeds.items()]
    wide = [
        x.astype(np.float32) if k in at else x
        for (k, _), x in zip(feeds.items(), halves, strict=True)
    ]
    got = run(in_type(model, at, dtype), halves)
    want = run(rounded, wide)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        if w is None or np.asarray(w).dtype.kind not in "f" or not np.asarray(w).size:
            continue
        g, w = np.asarray(g), np.asarray(w)
        assert g.shape == w.shape
        a, b = g.astype(np.float64), w.astype(np.float64)
        finite = np.isfinite(b) & (np.abs(b) < 3e4)
        spread = float(np.sqrt(np.mean(b[finite] ** 2))) if finite.any() else 1.0
        # What is quantised on the way may fall to the other side of a tie.
        off = np.abs(a - b)[finite] > near * max(spread, 1e-3)
        assert off.mean() <= 0.05 if off.size else True, (i, a[finite][off][:4], b[finite][off][:4])
        assert not np.isnan(a[finite]).any()
    return True


def parameters() -> list[Any]:
    return [
        pytest.param(spec, type_name, id=f"{spec.op_type}-{type_name}")
        for spec in SPECS
        if spec.key in SCHEMAS
        for type_name in NEAR
        if any(floats_of(spec, type_name)) and (spec.op_type, type_name) not in BEYOND
    ]


@pytest.mark.parametrize(("spec", "type_name"), parameters())
def test_node(spec: Spec, type_name: str) -> None:
    wrong = []
    for options in chosen(spec, COUNT):
        if options.get("mask") == "nothing":
            continue  # where all is hidden, the weights are the rounding of halves
        for lowest in (False, True):
            try:
                check(spec, options, type_name, lowest)
            except Exception as e:
                wrong.append(f"{name_of(spec, options)}: {type(e).__name__}: {e}"[:400])
    assert not wrong, "\n".join(wrong)
