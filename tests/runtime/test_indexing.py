"""Tensor manipulation helpers against ONNX's node cases."""

from typing import Any

import pytest
import torch
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import indexing as ix

from . import tensor_cases as tc

DTYPES = {1: torch.float32, 6: torch.int32, 11: torch.float64, 7: torch.int64, 4: torch.uint16}


def call_slice(v: list[Any], a: dict[str, Any]) -> Any:
    return ix.slice_tensor(v[0], *[None if t is None else t.tolist() for t in v[1:]])


def call_reshape(v: list[Any], a: dict[str, Any]) -> Any:
    return ix.reshape_copy_zeros(v[0], v[1].tolist(), **a)


def call_top_k(v: list[Any], a: dict[str, Any]) -> Any:
    return ix.top_k(v[0], int(v[1]), **a)


def call_eye(v: list[Any], a: dict[str, Any]) -> Any:
    dtype = DTYPES[a["dtype"]] if "dtype" in a else None
    return ix.eye_like(v[0], k=a.get("k", 0), dtype=dtype)


def call_trilu(v: list[Any], a: dict[str, Any]) -> Any:
    return ix.trilu(v[0], int(v[1]) if len(v) > 1 else 0, **a)


def call_div(v: list[Any], a: dict[str, Any]) -> Any:
    if v[0].dtype.is_floating_point:
        return v[0] / v[1]
    return ix.integer_divide(*v)


HELPERS = {
    "Gather": lambda v, a: ix.gather(*v, **a),
    "GatherElements": lambda v, a: ix.gather_elements(*v, **a),
    "GatherND": lambda v, a: ix.gather_nd(*v, **a),
    "ScatterElements": lambda v, a: ix.scatter_elements(*v, **a),
    "Scatter": lambda v, a: ix.scatter_elements(*v, **a),
    "ScatterND": lambda v, a: ix.scatter_nd(*v, **a),
    "TensorScatter": lambda v, a: ix.tensor_scatter(*v, **a),
    "OneHot": lambda v, a: ix.one_hot(v[0], int(v[1]), v[2], **a),
    "TopK": call_top_k,
    "Unique": lambda v, a: ix.unique_values(*v, **a),
    "Compress": lambda v, a: ix.compress(*v, **a),
    "Trilu": call_trilu,
    "ReverseSequence": lambda v, a: ix.reverse_sequence(*v, **a),
    "Slice": call_slice,
    "CumSum": lambda v, a: ix.cum_sum(v[0], int(v[1]), **a),
    "CumProd": lambda v, a: ix.cum_prod(v[0], int(v[1]), **a),
    "Range": lambda v, a: ix.number_range(*v),
    "Einsum": lambda v, a: ix.einsum_integers(a["equation"], v),
    "Hardmax": lambda v, a: ix.hardmax(*v, **a),
    "ArgMax": lambda v, a: ix.arg_max(*v, **a),
    "ArgMin": lambda v, a: ix.arg_min(*v, **a),
    "NonZero": lambda v, a: ix.non_zero(*v),
    "EyeLike": call_eye,
    "Reshape": call_reshape,
    "Expand": lambda v, a: ix.expand_both(v[0], v[1].tolist()),
    "Div": call_div,
    "Mod": lambda v, a: ix.mod(*v, **a),
    "BitShift": lambda v, a: ix.bit_shift(*v, **a),
    "BitwiseNot": lambda v, a: ix.bitwise_not(*v),
    "Pow": lambda v, a: ix.power(*v),
    "Max": lambda v, a: ix.maximum_of(*v),
    "Min": lambda v, a: ix.minimum_of(*v),
}


@pytest.mark.parametrize("case", **tc.named(tc.cases_of(*HELPERS)))
def test_node_case(case: TestCase) -> None:
    tc.check(case, HELPERS[case.model.graph.node[0].op_type])
