"""com.microsoft: quantised elementwise operators, poolings, convolutions, products and LSTM."""

from typing import Any

import numpy as np
from onnx import TensorProto

from .one_node import Case, Rng, Spec, f32, integers, scalar, specification

SPECS: list[Spec] = []
spec = specification(SPECS, "com.microsoft")

BYTES = [np.uint8, np.int8]


def some_zero(rng: Rng, dtype: Any) -> Any:
    """A zero point near the middle of the type. ONNX Runtime refuses those that are absent."""
    middle = 128 if dtype == np.uint8 else 0
    return scalar(middle + int(rng.integers(-20, 20)), dtype)


def tensor(rng: Rng, dtype: Any, *shape: int, scale: float = 0.02) -> list[Any]:
    """A quantised tensor with its scale and its zero point."""
    return [np.array(integers(rng, dtype, *shape)), scalar(scale), some_zero(rng, dtype)]


# ---------------------------------------------------------------- elementwise

PAIRS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((2, 1, 4), (3, 1)),
    ((), (2, 3)),
    ((0, 3), (3,)),
    ((40,), (1,)),
]


@spec(
    "QLinearAdd",
    "QLinearMul",
    dtype=BYTES,
    shapes=PAIRS,
    scale=[0.05, 0.011],
    constant=[False, True],
    dynamic=[False, True],
)
def qlinear_binary(
    rng: Rng, *, dtype: Any, shapes: Any, scale: float, constant: bool, dynamic: bool
) -> Case:
    x = [
        *tensor(rng, dtype, *shapes[0]),
        *tensor(rng, dtype, *shapes[1], scale=0.013),
        scalar(scale),
        some_zero(rng, dtype),
    ]
    constants = [1, 2, 4, 5, 6, 7] if constant else []
    return Case(x, constants=constants, dynamic=dynamic, steps=1)


@spec(
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    dtype=BYTES,
    shape=[(30,), (2, 3, 5), (), (0, 2)],
    alpha=[None, 0.2],
    constant=[False, True],
)
def qlinear_unary(
    rng: Rng,
    *,
    op_type: str,
    dtype: Any,
    shape: tuple[int, ...],
    alpha: float | None,
    constant: bool,
) -> Case | None:
    leaky = op_type == "QLinearLeakyRelu"
    if alpha is not None and not leaky:
        return None
    x = [*tensor(rng, dtype, *shape), scalar(0.03 if leaky else 1 / 256)]
    x.append(some_zero(rng, dtype))
    attrs = {"alpha": alpha} if alpha is not None else {}
    return Case(x, attrs, constants=[1, 2, 3, 4] if constant else [], steps=1)


@spec(
    "QLinearSoftmax",
    dtype=BYTES,
    shape=[(30,), (2, 3, 5), (4, 6)],
    opset=[11, 13],
    axis=[0, 1, -1, 2],
)
def qlinear_softmax(
    rng: Rng, *, dtype: Any, shape: tuple[int, ...], opset: int, axis: int
) -> Case | None:
    if axis >= len(shape):
        return None
    low = scalar(0 if dtype == np.uint8 else -128, dtype)
    x = [*tensor(rng, dtype, *shape), scalar(1 / 256), low]
    return Case(x, {"opset": opset, "axis": axis}, constants=[1, 2, 3, 4], steps=1)


@spec("QLinearConcat", dtype=BYTES, axis=[0, 1, -1], parts=[1, 2, 3], constant=[False, True])
def qlinear_concat(rng: Rng, *, dtype: Any, axis: int, parts: int, constant: bool) -> Case:
    x: list[Any] = [scalar(0.03), some_zero(rng, dtype)]
    for i in range(parts):
        shape = [2, 3, 4]
        shape[axis] += i
        x += tensor(rng, dtype, *shape, scale=0.01 * (i + 2))
    known = [i for i in range(len(x)) if i < 2 or (i - 2) % 3]
    return Case(x, {"axis": axis}, constants=known if constant else [], steps=1)


