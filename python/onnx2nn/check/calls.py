"""Calls of torch operators, and the arithmetic of what they round."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Bound",
    "Call",
    "called_again",
    "flat",
    "for_each",
    "in_double",
    "is_zero",
    "most",
    "own_rounding",
    "size_of",
    "tensors_in",
    "unit_of",
]

# How many units in the last place of its largest term an operator may be off, both sides together.
_UNITS = 4.0
# Sums of more terms than this round by more: their error grows as a random walk does (Higham and Mary,
# A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019). Of equal terms
# it grows faster, which is why the number is small.
_SHORT_SUM = 1.0

# An error bound: one for all elements (0.0 is exact), or one each, in float64.
Bound = float | Tensor


class Call:
    """One call of an operator: what its outputs were made of."""

    __slots__ = ("args", "bounds", "func", "kwargs", "outs")

    def __init__(self, func: Any, args: Any, kwargs: Any, outs: list[Tensor]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        # Outputs without a way back to this call, which would keep them for good.
        self.outs = [o.detach() for o in outs]
        self.bounds: list[Bound] | None = None

    @property
    def name(self) -> str:
        return str(self.func._schema.name).removeprefix("aten::")


def flat(values: Iterable[Any]) -> Iterable[Any]:
    for v in values:
        if isinstance(v, (list, tuple)):
            yield from flat(v)
        elif isinstance(v, dict):
            yield from flat(v.values())
        else:
            yield v


def most(errors: Iterable[Bound]) -> float:
    """One bound for all elements."""
    worst = 0.0
    for e in errors:
        if isinstance(e, Tensor):
            worst = max(worst, float(e.max())) if e.numel() else worst
        else:
            worst = max(worst, e)
    return worst


def in_double(x: Any) -> Tensor:
    """A tensor or number in double precision, without infinities and NaN: as a size of terms."""
    t = x if isinstance(x, Tensor) else torch.as_tensor(x)
    t = t.abs() if t.is_complex() else t
    return torch.nan_to_num(t.to(torch.float64), nan=0.0, posinf=0.0, neginf=0.0)


def size_of(x: Tensor, kind: torch.dtype) -> Tensor:
    """The same as in_double, in a narrower type, of absolute values: weights may be large."""
    return torch.nan_to_num_(x.abs().to(kind), nan=0.0, posinf=0.0)


def unit_of(x: Tensor) -> float:
    """The unit in the last place of 1 in the type of x; 0 where arithmetic is exact."""
    return torch.finfo(x.dtype).eps if x.is_floating_point() or x.is_complex() else 0.0


def own_rounding(out: Tensor, size: Any, terms: float = 1.0) -> Tensor:
    """What summing `terms` terms that add up to `size` in absolute value may round, in out's type."""
    eps = unit_of(out)
    if eps == 0.0:
        return torch.zeros((), dtype=torch.float64)
    grown = max(1.0, math.sqrt(terms / _SHORT_SUM))
    # Subnormal numbers may be flushed to zero.
    return _UNITS * grown * eps * in_double(size).abs() + torch.finfo(out.dtype).smallest_normal


def for_each(error: Bound, like: Tensor) -> Tensor:
    """An error for each element."""
    if isinstance(error, Tensor) and error.shape == like.shape:
        return error
    return torch.full(like.shape, most([error]), dtype=torch.float64)


def is_zero(error: Bound) -> bool:
    return isinstance(error, float) and error == 0.0


def called_again(call: Call, change: Callable[[Any], Any]) -> Any:
    """The call's operator on changed operands."""

    def again(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(again(y) for y in x)
        return change(x)

    args = [again(a) for a in call.args]
    kwargs = {k: again(v) for k, v in call.kwargs.items()}
    return call.func(*args, **kwargs)


def tensors_in(result: Any) -> list[Tensor]:
    return [x for x in flat([result]) if isinstance(x, Tensor)]
