"""Normalisations at every opset, with weights that are constant and ones that are not."""

from typing import Any

import numpy as np
import pytest

from .harness import check, expected_outputs, node_model

RNG = np.random.default_rng(2)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Any:
    return (RNG.random(shape) + 0.5).astype(np.float32)


def batch_norm_inputs(*shape: int, stats: tuple[int, ...] = (3,)) -> list[Any]:
    return [normal(*shape), normal(*stats), normal(*stats), normal(*stats), positive(*stats)]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("opset", [1, 6, 7, 9, 14, 15])
@pytest.mark.parametrize("constants", [(1, 2, 3, 4), (1, 3), ()])
def test_batch_norm(shape: tuple[int, ...], opset: int, constants: tuple[int, ...]) -> None:
    attrs: dict[str, Any] = {"epsilon": 1e-3, "momentum": 0.8}
    if opset < 7:
        attrs["is_test"] = 1
    if opset == 1:
        attrs["consumed_inputs"] = [0, 0, 0, 1, 1]
    inputs = batch_norm_inputs(*shape)
    # No one has a kernel of opset 1: inference has not changed since.
    now = {"epsilon": 1e-3}
    wanted = expected_outputs(*node_model("BatchNormalization", inputs, opset=15, attrs=now))
    source = check(
        "BatchNormalization",
        inputs,
        opset=opset,
        attrs=attrs,
        constants=constants,
        expected=wanted,
    )
    rank = max(len(shape) - 2, 1)
    module = f"nn.BatchNorm{rank}d(3, eps=0.001, momentum=0.2)"
    assert (module in source) == (len(constants) == 4)


@pytest.mark.parametrize("opset", [7, 8])
def test_batch_norm_per_place(opset: int) -> None:
    inputs = batch_norm_inputs(2, 3, 4, 5, stats=(3, 4, 5))
    x, scale, bias, mean, var = inputs
    wanted = scale * (x - mean) / np.sqrt(var + np.float32(1e-5)) + bias
    check(
        "BatchNormalization",
        inputs,
        opset=opset,
        attrs={"spatial": 0},
        constants=[1, 2, 3, 4],
        expected=[wanted],
        rtol=1e-4,
    )


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("constants", [(1, 2, 3, 4), ()])
@pytest.mark.parametrize("opset", [14, 15])
def test_batch_norm_training(outputs: int, constants: tuple[int, ...], opset: int) -> None:
    x, scale, bias, mean, var = inputs = batch_norm_inputs(4, 3, 5, 2)
    batch_mean, batch_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    column = (1, 3, 1, 1)
    y = (x - batch_mean.reshape(column)) / np.sqrt(batch_var.reshape(column) + 1e-5)
    y = y * scale.reshape(column) + bias.reshape(column)
    new = [mean * 0.7 + batch_mean * 0.3, var * 0.7 + batch_var * 0.3]
    check(
        "BatchNormalization",
        inputs,
        opset=opset,
        attrs={"training_mode": 1, "momentum": 0.7},
        constants=constants,
        outputs=outputs,
        expected=[v.astype(np.float32) for v in [y, *new][:outputs]],
    )


