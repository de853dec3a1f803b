"""Graphs in which no data is moved: what an operator reads is a view of other operators' results.

A view says for each of its elements which element of which result it is. So a transpose, a slice, a join
and any chain of them are the same thing, and results have an order of their own, which the operators of
`normal_form` choose so that it depends on what is computed alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["NORM", "Value", "View", "constant", "places", "rows_of", "seen", "whole"]

NORM = "batch_norm"
# How many operators a selection of elements is carried through.
_DEPTH = 64
_COMMUTATIVE = {"add", "mul", "maximum", "minimum"}
# Odd, so that products with it are all different.
_SPREAD = 0x9E3779B97F4A7C1


@dataclass(eq=False)
class Value:
    """A result of an operator, an input or a constant, as a row of `size` elements.

    literals: arguments that are no tensors. width: of operators that work on rows, how many elements
    of the result come from one; 0 where there are no rows. each: whether each element comes from those
    at the same place of the arguments. sign: a hash of all that it is made of, biases, batch norms
    and masks of attention left out. weighted: whether constants of more than one element go into it.
    """

    op: str
    args: "tuple[View, ...]" = ()
    literals: tuple[Any, ...] = ()
    size: int = 0
    width: int = 0
    each: bool = False
    constant: Tensor | None = None
    sign: int = 0
    weighted: bool = False
    _parts: "dict[bytes, Value | None]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        signs = [a.sign for a in self.args]
        if self.constant is not None:
            self.size = self.constant.numel()
            self.sign = hash("constant")
            self.weighted = self.size > 1
            return
        self.weighted = any(a.weighted for a in self.args)
        core, constants = self.added()
        if constants:
            self.sign = core.sign
        elif self.op == NORM:
            self.sign = signs[0]
        elif self.op == "attention":
            self.sign = hash((self.op, self.size, *signs[:3]))
        else:
            signs = sorted(signs) if self.commutes else signs
            self.sign = hash((self.op, self.literals, self.size, *signs))

    @property
    def commutes(self) -> bool:
        """Whether its arguments may come in either order."""
        return self.op in _COMMUTATIVE and len(self.args) == 2

    def with_constant(self, op: str) -> "tuple[View, View] | None":
        """Its two arguments where it is this operator, the second one a constant and not the first."""
        if self.op != op or len(self.args) != 2:
            return None
        x, c = self.args
        return (x, c) if not x.is_constant and c.is_constant else None

    def added(self) -> "tuple[View, list[View]]":
        """What it is without the constants that are added last, and these."""
        core, constants = whole(self), list["View"]()
        while core.alone is not None and (found := core.alone.with_constant("add")):
            core = found[0]
            constants.append(found[1])
        return core, constants[::-1]

    def part(self, used: Tensor, depth: int = 0) -> "Value | None":
        """The value with the elements at these sorted places alone, None where it has no such form."""
        key = used.numpy().tobytes()
        if key not in self._parts:
            self._parts[key] = _part(self, used, depth) if depth < _DEPTH else None
        return self._parts[key]


@dataclass(eq=False)
class View:
    """A tensor: elements of values, laid one after the other, by their places.

    index: int64, of the tensor's shape; None for all elements of one value in their order.
    """

    values: tuple[Value, ...]
    shape: tuple[int, ...]
    index: Tensor | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def alone(self) -> Value | None:
        """The value that it is all of, in order."""
        return self.values[0] if self.index is None else None

    @property
    def is_constant(self) -> bool:
        """Whether no input goes into it."""
        return all(v.constant is not None for v in self.values)

    @property
    def is_number(self) -> bool:
        """Whether it is one constant number, in each of its places."""
        return self.is_constant and len(self.values) == 1 and self.values[0].size == 1

    @property
    def weighted(self) -> bool:
        return any(v.weighted for v in self.values)

    @property
    def sign(self) -> int:
        if self.is_constant or self.index is None:
            return self.values[0].sign
        flat = self.index.reshape(-1)
        mixed = int((flat * (torch.arange(len(flat)) * _SPREAD + 1)).sum())
        return hash((mixed, *(v.sign for v in self.values)))

    def tensor(self) -> Tensor:
        """The elements of a constant."""
        parts = [v.constant.reshape(-1) for v in self.values if v.constant is not None]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        return joined.reshape(self.shape) if self.index is None else joined[self.index]

    def once(self) -> Tensor:
        """The elements of a constant, not more often than a broadcast needs."""
        index = self.index
        if index is None:
            return self.tensor()
        for d, step in enumerate(index.stride()):
            index = index.narrow(d, 0, 1) if step == 0 else index
        return View(self.values, tuple(index.shape), index).tensor()

    def reshaped(self, shape: Sequence[int]) -> "View":
        index = None if self.index is None else self.index.reshape(shape)
        return View(self.values, tuple(shape), index)

    def at(self, index: Tensor, depth: int = 0) -> "View":
        """The elements at places of this view."""
        return seen(self.values, places(self).reshape(-1)[index], depth)


def whole(value: Value, shape: Sequence[int] | None = None) -> View:
    """All elements of a value in their order."""
    return View((value,), (value.size,) if shape is None else tuple(shape))


def constant(x: Tensor) -> View:
    return whole(Value("constant", constant=x), x.shape)


def places(view: View) -> Tensor:
    """The places of a view's elements, of its shape."""
    if view.index is not None:
        return view.index
    return torch.arange(view.size).reshape(view.shape)