@spec("QLinearWhere", dtype=BYTES, shapes=PAIRS[:4], same=[False, True])
def qlinear_where(rng: Rng, *, dtype: Any, shapes: Any, same: bool) -> Case:
    condition = np.array(rng.random(np.broadcast_shapes(*shapes)) > 0.5)
    first = tensor(rng, dtype, *shapes[0])
    second = tensor(rng, dtype, *shapes[1], scale=0.03)
    out = [first[1], first[2]] if same else [scalar(0.04), some_zero(rng, dtype)]
    return Case([condition, *first, *second, *out], steps=1)


# ---------------------------------------------------------------- poolings and convolutions


@spec(
    "QLinearAveragePool",
    dtype=BYTES,
    kernel=[(3, 3), (2, 3), (1, 1)],
    stride=[None, 1, 2],
    pad=[None, "even", "SAME_UPPER", "VALID"],
    ceil=[0, 1],
    include=[0, 1],
    last=[0, 1],
)
def qlinear_average_pool(
    rng: Rng,
    *,
    dtype: Any,
    kernel: tuple[int, int],
    stride: int | None,
    pad: str | None,
    ceil: int,
    include: int,
    last: int,
) -> Case | None:
    if pad == "even" and kernel == (1, 1):
        return None
    if ceil and pad is not None and pad != "even":
        return None
    attrs: dict[str, Any] = {"kernel_shape": kernel, "ceil_mode": ceil, "channels_last": last}
    attrs["count_include_pad"] = include
    if stride is not None:
        attrs["strides"] = [stride, stride]
    if pad == "even":
        attrs["pads"] = [1, 1, 1, 1]
    elif pad is not None:
        attrs["auto_pad"] = pad
    shape = (2, 7, 8, 3) if last else (2, 3, 7, 8)
    x = [*tensor(rng, dtype, *shape), scalar(0.015), some_zero(rng, dtype)]
    return Case(x, attrs, steps=1)


@spec("QLinearGlobalAveragePool", dtype=BYTES, last=[0, 1], sizes=[(5, 6), (1, 1), (3,)])
def qlinear_global_pool(rng: Rng, *, dtype: Any, last: int, sizes: tuple[int, ...]) -> Case:
    shape = (2, *sizes, 3) if last else (2, 3, *sizes)
    x = [*tensor(rng, dtype, *shape), scalar(0.015), some_zero(rng, dtype)]
    return Case(x, {"channels_last": last}, steps=1)


