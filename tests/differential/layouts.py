"""com.ms.internal.nhwc: what ONNX Runtime answers for the operator of ai.onnx, channels moved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tests.numeric.harness import expected_outputs, node_model

from .one_node import Case, Rng, Spec, f32, integers, scalar, specification

SPECS: list[Spec] = []
spec = specification(SPECS, "com.ms.internal.nhwc", 22)

PICTURE = [(2, 4, 8, 6), (1, 4, 7, 7)]


def channels_last(
    op_type: str,
    inputs: Sequence[Any],
    attrs: dict[str, Any],
    constants: Sequence[int] = (),
    opset: int = 22,
    **options: Any,
) -> Case:
    """The case of inputs whose first has its channels first; `attrs` as the operator has them."""
    model, feeds = node_model(op_type, inputs, opset=opset, attrs=attrs, constants=constants)
    (y,) = expected_outputs(model, feeds)
    moved = [np.ascontiguousarray(np.moveaxis(inputs[0], 1, -1)), *inputs[1:]]
    expected = [np.moveaxis(y, 1, -1)]
    return Case(moved, attrs, constants=constants, expected=expected, opset=opset, **options)


@spec(
    "Conv",
    "ConvTranspose",
    shape=[*PICTURE, (2, 4, 9)],
    group=[1, 2],
    bias=[False, True],
    stride=[1, 2],
    pad=[0, 1],
    constant=[False, True, True],
    dynamic=[False, True],
)
def conv(
    rng: Rng,
    *,
    op_type: str,
    shape: tuple[int, ...],
    group: int,
    bias: bool,
    stride: int,
    pad: int,
    constant: bool,
    dynamic: bool,
) -> Case:
    n = len(shape) - 2
    attrs = {"group": group, "strides": [stride] * n, "pads": [pad] * (2 * n)}
    transposed = op_type == "ConvTranspose"
    weight = (4, 6 // group) if transposed else (6, 4 // group)
    x = [f32(rng, *shape), f32(rng, *weight, *[3] * n)]
    if bias:
        x.append(f32(rng, 6))
    fixed = [i for i in (1, 2) if i < len(x)] if constant else []
    return channels_last(op_type, x, attrs, fixed, dynamic=dynamic)


@spec("Conv", activation=["Relu", "LeakyRelu", "Clip"], added=[False, True])
def fused_conv(rng: Rng, *, activation: str, added: bool) -> Case:
    x = [f32(rng, 2, 4, 6, 5), f32(rng, 3, 4, 3, 3), f32(rng, 3)]
    model, feeds = node_model("Conv", x, opset=22, constants=[1, 2])
    (y,) = expected_outputs(model, feeds)
    z = f32(rng, *y.shape) if added else None
    y = y if z is None else y + z
    slope = {"Relu": [], "LeakyRelu": [0.25], "Clip": [-0.5, 0.75]}[activation]
    if activation == "Clip":
        y = np.clip(y, -0.5, 0.75)
    else:
        y = np.where(y < 0, y * np.float32(slope[0] if slope else 0), y)
    attrs: dict[str, Any] = {"activation": activation}
    if slope:
        attrs["activation_params"] = slope
    given = [np.moveaxis(x[0], 1, -1), *x[1:], None if z is None else np.moveaxis(z, 1, -1)]
    return Case(given, attrs, constants=[1, 2], expected=[np.moveaxis(y, 1, -1)])


@spec(
    "MaxPool",
    "AveragePool",
    "LpPool",
    shape=[*PICTURE, (2, 4, 9)],
    stride=[1, 2],
    pad=[0, 1],
    ceil=[0, 1],
    dynamic=[False, True],
)
def pool(
    rng: Rng,
    *,
    op_type: str,
    shape: tuple[int, ...],
    stride: int,
    pad: int,
    ceil: int,
    dynamic: bool,
) -> Case:
    n = len(shape) - 2
    attrs = {"kernel_shape": [3] * n, "strides": [stride] * n, "pads": [pad] * (2 * n)}
    return channels_last(op_type, [f32(rng, *shape)], attrs | {"ceil_mode": ceil}, dynamic=dynamic)


@spec(
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GlobalLpPool",
    shape=[*PICTURE, (2, 4, 9)],
    dynamic=[False, True],
)
def global_pool(rng: Rng, *, op_type: str, shape: tuple[int, ...], dynamic: bool) -> Case:
    # ONNX Runtime has it of an older opset only.
    opset = 13 if op_type == "GlobalLpPool" else 22
    return channels_last(op_type, [f32(rng, *shape)], {}, opset=opset, dynamic=dynamic)


@spec("BatchNormalization", "InstanceNormalization", shape=PICTURE, constant=[False, True])
def norm(rng: Rng, *, op_type: str, shape: tuple[int, ...], constant: bool) -> Case:
    x = [f32(rng, *shape), f32(rng, 4), f32(rng, 4)]
    if op_type == "BatchNormalization":
        x += [f32(rng, 4), rng.uniform(0.5, 2, 4).astype(np.float32)]
    return channels_last(op_type, x, {"epsilon": 1e-3}, list(range(1, len(x))) if constant else [])


@spec("LRN", shape=PICTURE, size=[3, 5])
def lrn(rng: Rng, *, shape: tuple[int, ...], size: int) -> Case:
    return channels_last("LRN", [f32(rng, *shape)], {"size": size, "alpha": 0.5, "bias": 2.0})


@spec("DepthToSpace", mode=["DCR", "CRD"], dynamic=[False, True])
def depth_to_space(rng: Rng, *, mode: str, dynamic: bool) -> Case:
    attrs = {"blocksize": 2, "mode": mode}
    return channels_last("DepthToSpace", [f32(rng, 2, 8, 3, 5)], attrs, dynamic=dynamic)


@spec("SpaceToDepth", dynamic=[False, True])
def space_to_depth(rng: Rng, *, dynamic: bool) -> Case:
    return channels_last("SpaceToDepth", [f32(rng, 2, 3, 4, 6)], {"blocksize": 2}, dynamic=dynamic)


@spec("GridSample", mode=["linear", "nearest"], align=[0, 1], padding=["zeros", "border"])
def grid_sample(rng: Rng, *, mode: str, align: int, padding: str) -> Case:
    x = [f32(rng, 2, 3, 6, 5), rng.uniform(-1.2, 1.2, (2, 4, 7, 2)).astype(np.float32)]
    attrs = {"mode": mode, "align_corners": align, "padding_mode": padding}
    return channels_last("GridSample", x, attrs)


@spec("Resize", mode=["nearest", "linear"], sizes=[False, True], dynamic=[False, True])
def resize(rng: Rng, *, mode: str, sizes: bool, dynamic: bool) -> Case:
    # Its sizes go along with the axes, so that any layout means the same.
    x: list[Any] = [f32(rng, 2, 5, 6, 3), None, np.array([1, 2, 2, 1], np.float32)]
    if sizes:
        x = [x[0], None, None, np.array([2, 10, 12, 3])]
    attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    fixed = [2, 3][sizes : sizes + 1]
    model, feeds = node_model("Resize", x, opset=19, attrs=attrs, constants=fixed)
    expected = expected_outputs(model, feeds)
    return Case(x, attrs, constants=fixed, expected=expected, opset=19, dynamic=dynamic)


@spec("QLinearConv", dtype=[np.uint8, np.int8], group=[1, 2], bias=[False, True])
def qlinear_conv(rng: Rng, *, dtype: Any, group: int, bias: bool) -> Case:
    x = [integers(rng, dtype, 2, 4, 6, 5), scalar(0.02), scalar(3, dtype)]
    x += [integers(rng, np.int8, 6, 4 // group, 3, 3), scalar(0.01), scalar(0, np.int8)]
    x += [scalar(0.3), scalar(5, dtype)]
    if bias:
        x.append(integers(rng, np.int16, 6).astype(np.int32))
    return channels_last("QLinearConv", x, {"group": group}, list(range(1, len(x))), steps=1)


@spec("QLinearAveragePool", dtype=[np.uint8, np.int8], stride=[1, 2], pad=[0, 1])
def qlinear_average_pool(rng: Rng, *, dtype: Any, stride: int, pad: int) -> Case:
    x = [integers(rng, dtype, 2, 4, 6, 5), scalar(0.02), scalar(3, dtype)]
    x += [scalar(0.03), scalar(5, dtype)]
    attrs = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [pad] * 4}
    model, feeds = node_model("QLinearAveragePool", x, opset=1, attrs=attrs, domain="com.microsoft")
    (y,) = expected_outputs(model, feeds)
    moved = [np.moveaxis(x[0], 1, -1), *x[1:]]
    return Case(
        moved, attrs | {"channels_last": 1}, expected=[np.moveaxis(y, 1, -1)], steps=1, opset=1
    )
