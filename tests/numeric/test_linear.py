"""Products of matrices: Gemm in every form, MatMul of every rank, einsum, integers."""

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from int8_weights import int8_weights

from .harness import check, compare, expected_outputs, run_converted, source_of

RNG = np.random.default_rng(3)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("trans_a", "trans_b", "alpha", "beta"),
    list(itertools.product([0, 1], [0, 1], [1.0, 0.5], [1.0, 2.0, 0.0])),
)
@pytest.mark.parametrize("constants", [(1, 2), (2,), ()])
def test_gemm(
    trans_a: int, trans_b: int, alpha: float, beta: float, constants: tuple[int, ...]
) -> None:
    a = normal(4, 3) if trans_a else normal(3, 4)
    b = normal(5, 4) if trans_b else normal(4, 5)
    attrs = {"transA": trans_a, "transB": trans_b, "alpha": alpha, "beta": beta}
    source = check("Gemm", [a, b, normal(5)], opset=13, attrs=attrs, constants=constants)
    plain = not trans_a and alpha == 1 and beta == 1 and len(constants) == 2
    assert ("nn.Linear(4, 5)" in source) == plain


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 11, 13])
@pytest.mark.parametrize("shape", [(), (5,), (1, 5), (3, 1), (3, 5), (1,), None], ids=str)
@pytest.mark.parametrize("constants", [(1, 2), ()])
def test_gemm_bias(opset: int, shape: tuple[int, ...] | None, constants: tuple[int, ...]) -> None:
    if shape is None and opset < 11:
        pytest.skip("the bias is required there")
    attrs = {"broadcast": 1} if opset < 7 else {}
    a, b = normal(3, 4), normal(4, 5)
    bias = [] if shape is None else [normal(*shape)]
    wanted = a @ b + (bias[0] if bias else 0)
    check("Gemm", [a, b, *bias], opset=opset, attrs=attrs, constants=constants, expected=[wanted])


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64, np.float64])
def test_gemm_dtypes(dtype: Any) -> None:
    a, b, bias = (RNG.integers(0, 9, s).astype(dtype) for s in ((3, 4), (4, 5), (5,)))
    check("Gemm", [a, b, bias], opset=13, expected=[a @ b + bias])


SHAPES = [
    ((4,), (4,)),
    ((3, 4), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (6, 4, 5)),
    ((4,), (2, 4, 5)),
    ((0, 4), (4, 5)),
    ((3, 0), (0, 5)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
@pytest.mark.parametrize("opset", [1, 9, 13])
@pytest.mark.parametrize("constants", [(1,), ()])
@pytest.mark.parametrize("dynamic", [False, True])
def test_matmul(
    a: tuple[int, ...], b: tuple[int, ...], opset: int, constants: tuple[int, ...], dynamic: bool
) -> None:
    x, y = normal(*a), normal(*b)
    source = check(
        "MatMul", [x, y], opset=opset, constants=constants, dynamic=dynamic, expected=[x @ y]
    )
    assert ("nn.Linear(4, 5, bias=False)" in source) == (bool(constants) and b == (4, 5))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64, np.float64])
def test_matmul_dtypes(dtype: Any) -> None:
    a, b = (RNG.integers(0, 9, s).astype(dtype) for s in ((2, 3, 4), (4, 5)))
    check("MatMul", [a, b], opset=9, constants=[1], expected=[a @ b])


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("bias", [(5,), (1,), (3, 5)], ids=str)
def test_matmul_add(first: bool, bias: tuple[int, ...]) -> None:
    w, b, x = normal(4, 5), normal(*bias), normal(2, 3, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["h"]),
        helper.make_node("Add", ["fc.bias", "h"] if first else ["h", "fc.bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3, 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 3, 5])],
        [
            onnx.numpy_helper.from_array(w, "fc.weight"),
            onnx.numpy_helper.from_array(b, "fc.bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feeds = {"x": x}
    for simplify in (True, False):
        got = run_converted(model, feeds, simplify)
        compare(got[0], expected_outputs(model, feeds)[0], 1e-5, 1e-5)
    source = source_of(model)
    assert ("self.fc = nn.Linear(4, 5)" in source) == (bias == (5,))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij , jk", [(2, 3), (3, 4)]),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("ii", [(3, 3)]),
        ("i,j", [(3,), (4,)]),
        ("ij->", [(3, 4)]),
        ("bhwc,hkc->bhwk", [(2, 3, 4, 5), (3, 6, 5)]),
        ("Ab,bC->CA", [(2, 3), (3, 4)]),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_einsum(equation: str, shapes: list[tuple[int, ...]], dynamic: bool) -> None:
    inputs = [normal(*s) for s in shapes]
    wanted = np.asarray(np.einsum(equation, *inputs))
    check(
        "Einsum",
        inputs,
        opset=12,
        attrs={"equation": equation},
        dynamic=dynamic,
        expected=[wanted],
    )


def integers(dtype: Any, *shape: int) -> Any:
    if dtype is np.int8:
        return int8_weights(RNG, *shape)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("zero_points", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_matmul_integer(zero_points: int, dtype: Any) -> None:
    zeros = [np.array(7, np.uint8), np.array([3], dtype)][:zero_points]
    inputs = [integers(np.uint8, 3, 4), integers(dtype, 4, 5), *zeros]
    for constants in ((1, 2, 3), ()):
        check("MatMulInteger", inputs, opset=10, constants=constants)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5))], ids=str)
def test_qlinear_matmul(dtype: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    scale, zero = np.array(0.02, np.float32), np.array(3, dtype)
    a, b = (integers(dtype, *s) for s in shapes)
    y_scale = np.array(0.1, np.float32)
    check("QLinearMatMul", [a, scale, zero, b, scale, zero, y_scale, zero], opset=10)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (2, 3, 1, 1)], ids=str)
def test_det(shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    check("Det", [x], opset=11, expected=[np.asarray(np.linalg.det(x))])
