"""Tensor manipulation helpers against ONNX's node cases."""

from typing import Any

import numpy as np
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
    "Gather": lambda v, a: ix.gather_slices(*v, **a),
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


INTEGERS = [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64]


def truncated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b towards zero, wrapped to the dtype."""
    rest = np.fmod(a, b)
    return (a - rest) // b


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_width(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    info = np.iinfo(dtype)
    a = rng.integers(info.min, info.max, (5, 7), dtype=dtype, endpoint=True)
    b = rng.integers(info.min, info.max, (5, 7), dtype=dtype, endpoint=True)
    b[:, :4] = b[:, :4] % 7 + 1
    b[b == 0] = 1
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    shift = rng.integers(0, 8 * a.itemsize, (5, 7)).astype(dtype)
    small = np.abs(b % 4).astype(dtype)
    checks: list[tuple[Any, Any]] = [
        (ix.integer_divide(x, y), truncated(a, b)),
        (ix.mod(x, y), np.mod(a, b)),
        (ix.mod(x, y, fmod=1), np.fmod(a, b)),
        (ix.maximum_of(x, y), np.maximum(a, b)),
        (ix.minimum_of(x, y), np.minimum(a, b)),
        (ix.power(x, torch.from_numpy(small)), np.power(a, small)),
        (ix.bitwise_not(x), ~a),
        (ix.bit_shift(x, torch.from_numpy(shift), direction="LEFT"), np.left_shift(a, shift)),
        (ix.bit_shift(x, torch.from_numpy(shift), direction="RIGHT"), np.right_shift(a, shift)),
        (ix.cum_sum(x, 1), np.cumsum(a, 1, dtype=dtype)),
        (ix.cum_prod(x, 1), np.cumprod(a, 1, dtype=dtype)),
        (ix.trilu(x, 1), np.triu(a, 1)),
        (ix.arg_max(x, axis=1, keepdims=0), a.argmax(1)),
        (ix.top_k(x, 3)[0], np.sort(a, 1)[:, ::-1][:, :3]),
        (ix.gather_elements(x, torch.tensor([[0, -1, 2]]), 1), a[:1, [0, -1, 2]]),
        (ix.unique_values(x)[0], np.unique(a)),
        (ix.non_zero(x), np.array(np.nonzero(a))),
        (ix.eye_like(x, k=1), np.eye(5, 7, 1, dtype=dtype)),
        (ix.einsum_integers("ij,kj->ik", [x, y]), np.einsum("ij,kj->ik", a, b)),
    ]
    for got, wanted in checks:
        np.testing.assert_array_equal(got.numpy(), wanted)
        assert got.dtype == torch.from_numpy(np.array(wanted)).dtype


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float16, np.float32])
@pytest.mark.parametrize(
    ("reduction", "ufunc"),
    [("add", np.add), ("mul", np.multiply), ("max", np.maximum), ("min", np.minimum)],
)
def test_scatter_reductions(dtype: Any, reduction: str, ufunc: Any) -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 100, (5, 7)).astype(dtype) for _ in range(2))
    wanted = a.copy()
    ufunc.at(wanted, [1, 1, -1], b[:3])
    index = torch.tensor([[1], [1], [-1]])
    x, y = torch.from_numpy(a), torch.from_numpy(b[:3])
    got = ix.scatter_nd(x, index, y, reduction=reduction)
    np.testing.assert_array_equal(got.numpy(), wanted)
    got = ix.scatter_elements(x, index.expand(3, 7), y, reduction=reduction)
    np.testing.assert_array_equal(got.numpy(), wanted)


@pytest.mark.parametrize("size", [0, 1, 5, 10])
@pytest.mark.parametrize("step", [1, 2, 3, -1, -2, -3])
def test_slice_bounds(size: int, step: int) -> None:
    x = torch.arange(size)
    far = 2**63 - 1
    for start in [*range(-12, 13), far, -far]:
        for end in [*range(-12, 13), far, -far]:
            # ONNX begins with the first element where numpy begins before it, and has none.
            first = max(start, -size) if step < 0 < size else start
            wanted = x.numpy()[first:end:step]
            assert ix.slice_tensor(x, [start], [end], [0], [step]).tolist() == wanted.tolist()


def test_empty_tensors() -> None:
    x = torch.zeros(0, 7)
    assert ix.gather_slices(x, torch.tensor([[0, -1]]), 1).shape == (0, 1, 2)
    assert ix.gather_nd(x, torch.zeros(0, 3, 1, dtype=torch.int64), 1).shape == (0, 3)
    assert ix.scatter_nd(x, torch.zeros(0, 1, dtype=torch.int64), x).shape == (0, 7)
    assert ix.top_k(x, 3)[1].shape == (0, 3)
    assert ix.cum_sum(x, 0, exclusive=1).shape == (0, 7)
    assert ix.unique_values(x)[0].shape == (0,)
    assert ix.reshape_copy_zeros(x, [0, -1]).shape == (0, 7)
    assert ix.reshape_copy_zeros(x, [-1, 7]).shape == (0, 7)
    assert ix.reshape_copy_zeros(x, [-1]).shape == (0,)
    assert ix.reshape_copy_zeros(x, [7, 0], allowzero=1).shape == (7, 0)


def test_one_hot_outside() -> None:
    got = ix.one_hot(torch.tensor([0, -1, 5, -4]), 3, torch.tensor([2, 9], dtype=torch.uint16))
    assert got.tolist() == [[9, 2, 2], [2, 2, 9], [2, 2, 2], [2, 2, 2]]


def test_align_axis() -> None:
    x = torch.ones(3, 4)
    assert ix.align_axis(x, 4, 1).shape == (3, 4, 1)
    assert (torch.zeros(2, 3, 4, 5) + ix.align_axis(x, 4, 1)).shape == (2, 3, 4, 5)
    assert ix.align_axis(x, 4, -2).shape == (3, 4)


def test_gradients() -> None:
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, -1]])
    for call in (
        lambda t: ix.gather_slices(t, index, 1),
        lambda t: ix.gather_elements(t, index, 1),
        lambda t: ix.gather_nd(t, index),
        lambda t: ix.scatter_nd(t, index, torch.ones(1, dtype=t.dtype)),
        lambda t: ix.top_k(t, 2)[0],
        lambda t: ix.cum_sum(t, 1, exclusive=1, reverse=1),
        lambda t: ix.slice_tensor(t, [-1], [-9], [1], [-2]),
    ):
        assert torch.autograd.gradcheck(call, [x])
