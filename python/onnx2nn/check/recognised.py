"""A module that has no hooks, such as source that was edited: its values are known by what they are.

Each result of a torch operator is held against the oracle's values that are still to come. One that fits,
within what rounding explains, takes the oracle's place from there on. What a conversion computes and the
edited module does not is where the edit is.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnx2nn.check.bounds import Tape, aside, unfused
from onnx2nn.check.compare import Comparison, Random, identical
from onnx2nn.check.drawn import Drawn, report_drawn
from onnx2nn.check.nodes import compare_node, difference, given_back
from onnx2nn.check.result import Answer, Report, describe
from onnx2nn.check.values import NodeValues
from onnx2nn.check.written import call_module

__all__ = ["Recogniser", "Replayed", "Seen", "check_recognised", "missing", "run_watched"]

# How many values of one shape and type that are still to come are tried for a result.
_TRIED = 8
# Elements of a value that are looked at first, and how far one may be off to be looked at further.
_SAMPLE, _FAR = 64, 0.05
# Values of fewer elements are too much alike to be told from one another.
_LEAST = 2


@dataclass
class Seen:
    """A result that fits no value: of what shape and type, after how many values, on which line."""

    after: int
    key: tuple[Any, ...]
    line: int | None
    closest: Comparison | None = None


_as_number = torch.ops.aten._local_scalar_dense.default


class Recogniser(Tape):  # type: ignore[no-untyped-call,unused-ignore]
    """Runs a module and finds the oracle's values among its results.

    want: the values by name, in the model's order. file: whose lines are noted.
    `found` says which were recognised, by the number of the result; `unfit` the other results.
    """

    def __init__(self, want: dict[str, Any], file: str | None = None) -> None:
        super().__init__()
        self._file = file
        self._want = {n: v for n, v in want.items() if _is_telling(v)}
        self._order = {n: k for k, n in enumerate(self._want)}
        self._open: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for name, value in self._want.items():
            self._open[_key(_as_tensor(value))].append(name)
        self.found: dict[int, str] = {}
        self.unfit: list[Seen] = []
        # What branches and turns are decided by, in order.
        self.scalars: list[Any] = []
        self._count, self._last = 0, -1

    @property
    def telling(self) -> list[str]:
        """The names that can be recognised at all, in order."""
        return list(self._want)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func is _as_number:
            return self._decided(result)
        # A view stays what it looks at, and what is written into stays where it is.
        stays = any(r.alias_info is not None for r in func._schema.returns)
        if isinstance(result, Tensor):
            return self._placed(result, stays)
        if isinstance(result, (tuple, list)):
            return type(result)(
                self._placed(x, stays) if isinstance(x, Tensor) else x for x in result
            )
        return result

    def _decided(self, number: Any) -> Any:
        self.scalars.append(number)
        return number

    def _placed(self, value: Tensor, stays: bool) -> Tensor:
        number, self._count = self._count, self._count + 1
        with torch.no_grad(), aside():
            placed = self._place(number, value)
        return value if stays else placed

    def _place(self, number: int, value: Tensor) -> Tensor:
        key = _key(value)
        names = self._open.get(key)
        if not names:
            return value
        closest: Comparison | None = None
        for name in names[:_TRIED]:
            want = self._want[name]
            if not _is_near(want, value):
                continue
            c = compare_node(name, want, value, self)
            if c.ok:
                names.remove(name)
                self.found[number] = name
                self._last = max(self._last, self._order[name])
                return self._put(want, value)
            if closest is None or (c.mse or 0.0) < (closest.mse or 0.0):
                closest = c
        self.unfit.append(Seen(self._last, key, self._line(), closest))
        return value

    def _put(self, want: Any, value: Tensor) -> Tensor:
        new = given_back(want, value, self)
        assert isinstance(new, Tensor)
        return new

    def _line(self) -> int | None:
        """The line of the module's file that is being run."""
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self._file:
            frame = frame.f_back  # type: ignore[assignment]
        return None if frame is None else frame.f_lineno


class Replayed(Recogniser):  # type: ignore[no-untyped-call,unused-ignore]
    """A second run of a module, on other values: its results are known by their numbers.

    first: the Recogniser of the first run, whose branches and turns are taken again.
    want: what each result should be; give: what to go on with.
    """

    def __init__(self, first: Recogniser, want: dict[str, Any], give: dict[str, Any]) -> None:
        super().__init__(want)
        self._places, self._all, self._give = first.found, want, give
        self._again = iter(first.scalars)
        self.compared: dict[str, Comparison] = {}

    def _decided(self, number: Any) -> Any:
        return next(self._again, number)

    def _place(self, number: int, value: Tensor) -> Tensor:
        name = self._places.get(number)
        if name is None or name not in self._all:
            return value
        want = self._all[name]
        self.compared[name] = compare_node(name, want, value, self)
        return self._put(self._give.get(name, want), value)