def seen(values: Sequence[Value], index: Tensor, depth: int = 0, cut: bool = True) -> View:
    """A view, in the form that equal ones share: no value twice, none in vain.

    cut: whether a value of which only a part is used is made in part, where it can be. Parts that are
    about to be joined again are not.
    """
    shape = tuple(index.shape)
    if len(values) == 1 and values[0].constant is not None:
        return View((values[0],), shape, index)
    if not index.numel():
        return constant(torch.zeros(shape))
    flat = index.reshape(-1)
    if len(values) > 1:
        values, flat = _merged(values, flat)
        if all(v.constant is not None for v in values):
            return constant(View(tuple(values), shape, flat.reshape(shape)).tensor())
    kept: list[Value] = []
    moved = torch.empty_like(flat)
    start = total = 0
    for v in values:
        inside = slice(None) if len(values) == 1 else (flat >= start) & (flat < start + v.size)
        at = flat[inside] - start
        start += v.size
        used = torch.zeros(v.size, dtype=torch.bool)
        used[at] = True
        some = (
            None if not cut or bool(used.all()) else v.part(used.nonzero().reshape(-1), depth + 1)
        )
        if some is not None:
            at = (used.cumsum(0) - 1)[at]
        moved[inside] = at + total
        kept.append(v if some is None else some)
        total += kept[-1].size
    if len(kept) == 1 and kept[0].size == len(moved) and _in_order(moved):
        return View((kept[0],), shape)
    return View(tuple(kept), shape, moved.reshape(shape))


def _in_order(flat: Tensor) -> bool:
    return bool((flat == torch.arange(len(flat))).all())


def _merged(values: Sequence[Value], flat: Tensor) -> tuple[list[Value], Tensor]:
    """The values that are used, each once, in the order in which they come first."""
    starts = torch.tensor([0, *(v.size for v in values)]).cumsum(0)
    which = torch.bucketize(flat, starts[1:], right=True)
    inner = flat - starts[which]
    first = torch.full((len(values),), len(flat))
    first.scatter_reduce_(0, which, torch.arange(len(flat)), "amin")
    order: dict[int, Value] = {}
    for k in first.argsort().tolist():
        if first[k] < len(flat):
            order.setdefault(id(values[k]), values[k])
    begin, total = dict[int, int](), 0
    for key, v in order.items():
        begin[key] = total
        total += v.size
    moved = torch.tensor([begin.get(id(v), 0) for v in values])
    return list(order.values()), inner + moved[which]


def _part(value: Value, used: Tensor, depth: int) -> Value | None:
    if value.constant is not None:
        return Value("constant", constant=value.constant.reshape(-1)[used])
    if value.each:
        args = tuple(a.at(used, depth) for a in value.args)
        return Value(value.op, args, value.literals, len(used), each=True)
    if not value.width:
        return None
    rows = torch.unique(used.div(value.width, rounding_mode="floor"))
    columns = torch.unique(used % value.width)
    if len(rows) * len(columns) != len(used):
        return None
    if len(columns) == value.width:
        return _of_rows(value, rows, value.args[1:], len(columns), depth)
    if value.op not in ("mm", "embedding"):
        return None
    chosen = places(value.args[1])[:, columns]
    weight = seen(value.args[1].values, chosen)
    return _of_rows(value, rows, (weight,), len(columns), depth)


def _of_rows(
    value: Value, rows: Tensor, rest: Iterable[View], width: int, depth: int
) -> Value | None:
    x = value.args[0]
    if len(rows) * x.shape[-1] != x.size:
        wide = x.shape[-1]
        x = x.at((rows[:, None] * wide + torch.arange(wide)), depth)
    return Value(value.op, (x, *rest), value.literals, len(rows) * width, width)


def rows_of(x: View, width: int) -> tuple[View, Tensor | None, Tensor | None]:
    """A tensor as rows of this width, in the order of the values that it views.

    Gives the rows, the place of each row among them, and the old place of each column; None where they
    are as they were.
    """
    shape = (-1, width) if width else (x.size, 1)
    if x.index is None:
        return x.reshaped((x.size // shape[1], shape[1])), None, None
    index = x.index.reshape(shape)
    columns = index[0].argsort()
    index = index[:, columns]
    order = index[:, 0].argsort(stable=True)
    found = seen(x.values, index[order])
    at = None if _in_order(order) else order.argsort()
    return found, at, None if _in_order(columns) else columns