@spec(
    "QLinearConv",
    dtype=BYTES,
    weight=BYTES,
    last=[0, 1],
    stride=[1, 2],
    dilation=[1, 2],
    pad=[None, "even", "SAME_UPPER", "VALID"],
    group=[1, 2, 4],
    bias=[False, True],
    columns=[False, True],
    constant=[False, True],
)
def qlinear_conv(
    rng: Rng,
    *,
    dtype: Any,
    weight: Any,
    last: int,
    stride: int,
    dilation: int,
    pad: str | None,
    group: int,
    bias: bool,
    columns: bool,
    constant: bool,
) -> Case | None:
    if (dtype == np.int8 and weight == np.uint8) or (pad == "SAME_UPPER" and dilation == 2):
        return None
    # Weights of 7 bits: products of 8 x 8 bits saturate in ONNX Runtime without VNNI.
    w = rng.integers(-64, 64, (8, 4 // group, 3, 3)) + (64 if weight == np.uint8 else 0)
    scales = rng.uniform(0.005, 0.02, 8 if columns else ()).astype(np.float32)
    zero = np.full(8 if columns else (), 60 if weight == np.uint8 else 0, weight)
    attrs: dict[str, Any] = {"channels_last": last, "strides": [stride] * 2, "group": group}
    attrs["dilations"] = [dilation] * 2
    if pad == "even":
        attrs["pads"] = [1, 1, 1, 1]
    elif pad is not None:
        attrs["auto_pad"] = pad
    shape = (2, 7, 8, 4) if last else (2, 4, 7, 8)
    x = [
        *tensor(rng, dtype, *shape),
        w.astype(weight),
        scales,
        zero,
        scalar(0.3),
        some_zero(rng, dtype),
        rng.integers(-900, 900, 8).astype(np.int32) if bias else None,
    ]
    return Case(x, attrs, constants=[1, 2, 3, 4, 5, 6, 7, 8] if constant else [], steps=1)


# ---------------------------------------------------------------- products


@spec(
    "QGemm",
    weight=BYTES,
    trans_a=[0, 1],
    trans_b=[0, 1],
    alpha=[None, 0.5],
    bias=[None, (5,), (3, 5), (1, 5)],
    columns=[False, True],
    out=[False, True],
    constant=[False, True],
)
def qgemm(
    rng: Rng,
    *,
    weight: Any,
    trans_a: int,
    trans_b: int,
    alpha: float | None,
    bias: tuple[int, ...] | None,
    columns: bool,
    out: bool,
    constant: bool,
) -> Case:
    a, a_scale, a_zero = tensor(rng, np.uint8, 3, 8)
    b = (rng.integers(-64, 64, (8, 5)) + (64 if weight == np.uint8 else 0)).astype(weight)
    many = 5 if columns else ()
    x = [
        a.T if trans_a else a,
        a_scale,
        a_zero,
        b.T if trans_b else b,
        rng.uniform(0.005, 0.02, many).astype(np.float32),
        np.array(rng.integers(0, 9, many), weight),
        None if bias is None else rng.integers(-99, 99, bias).astype(np.int32),
        *([scalar(0.2), scalar(120, np.uint8)] if out else []),
    ]
    attrs: dict[str, Any] = {"transA": trans_a, "transB": trans_b}
    if alpha is not None:
        attrs["alpha"] = alpha
    constants = [3, 4, 5] if constant else []
    return Case(x, attrs, constants=constants, steps=1, rtol=1e-3, atol=1e-3)


@spec(
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    left=BYTES,
    weight=BYTES,
    shape=[(3, 8), (2, 3, 8), (1, 8)],
    columns=[False, True],
    zeros=[False, True],
    bias=[False, True],
    constant=[False, True],
)
def product_to_float(
    rng: Rng,
    *,
    op_type: str,
    left: Any,
    weight: Any,
    shape: tuple[int, ...],
    columns: bool,
    zeros: bool,
    bias: bool,
    constant: bool,
) -> Case | None:
    b = (rng.integers(-64, 64, (8, 5)) + (64 if weight == np.uint8 else 0)).astype(weight)
    many = 5 if columns else ()
    scales = rng.uniform(0.005, 0.02, many).astype(np.float32)
    zero = np.array(rng.integers(0, 9, many), weight) if zeros else None
    added = f32(rng, 5) if bias else None
    if op_type == "DynamicQuantizeMatMul":
        if left != np.uint8:
            return None
        x: list[Any] = [f32(rng, *shape), b, scales, zero, added]
        return Case(x, constants=[1, 2, 3] if constant else [], rtol=1e-3, atol=1e-3)
    if left == np.int8 and weight == np.uint8:
        return None
    a = tensor(rng, left, *shape)
    x = [a[0], b, a[1], scales, a[2] if zeros else None, zero, added]
    return Case(x, constants=[1, 3, 5] if constant else [], rtol=1e-3, atol=1e-3)


@spec(
    "MatMulNBits",
    bits=[2, 4, 8],
    k=[64, 32, 48, 70],
    n=[1, 6],
    block=[16, 32, 64],
    zeros=[None, "packed", "float"],
    bias=[False, True],
    groups=[False, False, True],
    batch=[(3,), (2, 3), (1,)],
    accuracy=[None, 0, 1, 4, 4],
    constant=[True, True, False],
)
def matmul_nbits(
    rng: Rng,
    *,
    bits: int,
    k: int,
    n: int,
    block: int,
    zeros: str | None,
    bias: bool,
    groups: bool,
    batch: tuple[int, ...],
    accuracy: int | None,
    constant: bool,
) -> Case | None:
    blocks = -(-k // block)
    if zeros == "float" and bits != 4:
        return None
    if groups and (bits != 4 or bias):
        return None
    x: list[Any] = [
        f32(rng, *batch, k),
        integers(rng, np.uint8, n, blocks, block * bits // 8),
        rng.uniform(0.01, 0.1, (n, blocks)).astype(np.float32),
        None,
        None,
        f32(rng, n) if bias else None,
    ]
    if zeros == "packed":
        x[3] = integers(rng, np.uint8, n, -(-blocks * bits // 8))
    elif zeros == "float":
        x[3] = rng.uniform(0, 15, (n, blocks)).astype(np.float32)
    if groups:
        x[4] = (np.arange(k) // block).astype(np.int32)
    attrs: dict[str, Any] = {"K": k, "N": n, "block_size": block, "bits": bits}
    if accuracy is not None:
        attrs["accuracy_level"] = accuracy
    return Case(x, attrs, constants=[1, 2, 3, 4, 5] if constant else [], rtol=1e-3, atol=1e-3)


@spec(
    "GatherBlockQuantized",
    bits=[2, 4, 8],
    block=[16, 32],
    zeros=[False, True],
    index=[np.int32, np.int64],
    shape=[(3,), (2, 3), ()],
    constant=[True, False],
)
def gather_block_quantized(
    rng: Rng,
    *,
    bits: int,
    block: int,
    zeros: bool,
    index: Any,
    shape: tuple[int, ...],
    constant: bool,
) -> Case:
    groups = 64 // block
    x = [
        integers(rng, np.uint8, 10, 64 * bits // 8),
        # Rows of a constant table are an nn.Embedding's, as token ids are never negative.
        np.array(rng.integers(0 if constant else -10, 10, shape), index),
        rng.uniform(0.01, 0.1, (10, groups)).astype(np.float32),
        integers(rng, np.uint8, 10, -(-groups * bits // 8)) if zeros else None,
    ]
    attrs = {"block_size": block, "bits": bits, "gather_axis": 0, "quantize_axis": 1}
    return Case(x, attrs, constants=[0, 2, 3] if constant else [])


@spec(
    "DynamicQuantizeLSTM",
    direction=["forward", "reverse", "bidirectional"],
    weight=BYTES,
    columns=[False, True],
    bias=[False, True],
    lengths=[False, True],
    states=[False, True],
    peepholes=[False, True],
    clip=[None, 0.5],
    outputs=[1, 3],
)
def dynamic_quantize_lstm(
    rng: Rng,
    *,
    direction: str,
    weight: Any,
    columns: bool,
    bias: bool,
    lengths: bool,
    states: bool,
    peepholes: bool,
    clip: float | None,
    outputs: int,
) -> Case:
    n, hidden, width, steps, batch = 2 if direction == "bidirectional" else 1, 3, 4, 5, 2
    middle = 64 if weight == np.uint8 else 0

    def whole(*shape: int) -> Any:
        return (rng.integers(-64, 64, shape) + middle).astype(weight)

    many = (n, 4 * hidden) if columns else (n,)
    scales = rng.uniform(0.005, 0.02, many).astype(np.float32)
    zeros = np.full(many, middle, weight)
    x = [
        f32(rng, steps, batch, width),
        whole(n, width, 4 * hidden),
        whole(n, hidden, 4 * hidden),
        f32(rng, n, 8 * hidden) if bias else None,
        np.array([steps, 3], np.int32) if lengths else None,
        f32(rng, n, batch, hidden) if states else None,
        f32(rng, n, batch, hidden) if states else None,
        f32(rng, n, 3 * hidden) if peepholes else None,
        scales,
        zeros,
        scales,
        zeros,
    ]
    attrs: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    if clip is not None:
        attrs["clip"] = clip
    return Case(x, attrs, outputs=outputs, constants=[1, 2, 8, 9, 10, 11], rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- quantise and restore

KINDS = [np.uint8, np.int8, np.uint16, np.int16]


@spec(
    "QuantizeLinear",
    "DequantizeLinear",
    dtype=KINDS,
    axis=[None, 0, 1, -1],
    zero=[True, True, False],
    shape=[(2, 3), (4,), (2, 3, 4), ()],
    half=[False, False, True],
    constant=[False, True],
)
def quantize_linear(
    rng: Rng,
    *,
    op_type: str,
    dtype: Any,
    axis: int | None,
    zero: bool,
    shape: tuple[int, ...],
    half: bool,
    constant: bool,
) -> Case | None:
    if axis is not None and not -len(shape) <= axis < len(shape):
        return None
    if not zero and op_type == "QuantizeLinear" and dtype != np.uint8:
        return None  # the result's type is that of its zero point
    many = () if axis is None else (shape[axis],)
    real = np.float16 if half else np.float32
    scales = np.array(rng.uniform(0.01, 0.1, many), real)
    zeros = np.array(rng.integers(0, 50, many), dtype) if zero else None
    if op_type == "QuantizeLinear":
        x = np.array(rng.normal(size=shape) * 5, real)
    else:
        x = np.array(integers(rng, dtype, *shape))
    attrs = {} if axis is None else {"axis": axis}
    return Case(
        [x, scales, zeros],
        attrs,
        constants=[1, 2] if constant else [],
        steps=1,
        rtol=1e-2 if half else 1e-4,
        atol=1e-2 if half else 1e-5,
        out_types={0: TensorProto.FLOAT16} if half and op_type == "DequantizeLinear" else None,
    )


@spec("QLinearReduceMean", dtype=BYTES, axes=[[1], [2, 3], [-1], [0, 1]], keep=[0, 1])
def qlinear_reduce_mean(rng: Rng, *, dtype: Any, axes: list[int], keep: int) -> Case:
    """ONNX Runtime has the schema and no kernel: the answer is worked out in 64 bits."""
    x = [*tensor(rng, dtype, 2, 3, 4, 5), scalar(0.015), some_zero(rng, dtype)]
    real = (x[0].astype(np.float64) - x[2]) * np.float64(x[1])
    mean = real.mean(tuple(axes), keepdims=bool(keep)) / np.float64(x[3]) + x[4]
    info = np.iinfo(dtype)
    y = np.clip(np.rint(mean), info.min, info.max).astype(dtype)
    return Case(x, {"axes": axes, "keepdims": keep}, expected=[y], steps=1)


@spec(
    "MatMulBnb4",
    quant_type=[0, 1],
    sizes=[(32, 6), (48, 5), (64, 1), (20, 4)],
    block=[16, 32, 64],
    batch=[(3,), (2, 3), (1,)],
    dynamic=[False, True],
)
def matmul_bnb4(
    rng: Rng,
    *,
    quant_type: int,
    sizes: tuple[int, int],
    block: int,
    batch: tuple[int, ...],
    dynamic: bool,
) -> Case:
    k, n = sizes
    x = [
        f32(rng, *batch, k),
        integers(rng, np.uint8, (n * k + 1) // 2),
        rng.uniform(0.1, 2, -(-n * k // block)).astype(np.float32),
    ]
    attrs = {"K": k, "N": n, "block_size": block, "quant_type": quant_type}
    return Case(x, attrs, constants=[1, 2], dynamic=dynamic)


@spec("MatMulInteger16", a=[(3, 4), (2, 3, 4)], b=[(4, 5), (2, 4, 5)], dynamic=[False, True])
def matmul_integer16(rng: Rng, *, a: tuple[int, ...], b: tuple[int, ...], dynamic: bool) -> Case:
    x = [rng.integers(-9000, 9000, shape).astype(np.int16) for shape in (a, b)]
    return Case(x, dynamic=dynamic)


@spec(
    "MatMulFpQ4", quant_type=[0, 1, None], sizes=[(32, 3), (64, 5), (96, 1)], batch=[(3,), (2, 3)]
)
def matmul_fp_q4(
    rng: Rng, *, quant_type: int | None, sizes: tuple[int, int], batch: tuple[int, ...]
) -> Case:
    k, n = sizes
    head = 4 if quant_type == 0 else 5
    blocks = integers(rng, np.uint8, n, k // 32, head + 16)
    scales = rng.uniform(0.1, 1, (n, k // 32, 1)).astype(np.float32)
    blocks[..., :4] = scales.view(np.uint8).reshape(n, k // 32, 4)
    if head == 5:
        blocks[..., 4] &= 15
    attrs = {} if quant_type is None else {"blk_quant_type": quant_type}
    x = [f32(rng, *batch, k), blocks.reshape(-1), np.array([k, n])]
    return Case(x, attrs, constants=[1, 2])


# Bytes of 256 numbers, bytes of a block, and where the block's scales lie.
PACKED = {0: (1024, 0, ()), 1: (512, 0, ()), 30: (512, 0, ()), 2: (144, 18, (0,))}
PACKED |= {6: (176, 22, (0,)), 8: (272, 34, (0,)), 13: (176, 176, (0, 2)), 14: (210, 210, (208,))}
PACKED |= {20: (144, 18, (0,)), 23: (136, 136, (0,))}


@spec(
    "GatherPacked",
    packed_type=list(PACKED),
    blocks=[1, 2],
    shape=[(2, 3), (4,), ()],
    index=[np.int32, np.int64],
    output=[None, 1, 10, 16],
)
def gather_packed(
    rng: Rng,
    *,
    packed_type: int,
    blocks: int,
    shape: tuple[int, ...],
    index: Any,
    output: int | None,
) -> Case:
    size, block, scales = PACKED[packed_type]
    # The bytes of floats are kept small: none of them is no number.
    rows = rng.integers(0, 256 if block else 60, (5, blocks * size)).astype(np.uint8)
    for at in scales:
        parts = rows.reshape(5, -1, block)
        drawn = rng.uniform(0.01, 0.1, (*parts.shape[:2], 1)).astype(np.float16)
        parts[..., at : at + 2] = drawn.view(np.uint8).reshape(*parts.shape[:2], 2)
    attrs = {"packed_type": packed_type, "K": 256 * blocks}
    if output is not None:
        attrs["output_dtype"] = output
    # Rows that are not there are the first one.
    x = [rows, np.array(rng.integers(-2, 8, shape), index)]
    if output in (1, 10):
        near = {} if output == 1 else {"rtol": 1e-2, "atol": 1e-2}
        return Case(x, attrs, constants=[0], **near)
    # numpy has no bfloat16: ONNX Runtime is asked for float32.
    asked = attrs | {"output_dtype": 1}
    return Case(x, attrs, constants=[0], instead_attrs=asked, rtol=1e-2, atol=1e-2)


@spec("MulInteger", dtype=[np.uint8, np.int8], zeros=[(False, False), (True, False), (True, True)])
def mul_integer(rng: Rng, *, dtype: Any, zeros: tuple[bool, bool]) -> Case:
    a, b = integers(rng, dtype, 2, 3, 4), integers(rng, dtype, 3, 1)
    points = [scalar(v, dtype) if there else None for v, there in zip((3, 7), zeros, strict=True)]
    left, right = (
        x.astype(np.int32) - (0 if p is None else p.astype(np.int32))
        for x, p in zip((a, b), points, strict=True)
    )
    return Case([a, points[0], b, points[1]], expected=[left * right])


@spec(
    "QEmbedLayerNormalization",
    dtype=[np.uint8, np.int8],
    segments=[False, True],
    mask=[False, True],
    epsilon=[None, 1e-3],
    constant=[False, True],
)
def q_embed_layer_norm(
    rng: Rng, *, dtype: Any, segments: bool, mask: bool, epsilon: float | None, constant: bool
) -> Case:
    ids = [rng.integers(0, n, (2, 5)).astype(np.int32) for n in (9, 2)]
    tables = [integers(rng, dtype, n, 8) for n in (9, 6, 2)]
    vectors = [integers(rng, dtype, 8) for _ in range(2)]
    scales = [scalar(v) for v in (0.02, 0.01, 0.03, 0.05, 0.04)]
    points = [scalar(v, dtype) for v in (3, 5, 7, 2, 1)]
    kept = np.tril(np.ones((2, 5), np.int32))[:, ::-1].copy() if mask else None
    x: list[Any] = [ids[0], ids[1], *tables, *vectors, kept, *scales, *points]
    if not segments:
        for i in (1, 4, 10, 15):
            x[i] = None
    attrs = {} if epsilon is None else {"epsilon": epsilon}
    return Case(x, attrs, outputs=2, constants=list(range(2, 18)) if constant else [])
