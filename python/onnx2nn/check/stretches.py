"""Two graphs compared stretch by stretch: between the values that both name, on equal inputs.

What one graph computes between two such values the other computes by other operators, so that both
round differently, and what follows may make much of that. Here what follows is left out: each
stretch of the second graph gets the first one's own values, and its answer is held against what the
rounding of the first allows.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx2nn.check.compare import Comparison, compare, identical, is_float
from onnx2nn.check.oracle import OracleDied, OracleError
from onnx2nn.check.pieces import EPSILONS, Graph, constant_value

__all__ = ["Allowance", "Stretches", "compare_stretches", "rounding"]

# What the values of one run may hold together.
_BATCH_BYTES = 256 * 2**20
# How often the last digits are moved to see what that does, and by how much more another order of
# the same sums may move a value: than the most that was seen of the element, and than is usual.
_DRAWS = 4
_OF_ELEMENT, _OF_ALL, _ULPS = 4.0, 1.0, 4.0
# Near a tie of a quantiser elements fall on the other side, though not the same ones each time.
_OF_FLIPS = 4

# How many nodes on to look for what a name means now, and how often that may change what others mean.
_AHEAD = 8
_ROUNDS = 4
_FLOATS = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
}

# What is said of a value that differs: the value, and the value with last digits moved, several times.
Allowance = Callable[[Any, list[Any]], Any]


@dataclass
class Stretches:
    """What was compared: each value that both graphs name, on the first graph's own inputs."""

    compared: list[Comparison] = field(default_factory=list)
    # Values that the oracle itself gives differently each time.
    unstable: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[Comparison]:
        """Those that differ by more than rounding."""
        return [c for c in self.compared if not c.ok]


def rounding(want: Any, moved: list[Any]) -> Any:
    """How far each element of a floating value may be off, by how it moves with the last digits
    of all that goes into it."""
    exact = _wide(want)
    most = np.zeros(want.shape)
    for m in moved:
        if m.shape == want.shape:
            with np.errstate(all="ignore"):
                gap = np.abs(_wide(m) - exact)
            most = np.maximum(most, np.where(np.isfinite(gap), gap, 0.0))
    usual = float(np.sqrt((most**2).mean())) if most.size else 0.0
    epsilon = EPSILONS.get(want.dtype.name, 2.0**-2)
    return _OF_ELEMENT * most + _OF_ALL * usual + _ULPS * epsilon * np.abs(exact)


def compare_stretches(
    original: Graph,
    target: Graph,
    feed: dict[str, Any],
    fixed: dict[str, Any],
    allowance: Allowance = rounding,
) -> Stretches:
    """Compare all tensors that nodes of both graphs make, for one set of inputs.

    A rule may have left a name to what is made of the value that had it: such a name is held against
    that. fixed: values that are taken as they are in both graphs, such as those drawn at random.
    Raises OracleError where the oracle takes the pieces not to be models.
    """
    return _Comparer(original, target, feed, fixed, allowance).compare()


