"""Convolutions of doubles, of which ONNX Runtime has none, in programs of torch.export: as products of matrices."""

import itertools
from typing import Any

import torch

__all__ = ["as_products"]


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