def test_batch_norm_training_old() -> None:
    x, scale, bias, mean, var = inputs = batch_norm_inputs(4, 3, 5)
    batch_mean, batch_var = x.mean((0, 2)), x.var((0, 2))
    y = (x - batch_mean[:, None]) / np.sqrt(batch_var[:, None] + 1e-5)
    wanted = [
        y * scale[:, None] + bias[:, None],
        mean * 0.9 + batch_mean * 0.1,
        var * 0.9 + batch_var * 0.1,
        batch_mean,
        batch_var,
    ]
    wanted = [v.astype(np.float32) for v in wanted]
    for opset in (6, 7, 9):
        check("BatchNormalization", inputs, opset=opset, outputs=5, expected=wanted)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2), (2, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("opset", [1, 6, 22])
@pytest.mark.parametrize("constants", [(1, 2), ()])
@pytest.mark.parametrize("dynamic", [False, True])
def test_instance_norm(
    shape: tuple[int, ...], opset: int, constants: tuple[int, ...], dynamic: bool
) -> None:
    if dynamic and shape[2:] == (1, 1):
        pytest.skip("torch refuses one value a channel, where the size is not known before")
    attrs = {"epsilon": 1e-2}
    inputs = [normal(*shape), normal(3), normal(3)]
    source = check(
        "InstanceNormalization",
        inputs,
        opset=opset,
        attrs=attrs,
        constants=constants,
        dynamic=dynamic,
        rtol=1e-4,
    )
    assert ("nn.InstanceNorm" in source) == (bool(constants) and shape[2:] != (1, 1))


@pytest.mark.parametrize("axis", [-1, 1, 2, -2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("constants", [(1, 2), ()])
@pytest.mark.parametrize("outputs", [1, 3])
def test_layer_norm(axis: int, bias: bool, constants: tuple[int, ...], outputs: int) -> None:
    x = normal(2, 3, 4)
    shape = x.shape[axis:]
    inputs = [x, normal(*shape), *([normal(*shape)] if bias else [])]
    source = check(
        "LayerNormalization",
        inputs,
        opset=17,
        attrs={"axis": axis, "epsilon": 1e-3},
        constants=constants,
        outputs=outputs,
    )
    assert ("nn.LayerNorm(" in source) == (bool(constants) and outputs == 1)


@pytest.mark.parametrize("scale", [(4,), (1,), (3, 4), (1, 4)], ids=str)
def test_layer_norm_broadcast(scale: tuple[int, ...]) -> None:
    x, w = normal(2, 3, 4), normal(*scale)
    flat = x.reshape(2, -1)
    y = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    wanted = (y.reshape(x.shape) * w).astype(np.float32)
    for dynamic in (False, True):
        check(
            "LayerNormalization",
            [x, w],
            opset=17,
            attrs={"axis": 1},
            constants=[1],
            dynamic=dynamic,
            expected=[wanted],
        )


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("constants", [(1,), ()])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rms_norm(axis: int, constants: tuple[int, ...], dtype: Any) -> None:
    x = normal(2, 3, 4).astype(dtype)
    w = normal(*x.shape[axis:]).astype(dtype)
    tolerance = 1e-2 if dtype == np.float16 else 1e-5
    axes = tuple(range(axis % 3, 3))
    square = np.square(x.astype(np.float64)).mean(axes, keepdims=True)
    wanted = (x / np.sqrt(square + 1e-5) * w).astype(dtype)
    source = check(
        "RMSNormalization",
        [x, w],
        opset=23,
        attrs={"axis": axis},
        constants=constants,
        expected=[wanted],
        rtol=tolerance,
        atol=tolerance,
    )
    assert ("nn.RMSNorm(" in source) == bool(constants)


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("constants", [(1, 2), ()])
@pytest.mark.parametrize("dynamic", [False, True])
def test_group_norm(opset: int, groups: int, constants: tuple[int, ...], dynamic: bool) -> None:
    count = groups if opset == 18 else 4
    inputs = [normal(2, 4, 3, 5), normal(count), normal(count)]
    source = check(
        "GroupNormalization",
        inputs,
        opset=opset,
        attrs={"num_groups": groups, "epsilon": 1e-3},
        constants=constants,
        dynamic=dynamic,
    )
    assert ("nn.GroupNorm(" in source) == (
        bool(constants) and (opset == 21 or (groups == 4 and not dynamic))
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 6, 4, 5), (1, 6, 2, 3, 2)], ids=str)
def test_lrn(size: int, shape: tuple[int, ...]) -> None:
    x = normal(*shape) * 10
    square = np.zeros_like(x, np.float64)
    for channel in range(6):
        first = channel - (size - 1) // 2
        last = channel + -(-(size - 1) // 2) + 1
        square[:, channel] = np.square(x[:, max(first, 0) : last].astype(np.float64)).sum(1)
    wanted = (x / (2.0 + 0.01 / size * square) ** 0.6).astype(np.float32)
    attrs = {"size": size, "alpha": 0.01, "beta": 0.6, "bias": 2.0}
    for opset in (1, 13):
        check("LRN", [x], opset=opset, attrs=attrs, expected=[wanted])


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("opset", [1, 22])
def test_lp_normalization(p: int, axis: int, opset: int) -> None:
    x = normal(3, 4, 2)
    x[0] = 0
    norm = np.linalg.norm(x, p, axis, keepdims=True)
    wanted = np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm))
    attrs = {"p": p, "axis": axis}
    check("LpNormalization", [x], opset=opset, attrs=attrs, expected=[wanted])


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("axes", [None, [0, 1], [-1]])
def test_mean_variance_normalization(opset: int, axes: list[int] | None) -> None:
    attrs = {} if axes is None else {"axes": axes}
    check("MeanVarianceNormalization", [normal(2, 3, 4, 5)], opset=opset, attrs=attrs)
