"""Elementwise operators."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnx2nn.tensors import numpy_dtype

from ..draw import Const, Draw, Node, Skip, kind_of, limits
from ..engine import Row

Alphas = Sequence[float]


def unary(
    low: float | None = None, high: float | None = None, **attrs: Alphas
) -> Callable[[Draw], Node]:
    """One input, one output; float attributes take one of these values."""

    def draw(d: Draw) -> Node:
        param = d.schema.inputs[0].type_str
        if low is not None and not d.special:
            x = d.x(d.shape(), param, low, high)
        else:
            x = d.x(d.shape(), param)
        chosen = d.attrs(**attrs)
        if d.opset < 6 and "consumed_inputs" in d.schema.attributes and d.chance(0.3):
            chosen["consumed_inputs"] = [0]
        return Node([x], chosen)

    return draw


def legacy(d: Draw, f: Callable[[Any, Any], Any], x: Any, wanted: Any) -> Node:
    """The second operand aligned with the first from an axis on, as before opset 7."""
    rank = x.ndim
    if d.chance(0.25):
        y = d.x(x.shape, x.dtype, *wanted)
        return Node([x, d.pick(y, Const(y))], d.pick({}, {"broadcast": 0}), expected=[f(x, y)])
    length = d.integer(0, rank)
    axis = d.integer(0, rank - length) if d.chance(0.6) else None
    start = rank - length if axis is None else axis
    shape = tuple(1 if d.chance(0.15) else s for s in x.shape[start : start + length])
    y = d.x(shape, x.dtype, *wanted)
    aligned = y.reshape(shape + (1,) * (rank - start - length))
    attrs = {"broadcast": 1}
    if axis is not None:
        attrs["axis"] = axis - (rank if d.chance(0.2) and rank else 0)
    # A scalar needs no axis.
    if length == 0:
        attrs.pop("axis", None)
        aligned = y
    return Node([x, d.pick(y, Const(y))], attrs, expected=[np.asarray(f(x, aligned))])


def binary(
    f: Callable[[Any, Any], Any],
    *only: str,
    first: Sequence[float | None] = (None, None),
    second: Sequence[float | None] = (None, None),
) -> Callable[[Draw], Node]:
    """Two inputs that broadcast; f says what opsets before 7 gave."""

    def draw(d: Draw) -> Node:
        dtype = d.t("T", *only)
        if d.opset < 7:
            x = d.x(d.shape(), dtype, *(first if not d.special else (None, None)))
            return legacy(d, f, x, second)
        a, b = d.broadcast(2)
        x, y = d.x(a, dtype, *first), d.x(b, dtype, *second)
        inputs: list[Any] = [x, y]
        if d.chance(0.3):
            k = d.integer(0, 1)
            inputs[k] = Const(inputs[k])
        return Node(inputs)

    return draw


def divide(x: Any, y: Any) -> Any:
    return (x / y).astype(x.dtype) if kind_of(x.dtype) == "f" else np.trunc(x / y).astype(x.dtype)


def div(d: Draw) -> Node:
    dtype = d.t("T")
    if kind_of(dtype) == "f":
        return binary(divide)(d)
    if d.opset < 7:
        d.special = False
        return binary(divide, second=(1, 9))(d)
    a, b = d.broadcast(2)
    y = d.x(b, dtype)
    x = d.x(a, dtype)
    y = np.where(y == 0, np.asarray(3, dtype), y)
    if kind_of(dtype) == "i":
        # The least number over -1 does not fit.
        y = np.where(y == -1, np.asarray(2, dtype), y)
    y = np.asarray(y).astype(dtype)
    return Node([x, d.pick(y, Const(y))])


def mod(d: Draw) -> Node:
    dtype = d.t("T")
    fmod = 1 if kind_of(dtype) == "f" and d.opset < 28 else d.integer(0, 1)
    a, b = d.broadcast(2)
    x, y = d.x(a, dtype), d.x(b, dtype)
    if kind_of(dtype) != "f":
        y = np.where(y == 0, np.asarray(3, dtype), y)
        if kind_of(dtype) == "i":
            y = np.where(y == -1, np.asarray(2, dtype), y)
        y = np.asarray(y).astype(dtype)
    attrs = {"fmod": fmod} if fmod or d.chance(0.5) else {}
    return Node([x, d.pick(y, Const(y))], attrs)


def power(d: Draw) -> Node:
    if d.opset < 7:
        x = d.x(d.shape(), "T", 0.2, 3)
        return legacy(d, lambda a, b: np.power(a, b).astype(a.dtype), x, (-2, 3))
    base = d.t("T")
    exponent = d.t("T1") if d.opset >= 12 else base
    a, b = d.broadcast(2)
    x = d.x(a, base) if kind_of(base) == "f" else d.x(a, base, -5, 5)
    y = d.x(b, exponent, -3, 3) if kind_of(exponent) == "f" else d.x(b, exponent, 0, 4)
    if kind_of(base) != "f" and kind_of(exponent) == "f":
        x, y = d.x(a, base, 1, 5), d.x(b, exponent, 0, 3)
        y = np.round(y.astype(np.float64)).astype(exponent)
    elif d.chance(0.4):
        y = np.round(y.astype(np.float64)).astype(exponent) if kind_of(exponent) == "f" else y
    if d.chance(0.3):
        y = np.full(d.pick((), (1,)), d.pick(0, 1, 2, 3, 0.5, -1, -0.5, 1.5)).astype(exponent)
        if kind_of(exponent) in "iu" or kind_of(base) != "f":
            y = np.abs(np.trunc(y.astype(np.float64))).astype(exponent)
    return Node([x, d.pick(y, Const(y))], rtol=2e-2 if "16" in base.name else None)


def several(d: Draw) -> Node:
    count = d.integer(1, 4)
    dtype = d.t("T")
    if d.opset < 8:
        shape = d.shape()
        shapes = [shape] * count
    else:
        shapes = d.broadcast(count)
    inputs: list[Any] = [d.x(s, dtype) for s in shapes]
    if d.chance(0.3):
        k = d.integer(0, count - 1)
        inputs[k] = Const(inputs[k])
    attrs = {}
    if "consumed_inputs" in d.schema.attributes and d.chance(0.3):
        attrs["consumed_inputs"] = [0] * count
    if d.opset >= 6:
        return Node(inputs, attrs)
    plain = [x.value if isinstance(x, Const) else x for x in inputs]
    ways = {"Max": np.maximum, "Min": np.minimum, "Sum": np.add, "Mean": np.add}
    with np.errstate(all="ignore"):
        want = functools.reduce(ways[d.op_type], plain)
        want = want / count if d.op_type == "Mean" else want
    return Node(inputs, attrs, expected=[np.asarray(want).astype(plain[0].dtype)])


def shift(d: Draw) -> Node:
    dtype = d.t("T")
    a, b = d.broadcast(2)
    bits = dtype.itemsize * 8
    x = d.x(a, dtype) if d.chance(0.5) else d.x(a, dtype, 0, 100)
    y = d.x(b, dtype, 0, bits - 1)
    return Node([x, d.pick(y, Const(y))], {"direction": d.pick("LEFT", "RIGHT")})


def clip(d: Draw) -> Node:
    if d.opset < 11:
        attrs = d.attrs(min=[-1.0, 0.0, 0.5, -3.0], max=[1.0, 6.0, 0.75, -2.0])
        x = d.x(d.shape(), "T")
        if d.opset >= 6:
            return Node([x], attrs)
        want = np.clip(x, attrs.get("min", -np.inf), attrs.get("max", np.inf)).astype(x.dtype)
        return Node([x], attrs, expected=[np.asarray(want)])
    dtype = d.t("T")
    x = d.x(d.shape(), dtype)
    least = d.maybe(d.x((), dtype, -3 if kind_of(dtype) != "u" else 1, 2))
    most = d.maybe(d.x((), dtype, 0, 5))
    fixed = d.chance(0.5)
    bounds = [v if v is None or not fixed else Const(v) for v in (least, most)]
    return Node([x, *bounds])


def prelu(d: Draw) -> Node:
    dtype = d.t("T")
    x = d.x(d.shape(1), dtype)
    if d.opset < 7:
        slope = d.x((1,) if x.ndim < 2 or d.chance(0.5) else (x.shape[1],), dtype, -1, 2)
        wide = slope.reshape(slope.shape + (1,) * max(x.ndim - 2, 0))
        with np.errstate(all="ignore"):
            want = np.where(x < 0, x * wide, x).astype(dtype)
        return Node([x, d.const(slope)], expected=[want])
    slope = d.x(d.into(x.shape), dtype)
    return Node([x, d.const(slope)])


def where(d: Draw) -> Node:
    a, b, c = d.broadcast(3)
    x, y = d.x(b, "T"), d.x(c, "T")
    return Node([d.x(a, "B"), d.pick(x, Const(x)), d.pick(y, Const(y))])


def selu(d: Draw) -> Node:
    x = d.x(d.shape(), "T", -4, 4)
    # The reference takes the newer defaults for opset 1 too.
    defaults = {"alpha": 1.6732, "gamma": 1.0507} if d.opset < 6 else {}
    attrs = d.attrs(alpha=[1.6732631921768188, 0.5, 2.0], gamma=[1.05, 0.5, 2.0])
    if not defaults:
        return Node([x], attrs)
    a, g = ((defaults | attrs)[k] for k in ("alpha", "gamma"))
    wide = x.astype(np.float64)
    want = g * np.where(wide > 0, wide, a * np.expm1(wide))
    return Node([x], attrs, expected=[np.asarray(want).astype(x.dtype)])


def gelu(d: Draw) -> Node:
    return Node([d.x(d.shape(), "T")], d.attrs(approximate=["none", "tanh"]))


def hard_swish(d: Draw) -> Node:
    # F.hardswish multiplies first, which overflows above 5.7e37.
    return Node([d.x(d.shape(), "T", -7, 7)])


def bits_of(dtype: Any) -> int:
    narrow = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
    return narrow.get(dtype.name, 8 * dtype.itemsize)


def bit_cast(d: Draw) -> Node:
    source = d.t("T1")
    names = [n for n in d.allowed("T2") if not n.startswith("float6") and n != "object"]
    same = [n for n in names if bits_of(numpy_dtype(n)) == bits_of(source)]
    if kind_of(source) == "s":
        raise Skip("strings have no bits")
    target = numpy_dtype(d.pick(*same))
    if "bool" in (source.name, target.name):
        raise Skip("not every byte is a bool")
    return Node([d.x(d.shape(), source)], {"to": helper.np_dtype_to_tensor_dtype(target)})


def swiglu(d: Draw) -> Node:
    shape = d.shape()
    return Node([d.x(shape, "T"), d.x(shape, "T")], d.attrs(alpha=[1.0, 0.5, 1.702]))


def affine(d: Draw) -> Node:
    x = d.x(d.shape(), "float32")
    attrs = d.attrs(alpha=[1.0, -0.5, 2.0], beta=[0.0, 0.25, -3.0])
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 0.0)
    with np.errstate(all="ignore"):
        want = (x * np.asarray(alpha, x.dtype) + np.asarray(beta, x.dtype)).astype(x.dtype)
    return Node([x], attrs, expected=[np.asarray(want)])


def scale(d: Draw) -> Node:
    return Node([d.x(d.shape(), "float32")], d.attrs(scale=[1.0, -0.5, 3.0]))


def scaled_activation(d: Draw) -> Node:
    attrs = {"alpha": d.pick(1.0, -0.5, 2.0), "beta": d.pick(1.0, 0.5, -3.0)}
    return Node([d.x(d.shape(), "float32", special=False)], attrs)


def cast_like(d: Draw) -> Node:
    node = cast_values(d, d.t("T1", common=0.3), d.t("T2", common=0.1))
    target = d.t("T2")
    like = d.x(d.shape(), target, special=False)
    return Node([node[0], like], node[1], **node[2])


def cast_values(d: Draw, source: Any, target: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """What to cast, attributes, and options: values outside the target only where that is defined."""
    shape = d.shape()
    attrs: dict[str, Any] = {}
    kind, to = kind_of(source), kind_of(target)
    if target.name.startswith("float8") and d.opset >= 19:
        attrs = d.attrs(saturate=[0, 1])
        if target.name == "float8_e8m0fnu" and d.opset >= 24:
            attrs |= d.attrs(round_mode=["up", "down", "nearest"])
    if kind == "s":
        low, high = (-100, 100) if to in "fc" else (0 if to in "ub" else -8, 7)
        if target.name.endswith("t2"):
            low, high = (0, 3) if to == "u" else (-2, 1)
        if to == "b":
            low, high = 0, 1
        numbers = (
            d.rng.uniform(low, high, shape) if to in "fc" else d.rng.integers(low, high, shape)
        )
        flat = [
            str(round(float(v), 3)) if to in "fc" else str(v)
            for v in np.asarray(numbers).reshape(-1)
        ]
        if to == "f" and d.special:
            flat = [d.pick(s, "NaN", "INF", "-INF", "+INF", "1e-5", "1E8") for s in flat]
        x = np.empty(shape, object)
        x.reshape(-1)[:] = flat
        return x, attrs, {}
    if to == "s" and (
        source.name in ("bool", "bfloat16", "float16") or source.name.startswith("float8")
    ):
        raise Skip("how these are spelt differs between the oracles")
    if to == "s":
        return d.x(shape, source, special=False), attrs, {}
    if target.name == "float8_e8m0fnu":
        # It has no sign: what becomes of one is not said.
        return d.x(shape, source, 0, 9), attrs, {}
    if kind == "f" and to in "iu" and target.name[-1] in "24" and "64" not in target.name:
        # ONNX Runtime rounds where the reference truncates; the text leaves it open.
        low, high = limits(target)
        return d.x(shape, d.x(shape, "int8", low, high).dtype, low, high).astype(source), attrs, {}
    if kind == "f" and to in "iu":
        low, high = limits(target)
        least = -7.9 if low < -8 else float(low)
        most = 100.9 if high > 100 else float(high)
        return d.x(shape, source, least if to == "i" else 0, most), attrs, {}
    return d.x(shape, source), attrs, {}


def cast(d: Draw) -> Node:
    source, target = d.t("T1", common=0.3), d.t("T2", common=0.1)
    x, attrs, options = cast_values(d, source, target)
    kind = 8 if kind_of(target) == "s" else helper.np_dtype_to_tensor_dtype(target)
    attrs["to"] = int(kind)
    if d.opset < 6:
        attrs["to"] = onnx.TensorProto.DataType.Name(attrs["to"])
        with np.errstate(all="ignore"):
            options["expected"] = [np.asarray(x.astype(target))]
    return Node([x], attrs, **options)


def dropout(d: Draw) -> Node:
    x = d.x(d.shape(), "T")
    outputs = d.pick(1, 2)
    if d.opset < 12:
        # What the mask holds where nothing is dropped was not said before opset 12.
        outputs = 1
        attrs = d.attrs(ratio=[0.5, 0.1, 0.0])
        if d.opset < 7:
            attrs["is_test"] = 1
        return Node([x], attrs, outputs, expected=[x] if d.opset < 7 else None)
    dtype = d.t("T")
    ratio = d.maybe(np.asarray(d.pick(0.0, 0.5, 0.9), dtype if d.opset < 13 else d.t("T1")))
    training = d.maybe(np.asarray(False))
    if ratio is not None and float(ratio) == 0.0 and d.chance(0.5):
        training = np.asarray(True)
    inputs = [x, d.const(ratio) if ratio is not None else None]
    return Node([*inputs, d.const(training) if training is not None else None], {}, outputs)


def _logic(f: Callable[[Any, Any], Any]) -> Callable[[Draw], Node]:
    return binary(f)


def _cmp(f: Callable[[Any, Any], Any]) -> Callable[[Draw], Node]:
    return binary(f)


def _arith(f: Callable[[Any, Any], Any]) -> Callable[[Draw], Node]:
    return binary(lambda a, b: f(a, b).astype(a.dtype))


_CASTS = (
    "ONNX Runtime rounds a float to four or two bits, and differs from the reference in float8e8m0"
)

ROWS = {
    name: Row(unary())
    for name in (
        "Abs",
        "Ceil",
        "Cos",
        "Sin",
        "Exp",
        "Floor",
        "Identity",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "Erf",
        "Mish",
        "Atan",
        "Asinh",
        "Sinh",
        "Cosh",
        "Tan",
        "Log",
        "IsNaN",
        "BitwiseNot",
    )
} | {
    "HardSwish": Row(hard_swish),
    "Acos": Row(unary(-1, 1)),
    "Asin": Row(unary(-1, 1)),
    "Atanh": Row(unary(-0.99, 0.99)),
    "Acosh": Row(unary(1, 9)),
    "Elu": Row(unary(alpha=[1.0, 0.5, 2.0, -1.0])),
    "Celu": Row(unary(alpha=[1.0, 0.5, 2.0])),
    "Selu": Row(selu),
    "LeakyRelu": Row(unary(alpha=[0.01, 0.5, -0.5, 2.0])),
    "ThresholdedRelu": Row(unary(alpha=[1.0, 0.0, -1.0, 2.0])),
    "HardSigmoid": Row(unary(alpha=[0.2, 0.5, 1.0], beta=[0.5, 0.0, 1.0])),
    "Shrink": Row(unary(lambd=[0.5, 1.5, 0.0], bias=[0.0, 1.0, -0.5])),
    "Swish": Row(unary(alpha=[1.0, 0.5, 1.702])),
    # The reference rounds every step to a half.
    # The reference's constants are float32.
    "Gelu": Row(gelu, rtol={"float16": 0.15, "bfloat16": 0.3, "float64": 1e-4}),
    "IsInf": Row(unary(detect_negative=[0, 1], detect_positive=[0, 1])),
    "Add": Row(_arith(np.add)),
    "Sub": Row(_arith(np.subtract)),
    "Mul": Row(_arith(np.multiply)),
    "Div": Row(div),
    "Mod": Row(mod),
    "Pow": Row(power),
    "And": Row(_logic(np.logical_and)),
    "Or": Row(_logic(np.logical_or)),
    "Xor": Row(_logic(np.logical_xor)),
    "Equal": Row(_cmp(np.equal)),
    "Less": Row(_cmp(np.less)),
    "Greater": Row(_cmp(np.greater)),
    "LessOrEqual": Row(_cmp(np.less_equal)),
    "GreaterOrEqual": Row(_cmp(np.greater_equal)),
    "BitwiseAnd": Row(binary(np.bitwise_and)),
    "BitwiseOr": Row(binary(np.bitwise_or)),
    "BitwiseXor": Row(binary(np.bitwise_xor)),
    "BitShift": Row(shift),
    "Max": Row(several),
    "Min": Row(several),
    "Sum": Row(several),
    "Mean": Row(several),
    "Clip": Row(
        clip,
        judge="either",
        reason="ONNX Runtime clips infinity to the largest number where a bound is absent",
    ),
    "PRelu": Row(prelu),
    "Where": Row(where),
    "BitCast": Row(bit_cast),
    "SwiGLU": Row(swiglu),
    "Affine": Row(affine),
    "ParametricSoftplus": Row(scaled_activation),
    "Scale": Row(scale),
    "ScaledTanh": Row(scaled_activation),
    "Cast": Row(cast, judge="either", reason=_CASTS),
    "CastLike": Row(cast_like, judge="either", reason=_CASTS),
    "Dropout": Row(dropout),
}
