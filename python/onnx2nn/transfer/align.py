"""Two graphs laid side by side from their outputs: which constant of one is which of the other."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from onnx2nn.transfer.marks import Marks
from onnx2nn.transfer.values import NORM, Value, View, whole

__all__ = ["Alignment", "align", "constants_of"]

# Operators that have weights, and inputs: what lies between may be said otherwise.
_ANCHORS = {"mm", "convolution", "embedding", "layer_norm", "rms_norm", "attention", NORM}


class Alignment:
    """Where two graphs differ: pairs of what the model has and what the module has instead."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._done: set[tuple[int, int]] = set()
        self.differences: list[tuple[View, View]] = []
        self.folded = 0  # batch norms that the model no longer has

    def walk(self, pairs: Iterable[tuple[View, View]]) -> None:
        """Lay pairs of tensors side by side, and all that they are made of."""
        stack = list(pairs)[::-1]
        while stack:
            a, b = stack.pop()
            if a.is_constant and b.is_constant:
                self._pair(a, b)
                continue
            if len(a.values) != len(b.values) or a.size != b.size:
                self.differences.append((a, b))
                continue
            if not _same_index(a, b):
                self.differences.append((a, b))
            for x, y in zip(a.values, b.values, strict=True):
                if (id(x), id(y)) not in self._done:
                    self._done.add((id(x), id(y)))
                    stack += self._values(x, y)[::-1]

    def _values(self, a: Value, b: Value) -> list[tuple[View, View]]:
        """What else has to be equal where two values are."""
        if a.constant is not None and b.constant is not None:
            self._pair(whole(a), whole(b))
            return []
        (core, ours), (own, theirs) = a.added(), b.added()
        norm = own.alone
        if norm is not None and norm.op == NORM and not (core.alone and core.alone.op == NORM):
            for extra in theirs:
                self._set(extra, 0.0)
            return self._folded(core, ours, norm)
        if ours or theirs:
            return self._sums(core, ours, own, theirs)
        scaled = b.with_constant("mul")
        if a.op != "mul" and scaled is not None and not scaled[1].is_number:
            self._set(scaled[1], 1.0)
            return [(whole(a), scaled[0])]
        if (a.op, a.literals, a.size, len(a.args)) != (b.op, b.literals, b.size, len(b.args)):
            if a.op == b.op == "attention" and a.size == b.size:
                return self._attention(a, b)
            self.differences.append((whole(a), whole(b)))
            return []
        args = b.args
        if a.commutes and _turned(a, b):
            args = args[::-1]
        return list(zip(a.args, args, strict=True))

    def _sums(
        self, core: View, ours: list[View], own: View, theirs: list[View]
    ) -> list[tuple[View, View]]:
        """Sums with constants: what the module adds beyond the model's is zero."""
        pairs = [(core, own)]
        if len(ours) > len(theirs):
            if not theirs:
                self.differences.append((ours[0], own))
                return pairs
            last = [v.tensor() for v in ours[len(theirs) - 1 :]]
            total = whole(Value("constant", constant=torch.stack(last).sum(0)), ours[0].shape)
            ours = [*ours[: len(theirs) - 1], total]
        pairs += zip(ours, theirs, strict=False)
        for extra in theirs[len(ours) :]:
            self._set(extra, 0.0)
        return pairs

    def _attention(self, a: Value, b: Value) -> list[tuple[View, View]]:
        """Attention with other masks: queries, keys and values are what they are."""
        (*ours, our_biases), (*theirs, their_biases) = _split(a), _split(b)
        ours_fixed = [v for v in our_biases if v.is_constant]
        theirs_fixed = [v for v in their_biases if v.is_constant]
        pairs = list(zip(ours_fixed, theirs_fixed, strict=False))
        if len(our_biases) != len(their_biases):
            self.differences.append((whole(a), whole(b)))
        return [*zip(ours, theirs, strict=True), *pairs]

    def _folded(self, core: View, ours: list[View], norm: Value) -> list[tuple[View, View]]:
        """A batch norm that went into what is before it: it becomes the identity."""
        x, scale, shift, mean, variance = norm.args
        product = core.alone
        own, own_biases = (x, list[View]()) if x.alone is None else x.alone.added()
        made = own.alone
        if (
            product is None
            or made is None
            or product.op not in ("convolution", "mm")
            or product.op != made.op
        ):
            self.differences.append((core, whole(norm)))
            return []
        self.folded += 1
        target = [own_biases[0] if own_biases else shift] if ours else []
        for v in (shift, mean, *own_biases):
            if v not in target:
                self._set(v, 0.0)
        self._set(scale, 1.0)
        # Of float32, so that the root of its sum with epsilon is one.
        self._set(variance, 1.0 - float(norm.literals[-1]))
        return self._sums(core, ours, own, target)

    def _set(self, x: View, value: float) -> None:
        for v in x.values:
            if v.constant is not None:
                self._marks.set(v.constant, value)

    def _pair(self, a: View, b: View) -> None:
        if a.size != b.size:
            self.differences.append((a, b))
            return
        if _same_index(a, b) and _sizes(a) == _sizes(b):
            # What is repeated need not be looked at more than once.
            x, y = (
                View(a.values, (_sizes(a)[0],)).tensor(),
                View(b.values, (_sizes(b)[0],)).tensor(),
            )
        else:
            x, y = a.tensor().reshape(-1), b.tensor().reshape(-1)
        if self._marks.take(y, x) or not y.is_floating_point():
            return
        if not torch.allclose(x.double(), y.double(), 1e-4, 1e-6, True):
            self.differences.append((a, b))


