"""Convolutions that a runtime has no kernel for, in programs of torch.export.

Of doubles for ONNX Runtime, as products of matrices; of volumes for ExecuTorch, as convolutions of planes.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["as_products", "by_planes"]


def as_products(graph: Any, node: Any) -> None:
    """Add the products of a kernel's places up, in the place of a call of a convolution.

    Integers that were convolved exactly still are. Where what comes out is of no known size, nothing changes.
    """
    aten = torch.ops.aten
    x, w, bias, strides, pads, dilations, groups = _arguments(node)
    kernel, counts = w.meta["val"].shape[2:], node.meta["val"].shape[2:]
    if not all(isinstance(n, int) for n in (*kernel, *counts)):
        return
    with graph.inserting_before(node):

        def call(function: Any, *args: Any) -> Any:
            return graph.call_function(function, args)

        if any(pads):
            both = [p for p in reversed(pads) for _ in range(2)]
            x = call(aten.constant_pad_nd.default, x, both, 0.0)
        total = None
        for place in itertools.product(*map(range, kernel)):
            part, tap = x, w
            for axis, (at, n, step, wide) in enumerate(
                zip(place, counts, strides, dilations, strict=True), 2
            ):
                start = at * wide
                end = start + (n - 1) * step + 1
                part = call(aten.slice.Tensor, part, axis, start, end, step)
                tap = call(aten.select.int, tap, 2, at)
            part = call(aten.flatten.using_ints, part, 2)
            if groups > 1:
                part = call(aten.unflatten.int, part, 1, [groups, -1])
                tap = call(aten.unflatten.int, tap, 0, [groups, -1])
            product = call(aten.matmul.default, tap, part)
            total = product if total is None else call(aten.add.Tensor, total, product)
        if groups > 1:
            total = call(aten.flatten.using_ints, total, 1, 2)
        y = call(aten.unflatten.int, total, 2, list(counts))
        if bias is not None:
            y = call(aten.add.Tensor, y, call(aten.reshape.default, bias, [-1] + [1] * len(kernel)))
    node.replace_all_uses_with(y)
    graph.erase_node(node)


def by_planes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Tensor:
    """conv3d: for each place of the kernel along the first axis, frames as a batch of planes.

    x: (batch, channels, frames, height, width); weight: (out, channels / groups, depth, height, width).
    """
    strides, pads, wide = ([*v] * (3 // len(v)) for v in (stride, padding, dilation))
    x = F.pad(x, [0, 0, 0, 0, pads[0], pads[0]])
    depth = weight.shape[2]
    frames = (x.shape[2] - wide[0] * (depth - 1) - 1) // strides[0] + 1
    total: Tensor | None = None
    for k in range(depth):
        start = k * wide[0]
        part = x[:, :, start : start + (frames - 1) * strides[0] + 1 : strides[0]]
        planes = part.transpose(1, 2).flatten(0, 1)
        y = F.conv2d(
            planes,
            weight[:, :, k],
            bias if k == 0 else None,
            strides[1:],
            pads[1:],
            wide[1:],
            groups,
        )
        total = y if total is None else total + y
    assert total is not None
    return total.reshape(-1, frames, *total.shape[1:]).transpose(1, 2)


def _arguments(node: Any) -> list[Any]:
    """All arguments of a call of a convolution, one of each for each axis."""
    axes = node.meta["val"].dim() - 2
    out = []
    for k, argument in enumerate(node.target._schema.arguments):
        value = node.kwargs.get(argument.name, argument.default_value)
        value = node.args[k] if k < len(node.args) else value
        if argument.name in ("stride", "padding", "dilation"):
            value = [*value] * (axes // len(value))
        out.append(value)
    return out