class _Comparer:
    def __init__(
        self,
        original: Graph,
        target: Graph,
        feed: dict[str, Any],
        fixed: dict[str, Any],
        allowance: Allowance,
    ) -> None:
        self._original, self._target = original, target
        self._feed, self._fixed, self._allowance = feed, fixed, allowance
        names = [n for n in original.makers if n not in fixed]
        self._kinds = original.types(names, fixed) if names else {}
        names = [n for n in names if self._kinds.get(n, "tensor(").startswith("tensor(")]
        self._tensors = names
        self._common = [n for n in names if n in target.makers or n in target.constants]
        self._sizes: dict[str, int] = {}
        if names:
            # Of some types there is no size to be had; what has them is small.
            with contextlib.suppress(OracleError):
                self._sizes = original.sizes(names, fixed, feed)
        # By name in the target: the name in the original of what it is there.
        self._meaning: dict[str, str] = {}
        self._found: dict[str, Comparison] = {}
        self._unstable: set[str] = set()

    def compare(self) -> Stretches:
        todo = self._common
        for _ in range(_ROUNDS):
            self._compare(todo)
            known = set(self._meaning)
            self._find_meanings()
            new = set(self._meaning) - known
            if not new:
                break
            todo = [n for n in self._common if self._needs(n) & new]
        compared = [self._found[n] for n in self._common if n in self._found]
        return Stretches(compared, sorted(self._unstable))

    @property
    def _cut(self) -> set[str]:
        return {*self._common, *self._fixed}

    def _needs(self, name: str) -> set[str]:
        return self._target.needs([name], self._cut) if name in self._target.makers else set()

    def _compare(self, names: list[str]) -> None:
        """Compare these values of the target, each stretch on the original's inputs."""
        for batch in _batches(names, self._sizes):
            made = [n for n in batch if n in self._target.makers]
            needed = self._target.needs(made, self._cut)
            meant = {n: self._meaning.get(n, n) for n in [*batch, *needed]}
            values = self._values(meant.values())
            got = {n: constant_value(self._target, n) for n in batch if n not in made}
            if made:
                given = {n: values[meant[n]] for n in needed}
                # A value that the batch makes and reads is the original's where it is read.
                given |= {n: values[meant[n]] for n in made}
                got.update(self._target.run(made, given, self._feed))
            self._judge({n: (meant[n], got[n]) for n in batch}, values)

    def _values(self, names: Iterable[str]) -> dict[str, Any]:
        """The original's values by name; notes those that it gives differently a second time."""
        wanted = [n for n in dict.fromkeys(names) if n not in self._fixed]
        if not wanted:
            return dict(self._fixed)
        piece = self._original.piece(wanted, self._fixed)
        values, again = (piece({**self._feed, **self._fixed}) for _ in range(2))
        self._unstable |= {n for n in wanted if not compare(n, values[n], again[n]).ok}
        return {**values, **self._fixed}

    def _judge(self, pairs: dict[str, tuple[str, Any]], values: dict[str, Any]) -> None:
        """Judge the target's values, by name: what they are to be, and what they are."""
        pairs = {n: p for n, p in pairs.items() if p[0] not in self._unstable}
        doubtful = [m for n, (m, got) in pairs.items() if not identical(values[m], got)]
        moved = self._moved(list(dict.fromkeys(doubtful))) if doubtful else {}
        for n, (meant, got) in pairs.items():
            self._found[n] = _judged(n, values[meant], got, moved.get(meant, []), self._allowance)

    def _find_meanings(self) -> None:
        """For values that differ, look among what the original makes of them, by names that are
        gone, for one that does not."""
        for name, c in list(self._found.items()):
            if c.ok or name in self._meaning or name in self._target.constants:
                continue
            later = self._original.made_of(name, _AHEAD)
            later = [n for n in later if n in self._tensors and n not in self._common]
            later = [n for n in later if self._sizes.get(n) == self._sizes.get(name)]
            if not later:
                continue
            needed = self._needs(name)
            meant = {n: self._meaning.get(n, n) for n in needed}
            values = self._values([*later, *meant.values()])
            given = {n: values[m] for n, m in meant.items()}
            got = self._target.run([name], given, self._feed)[name]
            for other in later:
                self._judge({name: (other, got)}, values)
                if self._found[name].ok:
                    self._meaning[name] = other
                    break
            else:
                self._found[name] = c

    def _moved(self, wanted: list[str]) -> dict[str, list[Any]]:
        """Values of the original, several times, with the last digits of all that goes into them
        moved."""
        rng = np.random.default_rng(0)
        cut = self._cut - set(wanted)
        needed = self._original.needs(wanted, cut)
        values = self._values(needed)
        given = {n: values[n] for n in needed}
        inside = self._original.inside(wanted, cut)
        noisy = {n: _FLOATS[self._kinds[n]] for n in inside if self._kinds.get(n) in _FLOATS}
        found: dict[str, list[Any]] = {n: [] for n in wanted}
        for added in (noisy, {}):
            try:
                piece = self._original.piece(wanted, given, added)
                for _ in range(_DRAWS):
                    nudged = {n: _nudged(rng, v) for n, v in {**self._feed, **given}.items()}
                    for n, value in piece(nudged).items():
                        found[n].append(value)
                return found
            except OracleDied:
                raise
            except Exception:  # sizes that are computed as floats are not to be moved
                found = {n: [] for n in wanted}
        return found


def _batches(names: list[str], sizes: dict[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    total = 0
    for name in names:
        size = 8 * sizes.get(name, 0)
        if batch and total + size > _BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += size
    if batch:
        yield batch


def _nudged(rng: np.random.Generator, value: Any) -> Any:
    """An array with each element one unit in its last place up or down."""
    if not isinstance(value, np.ndarray) or value.dtype.name not in EPSILONS:
        return value
    up = np.nextafter(value, value.dtype.type(np.inf))
    down = np.nextafter(value, value.dtype.type(-np.inf))
    finite = np.isfinite(_wide(value))
    return np.where(finite, np.where(rng.integers(0, 2, value.shape), up, down), value).astype(
        value.dtype
    )


def _judged(name: str, want: Any, got: Any, moved: list[Any], allowance: Allowance) -> Comparison:
    """A value compared by what its own rounding allows."""
    c = compare(name, want, got)
    if identical(want, got):
        c.ok, c.reason = True, None
        return c
    if want.shape != got.shape or want.dtype != got.dtype or want.dtype.kind in "OUST":
        return c
    if is_float(want.dtype):
        a, b = _wide(want), _wide(got)
        with np.errstate(all="ignore"):
            gap = np.abs(a - b)
        allowed = allowance(want, moved)
        alike = (a == b) | (np.isnan(a) & np.isnan(b))
        wrong = ~alike & ~(np.isfinite(gap) & (gap <= allowed))
        c.ok = not wrong.any()
        c.reason = None if c.ok else f"{int(wrong.sum())} of {want.size} differ beyond rounding"
        return c
    flips = max((int((m != want).sum()) for m in moved if m.shape == want.shape), default=0)
    count = int((got != want).sum())
    c.ok = count <= _OF_FLIPS * flips
    c.reason = None if c.ok else f"{count} of {want.size} differ"
    return c


def _wide(x: Any) -> Any:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