def _sizes(v: View) -> list[int]:
    return [x.size for x in v.values]


def _same_index(a: View, b: View) -> bool:
    i, j = a.index, b.index
    if i is None or j is None:
        return i is j
    return torch.equal(i.reshape(-1), j.reshape(-1))


def _split(v: Value) -> tuple[View, View, View, list[View]]:
    """Queries, keys, values and biases of attention."""
    q, k, values, *biases = v.args
    return q, k, values, biases


def _turned(a: Value, b: Value) -> bool:
    """Whether the arguments of one are those of the other, the other way round."""
    ours, theirs = [_likeness(x) for x in a.args], [_likeness(x) for x in b.args]
    for x, y in zip(ours, theirs, strict=True):
        if x != y:
            return ours == theirs[::-1]
    signs, other = [x.sign for x in a.args], [x.sign for x in b.args]
    return signs != other and signs[0] == other[1]


def _likeness(v: View, depth: int = 3) -> tuple[Any, ...]:
    """The operators that a tensor is made of, some levels deep, without what is added last."""
    core = v.values[0].added()[0] if len(v.values) == 1 else v
    if core.is_constant or depth == 0:
        return (core.is_constant,)
    kinds = []
    for x in core.values:
        inner = [_likeness(a, depth - 1) for a in x.args]
        kinds.append((x.op, *(sorted(inner, key=repr) if x.commutes else inner)))
    return tuple(kinds)


def align(model: list[View], module: list[View], marks: Marks) -> Alignment:
    """Give the places of the module's marks the values of the model's constants.

    From the outputs; where the graphs differ there, also from each value that both have once, and from
    the nearest values with weights before a difference, where both have equally many of the same kinds.
    """
    found = Alignment(marks)
    found.walk(zip(model, module, strict=False))
    if found.differences:
        ours, theirs = (_by_sign(outputs) for outputs in (model, module))
        found.walk(
            (whole(ours[s][0]), whole(theirs[s][0]))
            for s in ours
            if s in theirs and len(ours[s]) == len(theirs[s]) == 1
        )
    done = 0
    while done < len(found.differences):
        found.walk(_anchored(*found.differences[done]))
        done += 1
    return found


def _anchored(a: View, b: View) -> list[tuple[View, View]]:
    ours, theirs = _anchors(a), _anchors(b)
    kinds = [(v.op, v.size) for v in ours]
    if kinds != [(v.op, v.size) for v in theirs] or kinds == [(v.op, v.size) for v in a.values]:
        return []
    return [(whole(x), whole(y)) for x, y in zip(ours, theirs, strict=True)]


def _anchors(view: View) -> list[Value]:
    """The nearest values with weights, in the order of arguments."""
    found: list[Value] = []
    seen: set[int] = set()
    stack = list(view.values)[::-1]
    while stack:
        v = stack.pop()
        if id(v) in seen:
            continue
        seen.add(id(v))
        if v.op in _ANCHORS:
            found.append(v)
        else:
            stack += [x for arg in v.args for x in arg.values][::-1]
    return found


def constants_of(outputs: list[View]) -> Iterator[Tensor]:
    """The constants that a graph reads, no further than it reads them."""
    for view in [*outputs, *(a for v in _values_of(outputs) for a in v.args)]:
        if view.is_constant:
            yield view.once()


def _values_of(outputs: Iterable[View]) -> Iterator[Value]:
    """Outputs and all that they are made of, each value once."""
    seen: set[int] = set()
    stack = [v for view in outputs for v in view.values]
    while stack:
        v = stack.pop()
        if id(v) not in seen:
            seen.add(id(v))
            yield v
            stack += [x for arg in v.args for x in arg.values]


def _by_sign(outputs: list[View]) -> dict[int, list[Value]]:
    """Values by what they are made of, without those of them that only go into another of it."""
    found: dict[int, list[Value]] = defaultdict(list)
    inner: set[int] = set()
    for v in _values_of(outputs):
        if v.constant is None:
            found[v.sign].append(v)
            inner.update(id(x) for a in v.args for x in a.values if x.sign == v.sign)
    return {s: [v for v in values if id(v) not in inner] for s, values in found.items()}