def _apart(real: dict[str, Any], turns: dict[str, set[str]]) -> dict[str, Any]:
    """Without the results of loops that are those of their first turn: a module has these once."""
    return {
        n: v
        for n, v in real.items()
        if not any(identical([v], [real[t]]) for t in turns.get(n, ()) if t in real)
    }


def run_watched(tape: Tape, net: nn.Module, feed: dict[str, Any], may_fail: bool = False) -> None:
    """Run a module under a tape, as far as it goes where it may fail."""
    try:
        with unfused(net), tape:
            call_module(net, feed)
    except Exception:
        # That a module fails has been reported already.
        if not may_fail:
            raise


def check_recognised(
    net: nn.Module,
    converted: nn.Module,
    names: list[str],
    drawn: list[Drawn],
    values: NodeValues,
    answer: Answer,
    report: Report,
    file: str | None = None,
) -> bool:
    """Find the values of a module that has no hooks; the first that it lacks is reported.

    converted: the model's own conversion, with the same weights, which says what can be recognised.
    file: the module's source. Returns whether nothing is missing; `report.nodes` then holds what was
    found.
    """
    real = _apart(values.right(names), values.turns)
    here = Recogniser(real)
    run_watched(here, converted, answer.feed)
    there = Recogniser(real, file)
    run_watched(there, net, answer.feed, may_fail=True)
    lost = missing(here, there)
    if lost is not None:
        name, instead = lost
        shown = {n: describe(n, v) for n, v in real.items()}
        report.first_difference = difference(values, answer, shown, name)
        where = f"nothing gives {name}"
        if instead is not None:
            report.first_difference.comparison = instead.closest
            if instead.line is not None:
                where = f"line {instead.line} gives something else than {name}"
        report.notes.append(f"the source differs from what the model is converted to: {where}")
        return False
    # What a loop gives follows from its first turn, which it starts from other values once these are given.
    inside = {n for first in values.turns.values() for n in first}
    outside = set(names) - inside
    for d in drawn:
        right = Replayed(here, d.want, d.give)
        run_watched(right, converted, d.feed)
        for judged in [inside, outside] if inside else [outside]:
            given = judged | outside
            other = Replayed(there, {n: v for n, v in d.want.items() if n in given}, d.give)
            run_watched(other, net, d.feed, may_fail=True)
            sure = {
                n: c
                for n, c in other.compared.items()
                if n in judged and n in right.compared and right.compared[n].ok
            }
            if report_drawn(sure, names, d, values, answer, report):
                return False
    found = set(there.found.values())
    report.nodes = [Comparison(n, True) for n in names if n in found]
    return True


def missing(conversion: Recogniser, other: Recogniser) -> tuple[str, Seen | None] | None:
    """The first value that a conversion's own run shows and another module's does not.

    With the result that came in its place, where there is one.
    """
    there, found = set(conversion.found.values()), set(other.found.values())
    for name in conversion.telling:
        if name in there and name not in found:
            key, order = _key(_as_tensor(conversion._want[name])), other._order[name]
            before = [s for s in other.unfit if s.key == key and s.after < order]
            seen = next((s for s in before if s.after == order - 1), before[-1] if before else None)
            closest = seen.closest if seen is not None else None
            if closest is not None and other._order[closest.name] < order:
                # What came in place of an earlier value; that was found in a later one much like it.
                return closest.name, seen
            return name, seen
    return None


def _is_telling(value: Any) -> bool:
    return (
        not isinstance(value, Random)
        and isinstance(value, np.ndarray)
        and value.dtype.kind in "fiub"
        and value.dtype.name in _TORCH
        and value.size >= _LEAST
    )


_TORCH = {"float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"}


def _as_tensor(value: Any) -> Tensor:
    return torch.from_numpy(value)


def _key(value: Tensor) -> tuple[Any, ...]:
    return (value.dtype, *value.shape)


def _is_near(want: Any, value: Tensor) -> bool:
    """Whether a few elements are much alike."""
    flat = value.detach().reshape(-1)
    at = torch.linspace(0, flat.numel() - 1, min(_SAMPLE, flat.numel())).to(torch.int64)
    got = flat[at].to(torch.float64).numpy()
    wanted = want.reshape(-1)[at.numpy()].astype(np.float64)
    with np.errstate(all="ignore"):
        gap = np.nan_to_num(np.abs(got - wanted), nan=0.0, posinf=0.0)
        size = np.nan_to_num(np.maximum(np.abs(got), np.abs(wanted)), nan=0.0, posinf=0.0)
    return bool((gap <= _FAR * np.maximum(size, size.mean())).mean() > 0.8)
