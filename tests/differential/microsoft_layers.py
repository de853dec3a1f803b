"""com.microsoft: activations, norms, products, convolutions, and what ai.onnx has too."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .one_node import Case, Rng, Spec, f32, scalar, specification

SPECS: list[Spec] = []
spec = specification(SPECS, "com.microsoft")
onnx_spec = specification(SPECS, "", 17)
aten_spec = specification(SPECS, "org.pytorch.aten")

SHAPES = [(), (5,), (2, 3), (0, 4), (2, 3, 4), (1, 2, 3, 4)]


# ---------------------------------------------------------------- activations


@spec("Gelu", "QuickGelu", shape=SHAPES, half=[False, True], dynamic=[False, True])
def gelu(
    rng: Rng, *, op_type: str, shape: tuple[int, ...], half: bool, dynamic: bool
) -> Case | None:
    if half and op_type == "Gelu":
        return None  # ONNX Runtime has no such kernel
    x = f32(rng, *shape) * 3
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if half else {}
    return Case([np.array(x, np.float16 if half else np.float32)], dynamic=dynamic, **tolerance)


@spec("QuickGelu", alpha=[1.0, 0.5, -1.0, 0.0])
def quick_gelu(rng: Rng, *, alpha: float) -> Case:
    return Case([f32(rng, 3, 4)], {"alpha": alpha})


@spec("BiasGelu", "FastGelu", shape=[(5,), (2, 3), (2, 3, 4), (0, 4)], constant=[False, True])
def biased_gelu(rng: Rng, *, shape: tuple[int, ...], constant: bool) -> Case:
    return Case([f32(rng, *shape), f32(rng, shape[-1])], constants=[1] if constant else [])


@spec("FastGelu", shape=SHAPES[1:])
def fast_gelu(rng: Rng, *, shape: tuple[int, ...]) -> Case:
    return Case([f32(rng, *shape)])


@spec(
    "BiasSoftmax",
    shape=[((3, 4), (4,), 0), ((2, 3, 4), (2, 1, 4), 1), ((2, 3, 4), (3, 4), 0)]
    + [((2, 3, 4, 5), (2, 1, 1, 5), 1), ((2, 3, 4, 5), (1, 1, 4, 5), 0)]
    + [((2, 3, 4, 5), (1, 3, 4, 5), 0)],
    axes=[1, 1, 2],
    negative=[False, True],
)
def bias_softmax(
    rng: Rng, *, shape: tuple[tuple[int, ...], tuple[int, ...], int], axes: int, negative: bool
) -> Case | None:
    # ONNX Runtime has no kernel for the CPU, but fuses Add and Softmax of opset 11 to it.
    data, bias, inner = shape
    if axes == 2 and (len(data) < 4 or bias[-2] == 1):
        return None
    x, b = f32(rng, *data), f32(rng, *bias)
    total = (x + b).astype(np.float64)
    flat = total.reshape(*data[: len(data) - axes], -1)
    y = np.exp(flat - flat.max(-1, keepdims=True))
    y = (y / y.sum(-1, keepdims=True)).reshape(data).astype(np.float32)
    axis = -axes if negative else len(data) - axes
    return Case([x, b], {"axis": axis, "is_inner_broadcast": inner}, expected=[y])


@spec("BiasDropout", residual=[False, True], whole=[False, True], ratio=[False, True])
def bias_dropout(rng: Rng, *, residual: bool, whole: bool, ratio: bool) -> Case:
    data, bias = f32(rng, 2, 3, 4), f32(rng, *((2, 3, 4) if whole else (4,)))
    added = f32(rng, 2, 3, 4) if residual else None
    sums = data + bias if added is None else data + bias + added
    chance = scalar(0.5) if ratio else None
    return Case([data, bias, added, chance], constants=[3], expected=[sums])


@spec("BiasAdd", size=[4, 7])
def bias_add(rng: Rng, *, size: int) -> Case:
    x = [f32(rng, 2, 3, size), f32(rng, size), f32(rng, 2, 3, size)]
    return Case(x, expected=[x[0] + x[1] + x[2]])


@spec("BiasSplitGelu", size=[4, 10], dynamic=[False, True])
def bias_split_gelu(rng: Rng, *, size: int, dynamic: bool) -> Case:
    x, bias = f32(rng, 2, 3, size), f32(rng, size)
    value, gate = torch.from_numpy(x + bias).double().chunk(2, -1)
    wanted = value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    return Case([x, bias], dynamic=dynamic, expected=[wanted.float().numpy()])


# ---------------------------------------------------------------- norms


@spec(
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    skip=[(2, 3, 8), (1, 3, 8), (3, 8)],
    rank=[2, 3],
    beta=[False, True],
    bias=[False, True],
    total=[False, True],
    epsilon=[None, 1e-5, 0.1],
    half=[False, False, True],
    constant=[False, True],
    dynamic=[False, True],
)
def skip_norm(
    rng: Rng,
    *,
    op_type: str,
    skip: tuple[int, ...],
    rank: int,
    beta: bool,
    bias: bool,
    total: bool,
    epsilon: float | None,
    half: bool,
    constant: bool,
    dynamic: bool,
) -> Case | None:
    simple = op_type.startswith("SkipS")
    if rank == 2 and skip != (3, 8):
        return None
    dtype = np.float16 if half else np.float32

    def real(*shape: int) -> Any:
        return rng.normal(size=shape).astype(dtype)

    x: list[Any] = [real(*(2, 3, 8)[-rank:]), real(*skip), real(8)]
    if not simple:
        x.append(real(8) if beta else None)
    elif beta:
        return None
    x.append(real(8) if bias else None)
    return Case(
        x,
        {} if epsilon is None else {"epsilon": epsilon},
        outputs=[True, False, False, True] if total else 1,
        constants=[2, 3, 4] if constant else [],
        dynamic=dynamic and not half,
        rtol=1e-2 if half else 1e-4,
        atol=1e-2 if half else 1e-5,
    )


@onnx_spec(
    "SimplifiedLayerNormalization",
    axis=[None, -1, 1, -2, 0],
    epsilon=[None, 1e-3],
    wide=[False, True],
    constant=[False, True],
    outputs=[1, 1, 2],
)
def simplified_norm(
    rng: Rng, *, axis: int | None, epsilon: float | None, wide: bool, constant: bool, outputs: int
) -> Case:
    dtype = np.float64 if wide else np.float32
    x = rng.normal(size=(2, 3, 8)).astype(dtype)
    gamma = rng.normal(size=(2, 3, 8)[-1 if axis is None else axis :]).astype(dtype)
    attrs: dict[str, Any] = {} if axis is None else {"axis": axis}
    if epsilon is not None:
        attrs["epsilon"] = epsilon
    return Case([x, gamma], attrs, constants=[1] if constant else [], outputs=outputs)


def grouped(x: Any, gamma: Any, beta: Any, attrs: dict[str, Any]) -> Any:
    """What GroupNorm says, in 64 bits, by its definition."""
    wide = x.astype(np.float64)
    wide = np.moveaxis(wide, -1, 1) if attrs["channels_last"] else wide
    parts = wide.reshape(len(wide), attrs["groups"], -1)
    parts = parts - parts.mean(-1, keepdims=True)
    parts = parts / np.sqrt((parts**2).mean(-1, keepdims=True) + attrs["epsilon"])
    shape = (1, -1, 1, 1)
    y = parts.reshape(wide.shape) * gamma.reshape(shape) + beta.reshape(shape)
    if attrs["activation"]:
        y = y / (1 + np.exp(-y))
    return (np.moveaxis(y, 1, -1) if attrs["channels_last"] else y).astype(np.float32)


@spec("GroupNorm", last=[0, 1], groups=[1, 2, 4], activation=[0, 1], epsilon=[1e-5, 0.1])
def group_norm(rng: Rng, *, last: int, groups: int, activation: int, epsilon: float) -> Case:
    x, gamma, beta = f32(rng, 2, *((5, 6, 4) if last else (4, 5, 6))), f32(rng, 4), f32(rng, 4)
    attrs = {
        "channels_last": last,
        "groups": groups,
        "activation": activation,
        "epsilon": epsilon,
    }
    return Case([x, gamma, beta], attrs, expected=[grouped(x, gamma, beta, attrs)])


@spec(
    "SkipGroupNorm",
    skip=[(2, 5, 6, 4), (2, 1, 1, 4), (2, 4)],
    bias=[False, True],
    groups=[1, 2],
    activation=[0, 1],
    outputs=[1, 2],
)
def skip_group_norm(
    rng: Rng, *, skip: tuple[int, ...], bias: bool, groups: int, activation: int, outputs: int
) -> Case:
    x, gamma, beta = f32(rng, 2, 5, 6, 4), f32(rng, 4), f32(rng, 4)
    other = f32(rng, *skip)
    attrs = {"channels_last": 1, "groups": groups, "activation": activation, "epsilon": 1e-5}
    total = x + (other.reshape(2, 1, 1, 4) if other.ndim == 2 else other)
    inputs: list[Any] = [x, gamma, beta, other, f32(rng, 4) if bias else None]
    if bias:
        total = total + inputs[4]
    y = grouped(total, gamma, beta, attrs)
    return Case(inputs, attrs, outputs=outputs, expected=[y, total][:outputs])


# ---------------------------------------------------------------- products


@spec(
    "FusedMatMul",
    "TransposeMatMul",
    a=[(3, 4), (2, 3, 4), (5, 2, 3, 4), (4,)],
    b=[(4, 6), (2, 4, 6), (5, 2, 4, 6), (4,)],
    alpha=[1.0, 0.5, -2.0],
    trans_a=[0, 1],
    trans_b=[0, 1],
    batch_a=[0, 0, 1],
    batch_b=[0, 0, 1],
    dynamic=[False, True],
)
def fused_matmul(
    rng: Rng,
    *,
    op_type: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    alpha: float,
    trans_a: int,
    trans_b: int,
    batch_a: int,
    batch_b: int,
    dynamic: bool,
) -> Case | None:
    batches = (len(a) > 2 and len(b) > 2) or batch_a or batch_b
    if batches and (len(a) != len(b) or len(a) < 3):
        return None
    if len(b) == 1 and trans_a:
        return None  # ONNX Runtime reads A as if it were not transposed
    if op_type == "TransposeMatMul" and (batch_a or batch_b):
        return None

    def laid_out(shape: tuple[int, ...], matrix: int, batch: int) -> tuple[int, ...] | None:
        d = list(shape)
        if (matrix or batch) and len(d) < (3 if batch else 2):
            return None
        if matrix:
            d[-1], d[-2] = d[-2], d[-1]
        if batch:
            d = [d[-2], *d[:-2], d[-1]]
        return tuple(d)

    left, right = laid_out(a, trans_a, batch_a), laid_out(b, trans_b, batch_b)
    if left is None or right is None:
        return None
    attrs: dict[str, Any] = {"alpha": alpha, "transA": trans_a, "transB": trans_b}
    if batch_a or batch_b:
        attrs |= {"transBatchA": batch_a, "transBatchB": batch_b}
    return Case([f32(rng, *left), f32(rng, *right)], attrs, dynamic=dynamic)


ACTIVATIONS: list[tuple[str, list[float]]] = [
    ("Relu", []),
    ("Tanh", []),
    ("Sigmoid", []),
    ("LeakyRelu", [0.2]),
    ("Clip", [-0.5, 0.5]),
    ("HardSigmoid", [0.3, 0.4]),
]


@spec(
    "FusedGemm",
    activation=[*ACTIVATIONS[:4], ACTIVATIONS[5]],
    trans_a=[0, 1],
    trans_b=[0, 1],
    alpha=[None, 0.5],
    beta=[None, 2.0],
    bias=[None, (5,), (3, 1), (1, 5), (3, 5), ()],
    constant=[False, True],
)
def fused_gemm(
    rng: Rng,
    *,
    activation: tuple[str, list[float]],
    trans_a: int,
    trans_b: int,
    alpha: float | None,
    beta: float | None,
    bias: tuple[int, ...] | None,
    constant: bool,
) -> Case:
    attrs: dict[str, Any] = {"transA": trans_a, "transB": trans_b, "activation": activation[0]}
    attrs |= {k: v for k, v in (("alpha", alpha), ("beta", beta)) if v is not None}
    attrs |= dict(zip(("activation_alpha", "activation_beta"), activation[1], strict=False))
    x = [f32(rng, 3, 4), f32(rng, 4, 5), None if bias is None else np.array(f32(rng, *bias))]
    return Case(
        [x[0].T if trans_a else x[0], x[1].T if trans_b else x[1], x[2]],
        attrs,
        constants=[1, 2] if constant else [],
    )


@spec("GemmFastGelu", shape=[(3, 4), (2, 3, 4)], bias=[False, True])
def gemm_fast_gelu(rng: Rng, *, shape: tuple[int, ...], bias: bool) -> Case:
    x, w, b = f32(rng, *shape), f32(rng, 4, 6), f32(rng, 6) if bias else None
    y = x.astype(np.float64) @ w + (0 if b is None else b)
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    return Case([x, w, b], expected=[y.astype(np.float32)])


@spec("ComplexMul", "ComplexMulConj", a=[(3, 2), (2, 3, 2)], b=[(3, 2), (1, 2)])
def complex_mul(rng: Rng, *, op_type: str, a: tuple[int, ...], b: tuple[int, ...]) -> Case:
    x, y = f32(rng, *a), f32(rng, *b)
    left, right = (v[..., 0] + 1j * v[..., 1] for v in (x, y))
    z = left * (np.conj(right) if op_type.endswith("Conj") else right)
    return Case([x, y], expected=[np.stack([z.real, z.imag], -1).astype(np.float32)])


@spec("CDist", metric=["sqeuclidean", "euclidean"], rows=[(3, 5), (1, 1), (30, 40)], width=[1, 4])
def cdist(rng: Rng, *, metric: str, rows: tuple[int, int], width: int) -> Case:
    x = [f32(rng, n, width) for n in rows]
    return Case(x, {"metric": metric}, atol=1e-3)


# ---------------------------------------------------------------- convolutions


def conv_attributes(
    spatial: int, stride: int, dilation: int, pad: str | None, group: int
) -> dict[str, Any]:
    attrs: dict[str, Any] = {"strides": [stride] * spatial, "dilations": [dilation] * spatial}
    attrs["group"] = group
    if pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        attrs["auto_pad"] = pad
    elif pad == "uneven":
        attrs["pads"] = [1] * spatial + [0] * spatial
    elif pad == "even":
        attrs["pads"] = [1] * (2 * spatial)
    return attrs


TORCH_ACTIVATIONS: dict[str, Any] = {
    "Relu": torch.relu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "LeakyRelu": F.leaky_relu,
    "Clip": torch.clamp,
    "HardSigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
}
PADS = [None, "even", "uneven", "SAME_UPPER", "SAME_LOWER", "VALID"]


@spec(
    "FusedConv",
    spatial=[1, 2, 3],
    stride=[1, 2],
    dilation=[1, 2],
    pad=PADS,
    group=[1, 2],
    bias=[False, True],
    added=[False, True],
    activation=ACTIVATIONS,
    constant=[False, True],
)
def fused_conv(
    rng: Rng,
    *,
    spatial: int,
    stride: int,
    dilation: int,
    pad: str | None,
    group: int,
    bias: bool,
    added: bool,
    activation: tuple[str, list[float]],
    constant: bool,
) -> Case | None:
    if dilation == 2 and pad is not None and pad.startswith("SAME"):
        return None  # ONNX Runtime refuses it
    attrs = conv_attributes(spatial, stride, dilation, pad, group)
    attrs["activation"] = activation[0]
    if activation[1]:
        attrs["activation_params"] = activation[1]
    size, reach = 7, 2 * dilation
    if pad in ("SAME_UPPER", "SAME_LOWER"):
        out = -(-size // stride)
    else:
        around = {"even": 2, "uneven": 1}.get(pad or "", 0)
        out = (size + around - reach - 1) // stride + 1
    x: list[Any] = [f32(rng, 2, 4, *[size] * spatial), f32(rng, 6, 4 // group, *[3] * spatial)]
    if added and not bias:
        return None
    x.append(f32(rng, 6) if bias else None)
    x.append(f32(rng, 2, 6, *[out] * spatial) if added else None)
    return Case(x, attrs, constants=[1, 2] if constant else [], rtol=1e-3, atol=1e-4)


@spec(
    "NhwcConv",
    "NhwcFusedConv",
    stride=[1, 2],
    dilation=[1, 2],
    pad=PADS,
    group=[1, 2],
    bias=[False, True],
    added=[False, True],
    activation=[None, *ACTIVATIONS],
)
def nhwc_conv(
    rng: Rng,
    *,
    op_type: str,
    stride: int,
    dilation: int,
    pad: str | None,
    group: int,
    bias: bool,
    added: bool,
    activation: tuple[str, list[float]] | None,
) -> Case | None:
    """ONNX Runtime's kernels take half precision alone, so torch, channels first, answers."""
    fused = op_type == "NhwcFusedConv"
    if (not fused and (activation or added)) or (added and not bias):
        return None
    if pad is not None and pad.startswith("SAME") and (stride == 2 or dilation == 2):
        return None
    attrs = conv_attributes(2, stride, dilation, pad, group)
    x, w = f32(rng, 2, 7, 8, 4), f32(rng, 6, 4 // group, 3, 3)
    b = f32(rng, 6) if bias else None
    first, last = {
        "even": (1, 1),
        "uneven": (1, 0),
        "SAME_UPPER": (1, 1),
        "SAME_LOWER": (1, 1),
    }.get(pad or "", (0, 0))
    padded = np.pad(x, [(0, 0), (first, last), (first, last), (0, 0)])
    y = F.conv2d(
        torch.from_numpy(padded).movedim(3, 1),
        torch.from_numpy(w),
        None if b is None else torch.from_numpy(b),
        stride,
        0,
        dilation,
        group,
    ).movedim(1, 3)
    other = f32(rng, *y.shape) if added else None
    if other is not None:
        y = y + torch.from_numpy(other)
    if activation:
        attrs["activation"] = activation[0]
        if activation[1]:
            attrs["activation_params"] = activation[1]
        y = TORCH_ACTIVATIONS[activation[0]](y, *activation[1])
    given = [x, w if fused else np.moveaxis(w, 1, -1).copy(), b, other]
    return Case(given, attrs, expected=[y.contiguous().numpy()], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- what ai.onnx has too


@spec("Inverse", shape=[(3, 3), (2, 3, 3), (2, 1, 4, 4), (1, 1)], wide=[False, True])
def inverse(rng: Rng, *, shape: tuple[int, ...], wide: bool) -> Case:
    x = rng.normal(size=shape) + 3 * np.eye(shape[-1])
    return Case([x.astype(np.float64 if wide else np.float32)], rtol=1e-3)


@spec(
    "Trilu",
    shape=[(3, 4), (2, 4, 3), (0, 3)],
    upper=[None, 0, 1],
    k=[None, 0, 1, -1, 5, -5],
    dtype=[np.float32, np.int64, np.float64],
    constant=[False, True],
)
def trilu(
    rng: Rng,
    *,
    shape: tuple[int, ...],
    upper: int | None,
    k: int | None,
    dtype: Any,
    constant: bool,
) -> Case | None:
    x = rng.integers(0, 5, shape).astype(dtype)
    attrs = {} if upper is None else {"upper": upper}
    diagonal = None if k is None else scalar(k, np.int64)
    return Case([x, diagonal], attrs, constants=[1] if constant else [])


@spec(
    "Pad",
    mode=[None, "constant", "reflect", "edge"],
    pads=[(0, 1, 2, 0), (1, 1, 1, 1), (-1, 0, 0, 1)],
    value=[None, 1.5],
    constant=[False, True],
)
def pad(
    rng: Rng,
    *,
    mode: str | None,
    pads: tuple[int, ...],
    value: float | None,
    constant: bool,
) -> Case | None:
    if min(pads) < 0 and mode in ("reflect", "edge"):
        return None
    x = [f32(rng, 3, 4), np.array(pads, np.int64)]
    filler = None if value is None else np.array([value], np.float32)
    attrs = {} if mode is None else {"mode": mode}
    return Case([*x, filler], attrs, constants=[1, 2] if constant else [])


@spec(
    "GridSample",
    mode=[None, "bilinear", "nearest", "bicubic"],
    padding=[None, "zeros", "border", "reflection"],
    corners=[None, 0, 1],
)
def grid_sample(
    rng: Rng, *, mode: str | None, padding: str | None, corners: int | None
) -> Case | None:
    grid = rng.uniform(-1.3, 1.3, (2, 3, 4, 2)).astype(np.float32)
    named = (("mode", mode), ("padding_mode", padding), ("align_corners", corners))
    return Case([f32(rng, 2, 3, 5, 6), grid], {k: v for k, v in named if v is not None}, rtol=1e-3)


@spec("GatherND", rank=[1, 2, 3], index=[np.int32, np.int64], dtype=[np.float32, np.int32])
def gather_nd(rng: Rng, *, rank: int, index: Any, dtype: Any) -> Case:
    x = rng.integers(-9, 9, (3, 4, 5)).astype(dtype)
    ids = np.stack([rng.integers(-n, n, (2, 3)) for n in x.shape[:rank]], -1)
    return Case([x, ids.astype(index)])


@spec(
    "Range",
    dtype=[np.float32, np.int32, np.int64, np.float64],
    ends=[(0, 5, 1), (5, 0, -2), (1, 1, 1)],
    step=[False, True],
)
def range_(rng: Rng, *, dtype: Any, ends: tuple[int, int, int], step: bool) -> Case | None:
    if not step and ends[2] != 1:
        return None
    x = [scalar(v, dtype) for v in ends]
    return Case(x if step else x[:2])


@spec("ExpandDims", shape=[(), (3,), (2, 3)], axis=[0, 1, -1, 2], dtype=[np.float32, np.int64])
def expand_dims(rng: Rng, *, shape: tuple[int, ...], axis: int, dtype: Any) -> Case | None:
    if axis > len(shape):
        return None
    x = np.array(rng.integers(0, 9, shape), dtype)
    return Case([x, scalar(axis, np.int32)], constants=[1])


@spec("Unique", size=[0, 1, 9, 50], high=[1, 4, 100])
def unique(rng: Rng, *, size: int, high: int) -> Case:
    return Case([rng.integers(0, high, size).astype(np.float32)], outputs=3)


@spec(
    "CropAndResize",
    mode=[None, "bilinear", "nearest"],
    value=[None, 0.5],
    size=[(3, 4), (1, 1), (1, 3), (9, 8)],
    constant=[False, True],
)
def crop_and_resize(
    rng: Rng, *, mode: str | None, value: float | None, size: tuple[int, int], constant: bool
) -> Case:
    corner = rng.uniform(-0.2, 0.8, (4, 2))
    rois = np.concatenate([corner, corner + rng.uniform(-0.3, 0.6, (4, 2))], 1)
    named = (("mode", mode), ("extrapolation_value", value))
    return Case(
        [
            f32(rng, 2, 3, 6, 7),
            rois.astype(np.float32),
            rng.integers(0, 2, 4).astype(np.int32),
            np.array(size, np.int32),
        ],
        {k: v for k, v in named if v is not None},
        constants=[3] if constant else [],
        rtol=1e-3,
    )


@spec("SampleOp", shape=SHAPES)
def sample_op(rng: Rng, *, shape: tuple[int, ...]) -> Case:
    return Case([np.array(f32(rng, *shape))])


@spec("TorchEmbedding", padding=[None, 0, 2], by_frequency=[None, False], constant=[True, False])
@aten_spec("ATen", padding=[None, -1, 2], by_frequency=[None, False], constant=[True, False])
def embedding(
    rng: Rng, *, op_type: str, padding: int | None, by_frequency: bool | None, constant: bool
) -> Case:
    """ONNX Runtime has no kernel of these in inference; tests/numeric/test_aten.py has other calls."""
    table, ids = f32(rng, 7, 4), rng.integers(0, 7, (2, 3))
    x: list[Any] = [table, ids, None if padding is None else scalar(padding, np.int64)]
    x.append(None if by_frequency is None else scalar(by_frequency, np.bool_))
    attrs = {"operator": "embedding"} if op_type == "ATen" else {}
    return Case(x, attrs, constants=[0, 2, 3] if constant else [2, 3], expected=[table[ids]])


@spec(
    "MurmurHash3",
    dtype=[np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64],
    positive=[None, 0, 1],
    seed=[None, 0, 7, 2**31 - 1],
    shape=[(5,), (2, 3), (), (0,)],
)
def murmur_hash(
    rng: Rng, *, dtype: Any, positive: int | None, seed: int | None, shape: tuple[int, ...]
) -> Case:
    named = (("positive", positive), ("seed", seed))
    x = np.array(rng.integers(0, 2**31, shape) * (-1 if dtype == np.int64 else 1)).astype(dtype)
    return Case([x], {k: v for k, v in named if v is not None})


@spec(
    "ConvTransposeWithDynamicPads",
    spatial=[1, 2],
    stride=[1, 2],
    dilation=[1, 2],
    group=[1, 2],
    bias=[False, True],
    extra=[None, 1],
    constant=[False, True],
)
def dynamic_conv_transpose(
    rng: Rng,
    *,
    spatial: int,
    stride: int,
    dilation: int,
    group: int,
    bias: bool,
    extra: int | None,
    constant: bool,
) -> Case | None:
    if extra is not None and extra >= stride:
        return None  # ONNX Runtime refuses it
    attrs: dict[str, Any] = {"strides": [stride] * spatial, "dilations": [dilation] * spatial}
    attrs |= {"group": group, "kernel_shape": [3] * spatial}
    if extra is not None:
        attrs["output_padding"] = [extra] * spatial
    pads = rng.integers(0, 2, 2 * spatial)
    x = [f32(rng, 2, 4, *[6, 5][:spatial]), f32(rng, 4, 3, *[3] * spatial), pads]
    x.append(f32(rng, 3 * group) if bias else None)
    return Case(x, attrs, constants=[1, 2, 3] if constant else [])


@spec("BitmaskDropout", ratio=[False, True], training=[None, False])
def bitmask_dropout(rng: Rng, *, ratio: bool, training: bool | None) -> Case:
    x = f32(rng, 2, 3)
    given = [x, scalar(0.5) if ratio else None, None if training is None else np.array(training)]
    return Case(given, constants=[1, 2], expected=[x])


@spec("BitmaskBiasDropout", residual=[False, True], ratio=[False, True])
def bitmask_bias_dropout(rng: Rng, *, residual: bool, ratio: bool) -> Case:
    x = [f32(rng, 2, 3, 4), f32(rng, 4), f32(rng, 2, 3, 4) if residual else None]
    expected = x[0] + x[1] + (0 if x[2] is None else x[2])
    return Case([*x, scalar(0.5) if ratio else None], constants=[3], expected=[expected])


@spec(
    "FusedMatMulActivation",
    activation=["Relu", "Tanh", "LeakyRelu", "HardSigmoid"],
    alpha=[None, 0.5],
    transposed=[(0, 0), (1, 0), (1, 1)],
)
def fused_matmul_activation(
    rng: Rng, *, activation: str, alpha: float | None, transposed: tuple[int, int]
) -> Case:
    a, b = f32(rng, 2, 3, 4), f32(rng, 2, 4, 5)
    y = (alpha or 1.0) * (a @ b)
    attrs: dict[str, Any] = {"activation": activation, "transA": transposed[0]}
    attrs["transB"] = transposed[1]
    if alpha is not None:
        attrs["alpha"] = alpha
    if activation == "LeakyRelu":
        attrs["activation_alpha"] = 0.25
        y = np.where(y < 0, 0.25 * y, y)
    elif activation == "HardSigmoid":
        attrs |= {"activation_alpha": 0.25, "activation_beta": 0.5}
        y = np.clip(0.25 * y + 0.5, 0, 1)
    else:
        y = np.tanh(y) if activation == "Tanh" else np.maximum(y, 0)
    x = [part.swapaxes(-1, -2) if t else part for part, t in zip((a, b), transposed, strict=True)]
    return Case([np.ascontiguousarray(part) for part in x], attrs, expected=[y.astype(np.float32)])


@spec("WordConvEmbedding", window=[1, 2, 3], constant=[False, True], named=[False, True])
def word_conv_embedding(rng: Rng, *, window: int, constant: bool, named: bool) -> Case:
    words = rng.integers(1, 9, (6, 5)).astype(np.int32)
    for word, length in zip(words, (1, 2, 3, 4, 5, 2), strict=True):
        word[length:] = 0
    x = [words, f32(rng, 4, 1, window, 3), f32(rng, 4), f32(rng, 9, 3)]
    sizes = {"embedding_size": 4, "conv_window_size": window, "char_embedding_size": 3}
    return Case(x, sizes if named else {}, constants=[1, 2, 3] if constant else [])


@spec(
    "MaxpoolWithMask",
    shape=[(2, 3, 9), (2, 3, 6, 7), (1, 2, 4, 5, 4)],
    kernel=[1, 2, 3],
    stride=[1, 2],
    pad=[0, 1],
    kept=[0.3, 0.7, 1.0],
)
def max_pool_with_mask(
    rng: Rng, *, shape: tuple[int, ...], kernel: int, stride: int, pad: int, kept: float
) -> Case | None:
    n = len(shape) - 2
    if pad >= kernel:
        return None  # ONNX Runtime refuses it
    mask = (rng.random((1, 1, *shape[2:])) < kept).astype(np.int32)
    attrs = {"kernel_shape": [kernel] * n, "strides": [stride] * n, "pads": [pad] * (2 * n)}
    return Case([f32(rng, *shape), mask], attrs)


@spec("Rfft", axes=[1, 2], size=[4, 6], half=[False, True])
def rfft(rng: Rng, *, axes: int, size: int, half: bool) -> Case:
    x = f32(rng, 2, 4, size).astype(np.float16 if half else np.float32)
    y = np.fft.rfftn(x.astype(np.float64), axes=tuple(range(-axes, 0)))
    expected = np.stack([y.real, y.imag], -1).astype(x.dtype)
    near = {"rtol": 1e-2, "atol": 1e-2} if half else {}
    return Case([x], {"signal_ndim": axes, "onesided": 1}, expected=[expected], **near)


@spec("Irfft", axes=[1, 2], size=[4, 6])
def irfft(rng: Rng, *, axes: int, size: int) -> Case:
    y = f32(rng, 2, 4, size)
    x = np.fft.rfftn(y.astype(np.float64), axes=tuple(range(-axes, 0)))
    parts = np.stack([x.real, x.imag], -1).astype(np.float32)
    return Case([parts], {"signal_ndim": axes}, expected=[y])


@spec(
    "DynamicTimeWarping", shape=[(1, 1), (1, 5), (4, 6), (6, 3)], ties=[False, True], batch=[0, 1]
)
def dynamic_time_warping(rng: Rng, *, shape: tuple[int, int], ties: bool, batch: int) -> Case:
    x = rng.integers(0, 3, shape).astype(np.float32) if ties else f32(rng, *shape)
    return Case([x[None] if batch else x])


@spec(
    "Tokenizer",
    pattern=[[" "], [""], [",", "[ab]"], ["a+"], ["b|bé"], ["1|11", "\\."], ["(a?)(ab)?"]]
    + ["[a-z]+", "a|ab", "(a?)(ab)?", "[^ ]+", "\\w+", "ab|bé1", "[[:alpha:]]{2}", "."],
    least=[1, 2, 3],
    mark=[0, 1],
    shape=[(1,), (4,), (2, 3)],
    empty=[False, False, True],
)
def tokenizer(
    rng: Rng,
    *,
    pattern: list[str] | str,
    least: int,
    mark: int,
    shape: tuple[int, ...],
    empty: bool,
) -> Case | None:
    if least > 1 and pattern in ([""], "."):
        return None  # ONNX Runtime refuses it
    letters = np.array(list("ab1 é,."))
    words = ["".join(rng.choice(letters, 0 if empty else rng.integers(9))) for _ in range(6)]
    x = np.array(words[: int(np.prod(shape))], dtype=object).reshape(shape)
    attrs: dict[str, Any] = {"mincharnum": least, "pad_value": "#", "mark": mark}
    attrs["tokenexp" if isinstance(pattern, str) else "separators"] = pattern
    return Case([x], attrs, elem_types={0: 8})


@spec(
    "AttnLSTM",
    direction=[None, "forward", "reverse", "bidirectional"],
    lengths=[None, (4, 4), (4, 2)],
    memory_lengths=[None, (6, 3)],
    bias=[False, True],
    initial=[False, True],
    peephole=[False, True],
    layer=[False, True],
    clip=[None, 0.5],
    activations=[None, ["Sigmoid", "Relu", "Softsign"]],
    constant=[False, True],
)
def attention_lstm(
    rng: Rng,
    *,
    direction: str | None,
    lengths: tuple[int, ...] | None,
    memory_lengths: tuple[int, ...] | None,
    bias: bool,
    initial: bool,
    peephole: bool,
    layer: bool,
    clip: float | None,
    activations: list[str] | None,
    constant: bool,
) -> Case:
    n = 2 if direction == "bidirectional" else 1
    hidden, depth, size, width = 5, 4, 7, 2
    fed = width if layer else depth

    def counts(given: tuple[int, ...] | None) -> Any:
        return None if given is None else np.array(given, np.int32)

    x = [f32(rng, 4, 2, 3), f32(rng, n, 4 * hidden, 3 + fed), f32(rng, n, 4 * hidden, hidden)]
    x += [f32(rng, n, 8 * hidden) if bias else None, counts(lengths)]
    x += [f32(rng, n, 2, hidden) if initial else None for _ in range(2)]
    x += [f32(rng, n, 3 * hidden) if peephole else None, f32(rng, n, hidden, size)]
    x += [f32(rng, n, depth, size), f32(rng, n, size), f32(rng, 2, 6, depth)]
    x += [counts(memory_lengths), f32(rng, n, depth + hidden, width) if layer else None]
    given = (("direction", direction), ("clip", clip))
    attrs: dict[str, Any] = {k: v for k, v in given if v is not None}
    attrs["hidden_size"] = hidden
    if activations is not None:
        attrs["activations"] = activations * n
    fixed = [i for i in (1, 2, 3, 8, 9, 10, 13) if x[i] is not None] if constant else []
    return Case(x, attrs, outputs=3, constants=fixed)
