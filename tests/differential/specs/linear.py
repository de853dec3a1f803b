"""Products, quantisation, losses."""

from typing import Any

import numpy as np
from onnx import helper

from ..draw import Const, Draw, Node, Skip, kind_of, limits
from ..engine import Row


def mat_mul_shapes(d: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a product: vectors, matrices, and stacks of them that broadcast."""
    n, k, m = (d.integer(1, 4) for _ in range(3))
    if d.chance(0.06):
        n = 0
    left, right = d.broadcast(2, 2)
    a = d.pick((k,), (n, k), (*left, n, k))
    b = d.pick((k,), (k, m), (*right, k, m))
    return a, b


def mat_mul(d: Draw) -> Node:
    a, b = mat_mul_shapes(d)
    return Node([d.x(a, "T", -3, 3), d.const(d.x(b, "T", -3, 3), 0.4)])


def gemm(d: Draw) -> Node:
    n, k, m = (d.integer(1, 4) for _ in range(3))
    attrs = d.attrs(transA=[0, 1], transB=[0, 1], alpha=[1.0, 0.5, 2.0], beta=[1.0, 0.5, 0.0])
    dtype = d.t("T")
    if kind_of(dtype) != "f":
        attrs |= {a: float(round(attrs[a])) for a in ("alpha", "beta") if a in attrs}
    a, b = (k, n) if attrs.get("transA") else (n, k), (m, k) if attrs.get("transB") else (k, m)
    inputs = [d.x(a, dtype, -3, 3), d.const(d.x(b, dtype, -3, 3), 0.5)]
    if d.opset >= 7:
        c = d.pick((n, m), (m,), (1, m), (n, 1), (1, 1), ())
        if d.opset < 11 or d.chance(0.7):
            inputs.append(d.const(d.x(c, dtype, -3, 3), 0.5))
        return Node(inputs, attrs)
    broadcast = d.chance(0.5)
    y = d.x((m,) if broadcast else (n, m), dtype, -3, 3)
    x, w = inputs[0], inputs[1].value if isinstance(inputs[1], Const) else inputs[1]
    left = x.T if attrs.get("transA") else x
    right = w.T if attrs.get("transB") else w
    want = attrs.get("alpha", 1.0) * (left @ right) + attrs.get("beta", 1.0) * y
    if broadcast:
        attrs["broadcast"] = 1
    return Node([*inputs, d.const(y, 0.5)], attrs, expected=[want.astype(dtype)])


def zero_point(d: Draw, shape: tuple[int, ...], dtype: Any) -> Any:
    least, most = limits(dtype)
    return d.x(shape, dtype, max(least, -5), min(most, 9))


def mat_mul_integer(d: Draw) -> Node:
    a, b = mat_mul_shapes(d)
    first, second = d.t("T1", common=0), d.t("T2", common=0)
    inputs: list[Any] = [d.x(a, first, -40, 60), d.const(d.x(b, second, -40, 60), 0.4)]
    if d.chance(0.7):
        inputs.append(zero_point(d, (), first))
        if d.chance(0.7):
            shape = d.pick((), (b[-1],)) if len(b) == 2 else ()
            inputs.append(d.const(zero_point(d, shape, second)))
    return Node(inputs)


def q_linear_mat_mul(d: Draw) -> Node:
    a, b = mat_mul_shapes(d)
    if len(a) < 2 or len(b) < 2:
        raise Skip("ONNX Runtime takes matrices only")
    names = ("T1", "T2", "T3")
    types = [d.t(n, "int8", "uint8", common=0) for n in names]
    scale = d.t("TS") if d.opset >= 21 else np.dtype(np.float32)
    inputs: list[Any] = []
    for shape, dtype in zip((a, b), types[:2], strict=True):
        inputs += [d.x(shape, dtype, -40, 60), d.const(d.x((), scale, 0.01, 0.1))]
        inputs.append(d.const(zero_point(d, (), dtype)))
    inputs += [d.const(d.x((), scale, 0.2, 0.9)), d.const(zero_point(d, (), types[2]))]
    return Node(inputs)


def along_axis(d: Draw, shape: tuple[int, ...], blocks: bool) -> tuple[tuple[int, ...], Any]:
    """The shape of scales: for all, for each place of an axis, or for each block of one."""
    rank = len(shape)
    if rank == 0 or d.chance(0.4):
        return (), {}
    axis = d.axis(rank)
    if blocks and d.chance(0.4):
        size = d.pick(*[b for b in range(1, shape[axis] + 1) if shape[axis] % b == 0])
        parts = list(shape)
        parts[axis] = shape[axis] // size
        return tuple(parts), {"axis": axis, "block_size": size}
    attrs = {} if axis == 1 and d.chance(0.5) else {"axis": axis}
    return (shape[axis],), attrs


def quantize(d: Draw) -> Node:
    shape = tuple(d.integer(1, 4) for _ in range(d.integer(0, 4)))
    scales, attrs = along_axis(d, shape, d.opset >= 21) if d.opset >= 13 else ((), {})
    x = d.t("T1")
    if kind_of(x) != "f":
        raise Skip("integers are quantised by no one")
    out = d.t("T3" if d.opset >= 23 else "T2", common=0)
    scale_type = d.t("T2") if d.opset >= 23 else x if d.opset >= 19 else np.dtype(np.float32)
    if d.opset < 23 and d.opset >= 19:
        scale_type = x
    if kind_of(scale_type) == "i":
        scale = d.x(scales, scale_type, 1, 4)
    else:
        # Powers of two: no quotient lies near a half but where it is one.
        scale = np.exp2(np.round(d.x(scales, "float64", -3, 1))).astype(scale_type)
    inputs = [d.x(shape, x, -60, 60), d.const(scale)]
    present = d.chance(0.6)
    if present or (d.opset < 21 and out.name != "uint8"):
        zero = np.zeros(scales, out) if kind_of(out) == "f" else zero_point(d, scales, out)
        inputs.append(d.const(zero))
    elif d.opset >= 21:
        attrs["output_dtype"] = int(helper.np_dtype_to_tensor_dtype(out))
    if d.opset >= 19 and kind_of(out) == "f" and out.name.startswith("float8"):
        attrs |= d.attrs(saturate=[0, 1])
    return Node(inputs, attrs)


def dequantize(d: Draw) -> Node:
    shape = tuple(d.integer(1, 4) for _ in range(d.integer(0, 4)))
    scales, attrs = along_axis(d, shape, d.opset >= 21) if d.opset >= 13 else ((), {})
    x = d.t("T1" if d.opset >= 19 else "T", common=0)
    scale_type = d.t("T2") if d.opset >= 19 else np.dtype(np.float32)
    scale = d.x(scales, "float32", 0.1, 2).astype(scale_type)
    inputs = [d.x(shape, x, -50, 60) if x.name != "int32" else d.x(shape, x), d.const(scale)]
    if d.chance(0.6):
        zero = zero_point(d, scales, x) if kind_of(x) != "f" else np.zeros(scales, x)
        inputs.append(np.zeros(scales, x) if x.name == "int32" else d.const(zero))
    if scale_type.name == "float8_e8m0fnu":
        # Its products are no powers of two.
        attrs["output_dtype"] = int(helper.np_dtype_to_tensor_dtype(d.t("T3", "float")))
    elif d.opset >= 23 and d.chance(0.4):
        out = d.t("T3")
        attrs["output_dtype"] = int(helper.np_dtype_to_tensor_dtype(out))
    return Node(inputs, attrs)


def dynamic_quantize(d: Draw) -> Node:
    shape = tuple(d.integer(1, 4) for _ in range(d.integer(1, 3)))
    low, high = d.pick((-3, 3), (0.5, 2), (-4, -1), (0, 0))
    return Node([d.x(shape, "T1", low, high)], {}, 3)


def einsum(d: Draw) -> Node:
    equation, ranks = d.pick(
        ("ij,jk->ik", ("ij", "jk")),
        ("ij->ji", ("ij",)),
        ("ii->i", ("ii",)),
        ("ii", ("ii",)),
        ("ij->", ("ij",)),
        ("i,j->ij", ("i", "j")),
        ("bij,bjk->bik", ("bij", "bjk")),
        ("...ij,...jk->...ik", ("bij", "bjk")),
        ("...ij->...ji", ("bcij",)),
        ("ij,jk", ("ij", "jk")),
        ("ba,cb", ("ba", "cb")),
        ("bij,bj->b", ("bij", "bj")),
        (" i j , j k -> k i ", ("ij", "jk")),
        ("ij,jk,kl->il", ("ij", "jk", "kl")),
        ("b...i,i->b...", ("bcji", "i")),
    )
    sizes = {c: d.integer(1, 4) for c in "abcijkl"}
    dtype = d.t("T")
    inputs = [d.x([sizes[c] for c in r], dtype, -3, 3) for r in ranks]
    return Node(inputs, {"equation": equation})


def det(d: Draw) -> Node:
    n = d.integer(1, 4)
    return Node(
        [d.x((*d.shape(0, 2), n, n), "T", -2, 2)], rtol=1e-2 if d.t("T").itemsize == 2 else 1e-4
    )


def loss(d: Draw) -> Node:
    classes = d.integer(2, 5)
    tail = tuple(d.integer(1, 3) for _ in range(d.integer(0, 3)))
    n = d.integer(1, 4)
    dtype = d.t("T")
    x = d.x((n, classes, *tail), dtype, -3, 3)
    target = d.x((n, *tail), d.t("Tind", common=0), 0, classes - 1)
    attrs = d.attrs(reduction=["mean", "sum", "none"])
    if d.chance(0.4):
        attrs["ignore_index"] = d.pick(0, 1, -1)
        target[d.rng.random(target.shape) < 0.3] = attrs["ignore_index"]
    kept = target != attrs.get("ignore_index", -100)
    if attrs.get("reduction", "mean") == "mean" and not kept.any():
        raise Skip("a mean of nothing")
    inputs = [x, target]
    if d.chance(0.5):
        inputs.append(d.const(d.x((classes,), dtype, 0.2, 2)))
    several = d.op_type == "SoftmaxCrossEntropyLoss" and d.chance(0.4)
    return Node(inputs, attrs, 2 if several else 1)


ROWS = {
    "MatMul": Row(mat_mul),
    "Gemm": Row(gemm),
    "MatMulInteger": Row(mat_mul_integer),
    "QLinearMatMul": Row(q_linear_mat_mul),
    "QuantizeLinear": Row(quantize),
    "DequantizeLinear": Row(dequantize),
    "DynamicQuantizeLinear": Row(dynamic_quantize),
    "Einsum": Row(einsum),
    "Det": Row(det),
    "NegativeLogLikelihoodLoss": Row(loss),
    "SoftmaxCrossEntropyLoss": Row(loss),
}
