"""Operators in the form that everything which computes the same comes to.

Elementwise operators and operators on rows keep the order of what they read, so that the layouts of the
tensors between do not show. Weights of products are cut where their results are: one projection of
queries, keys and values is the same as three. Attention is one operator, whatever its steps were.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from onnx2nn.transfer.values import NORM, Value, View, constant, places, rows_of, seen, whole

__all__ = [
    "attention_or_product",
    "batch_norm",
    "convolution",
    "each",
    "embedding",
    "group_norm",
    "layer_norm",
    "patches",
    "plus",
    "product",
    "reduced",
    "softmax",
]

# How many operators may stand between scores and their softmax.
_DEPTH = 12
_ON_SCORES = {"add", "sub", "mul", "where", "masked_fill", "maximum"}


def each(op: str, args: Sequence[View], literals: tuple[Any, ...], shape: Sequence[int]) -> View:
    """An elementwise operator, in the order of the tensor that it is mostly about."""
    args = [_broadcast(a, shape) for a in args]
    size = math.prod(shape)
    order = _order(args)
    if order is not None:
        args = [a.at(order) for a in args]
    if op in ("add", "mul") and len(args) == 2 and _comes_later(*args):
        args = args[::-1]
    value = Value(op, tuple(args), literals, size, each=True)
    return (
        whole(value, shape)
        if order is None
        else View((value,), tuple(shape), _turned(order, shape))
    )


def _comes_later(x: View, y: View) -> bool:
    """Whether x is to be the second of two that commute: constants are, else the sign decides."""
    return x.is_constant or (not y.is_constant and y.sign < x.sign)


def _turned(order: Tensor, shape: Sequence[int]) -> Tensor:
    return order.argsort().reshape(tuple(shape))


def _broadcast(x: View, shape: Sequence[int]) -> View:
    if x.shape == tuple(shape):
        return x
    index = places(x).expand(tuple(shape))
    if x.size == math.prod(shape):
        return x.reshaped(shape)
    return View(x.values, tuple(shape), index) if x.is_constant else seen(x.values, index)


def _order(args: Iterable[View]) -> Tensor | None:
    """The order of the elements of the argument that says most, None where it is as it should be."""
    open_args = [a for a in args if not a.is_constant]
    open_args.sort(key=lambda a: (not a.weighted, len(a.values), a.index is not None, a.sign))
    for a in open_args:
        if a.index is None:
            return None
        ordered, order = a.index.reshape(-1).sort()
        if bool((ordered[1:] > ordered[:-1]).all()):
            return None if bool((order[1:] > order[:-1]).all()) else order
    return None


def plus(x: View, bias: View | None) -> View:
    return x if bias is None else each("add", (x, bias), (), x.shape)


def _by_rows(
    op: str,
    x: View,
    rest: tuple[View, ...],
    literals: tuple[Any, ...],
    width: int,
    at: Tensor | None,
) -> View:
    """The result of an operator on the rows of x, which are then put where `at` says."""
    rows = x.shape[0]
    value = Value(op, (x, *rest), literals, rows * width, width)
    if at is None:
        return whole(value, (rows, width))
    return View((value,), (rows, width), at[:, None] * width + torch.arange(width))


def product(x: View, weight: View) -> View:
    """[rows, k] times a constant of [k, columns]."""
    rows, at, columns = rows_of(x, x.shape[-1])
    if columns is not None:
        weight = seen(weight.values, places(weight)[columns])
    return _by_rows("mm", rows, (weight,), (), weight.shape[1], at)


def embedding(table: View, index: View) -> View:
    """Rows of a constant table."""
    rows, at, _ = rows_of(index.reshaped((index.size, 1)), 1)
    width = table.size // table.shape[0]
    out = _by_rows("embedding", rows, (table.reshaped((table.shape[0], width)),), (), width, at)
    return out.reshaped((*index.shape, *table.shape[1:]))


def layer_norm(
    x: View, width: int, weight: View | None, bias: View | None, eps: Any, op: str = "layer_norm"
) -> View:
    """The last dims, `width` elements together, are brought to mean 0 and variance 1."""
    rows, at, columns = rows_of(x, width)
    out = _by_rows(op, rows, (), (eps,), width, at)
    if columns is not None:
        back = torch.arange(out.size).reshape(out.shape)[:, columns.argsort()]
        out = seen(out.values, places(out).reshape(-1)[back])
    out = out.reshaped(x.shape)
    if weight is not None:
        out = each("mul", (out, weight), (), x.shape)
    return plus(out, bias)


def group_norm(x: View, groups: int, weight: View | None, bias: View | None, eps: Any) -> View:
    """[batch, channels, ...]: a layer norm of each group, whose weights are by channel."""
    grouped = x.reshaped((x.shape[0] * groups, x.size // (x.shape[0] * groups)))
    out = layer_norm(grouped, grouped.shape[1], None, None, eps).reshaped(x.shape)
    if weight is not None:
        out = each("mul", (out, _by_channel(weight, x)), (), x.shape)
    return plus(out, None if bias is None else _by_channel(bias, x))


def _by_channel(c: View, x: View) -> View:
    return c.reshaped((c.size, *[1] * (len(x.shape) - 2)))


def batch_norm(args: Sequence[View], eps: Any) -> View:
    """By the statistics that it has: x, weight, bias, mean and variance."""
    x = args[0]
    return each(NORM, (x, *(_by_channel(c, x) for c in args[1:])), (eps,), x.shape)


def softmax(x: View, dim: int, op: str) -> View:
    width = x.shape[dim]
    moved = _moved(x, dim)
    rows, at, columns = rows_of(moved, width)
    out = _by_rows(op, rows, (), (), width, at)
    if columns is not None:
        out = out.at(torch.arange(out.size).reshape(out.shape)[:, columns.argsort()])
    return _moved(out.reshaped(moved.shape), -1, dim)


def _moved(x: View, source: int, target: int = -1) -> View:
    rank = len(x.shape)
    if source % rank == target % rank:
        return x
    return seen(x.values, places(x).movedim(source, target))


def reduced(op: str, x: View, dims: Sequence[int], shape: Sequence[int]) -> View:
    """A sum, mean or maximum over some dims."""
    rank = len(x.shape)
    over = sorted({d % rank for d in dims} if dims else range(rank))
    width = math.prod(x.shape[d] for d in over)
    moved = x
    if over != list(range(rank - len(over), rank)):
        ends = [d for d in range(rank) if d not in over]
        moved = seen(x.values, places(x).permute([*ends, *over]))
    rows, at, _ = rows_of(moved, width)
    return _by_rows(op, rows, (), (), 1, at).reshaped(tuple(shape))


def convolution(
    x: View, weight: View, bias: View | None, rest: tuple[Any, ...], shape: Sequence[int]
) -> View:
    value = Value("convolution", (x, weight), rest, math.prod(shape))
    return plus(whole(value, shape), None if bias is None else _by_channel(bias, x))


def patches(x: View, weight: View, bias: View | None, shape: Sequence[int]) -> View:
    """A convolution whose windows do not overlap: a product with each of them."""
    kernel = weight.shape[2:]
    index = places(x)
    for d, k in enumerate(kernel):
        index = index.unfold(2 + d, k, k)
    rank = len(kernel)
    # [batch, channels, windows..., kernel...] to a row for each window.
    index = index.permute(0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    rows = seen(x.values, index.reshape(-1, weight.size // weight.shape[0]))
    turned = seen(weight.values, places(weight).reshape(weight.shape[0], -1).t())
    out = plus(product(rows, turned), bias)
    last = (shape[0], *shape[2:], shape[1])
    return _moved(out.reshaped(last), -1, 1)


# ---- Products of two tensors ----


def attention_or_product(a: View, b: View) -> View:
    """[batch, n, k] times [batch, k, m]."""
    batch, n, m = a.shape[0], a.shape[1], b.shape[2]
    weight = _same_in_all(b)
    if weight is not None:
        return product(a.reshaped((batch * n, a.shape[2])), weight).reshaped((batch, n, m))
    weight = _same_in_all(a)
    if weight is not None:
        turned = seen(b.values, places(b).transpose(1, 2).reshape(batch * m, -1))
        across = seen(weight.values, places(weight).t())
        out = product(turned, across).reshaped((batch, m, n))
        return _moved(out, 1, 2)
    (a, left), (b, right) = _unscaled(a), _unscaled(b)
    order = [torch.arange(d) for d in (batch, n, a.shape[2], m)]
    if a.index is not None:
        order[:3] = [
            a.index[:, 0, 0].argsort(),
            a.index[0, :, 0].argsort(),
            a.index[0, 0].argsort(),
        ]
        a = seen(a.values, _picked(a.index, order[0], order[1], order[2]))
    if b.index is not None:
        order[3] = b.index[0, 0].argsort()
    b = seen(b.values, _picked(places(b), order[0], order[2], order[3]))
    found = _attention(a, b)
    value = found or Value("bmm", (a, b), (), batch * n * m)
    at = torch.arange(value.size).reshape(batch, n, m)
    at = _picked(at, order[0].argsort(), order[1].argsort(), order[3].argsort())
    out = seen((value,), at)
    scale = left * right
    return out if scale == 1 else each("mul", (out, constant(torch.tensor(scale))), (), out.shape)


def _picked(index: Tensor, i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    return index[i][:, j][:, :, k]


def _same_in_all(x: View) -> View | None:
    """The matrix that a constant repeats for each of a batch."""
    if not x.is_constant:
        return None
    t = x.tensor()
    if not bool((t == t[:1]).all()):
        return None
    return seen(x.values, places(x)[0])


def _unscaled(x: View) -> tuple[View, float]:
    """A tensor without the numbers that it is multiplied with, and their product."""
    scale = 1.0
    while len(x.values) == 1 and (found := x.values[0].with_constant("mul")):
        inner, c = found
        if not c.is_number:
            break
        scale *= float(c.values[0].constant or 0.0)
        x = inner.reshaped(x.shape) if x.index is None else inner.at(x.index)
    return x, scale


def _attention(weights: View, v: View) -> Value | None:
    """Attention, where the first factor is a softmax of scores: queries, keys, values and biases."""
    if weights.alone is None or weights.alone.op != "softmax":
        return None
    biases: list[View] = []
    scores = _scores(weights.alone.args[0], biases, _DEPTH)
    if scores is None:
        return None
    fixed = [b.tensor().reshape(-1) for b in biases if b.is_constant]
    # What is the same everywhere, such as a mask that hides nothing, does nothing.
    fixed = [b for b in fixed if b.is_floating_point() and not bool((b == b[0]).all())]
    args = [*scores.args, v, *(b for b in biases if not b.is_constant)]
    if fixed:
        args.append(constant(torch.stack(fixed).sum(0)))
    return Value("attention", tuple(args), (), weights.shape[0] * weights.shape[1] * v.shape[2])


def _scores(x: View, biases: list[View], depth: int) -> Value | None:
    """The product that a softmax is of; what is added to it, or masks it, goes to `biases`."""
    value = x.alone
    if value is None or value.op == "bmm" or depth == 0:
        return value if value is not None and value.op == "bmm" else None
    if value.op not in _ON_SCORES:
        return None
    for k, arg in enumerate(value.args):
        found = _scores(arg, biases, depth - 1)
        if found is not None:
            biases += [b for j, b in enumerate(value.args) if j != k and not b.is_number]
            return found
    return None
