"""Two graphs laid side by side from their outputs: which constant of one is which of the other."""

from collections import defaultdict
from collections.abc import Iterable

import torch

from onnx2nn.transfer.graph import NORM, Value
from onnx2nn.transfer.marks import Marks

__all__ = ["Alignment", "align"]


class Alignment:
    """Where two graphs differ: pairs of what the model has and what the module has instead."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._done: set[tuple[int, int]] = set()
        self.differences: list[tuple[Value, Value]] = []
        self.folded = 0  # batch norms that the model no longer has

    def walk(self, pairs: Iterable[tuple[Value, Value]]) -> None:
        """Lay pairs of values side by side, and all that they are made of."""
        stack = list(pairs)[::-1]
        while stack:
            a, b = stack.pop()
            if (id(a), id(b)) in self._done:
                continue
            self._done.add((id(a), id(b)))
            if b.op == NORM and a.op != NORM:
                stack += self._folded(a, b)
            elif a.is_constant and b.is_constant:
                self._pair(a, b)
            elif (a.op, a.literals, a.shape) != (b.op, b.literals, b.shape) or len(a.args) != len(
                b.args
            ):
                self.differences.append((a, b))
            else:
                args = b.args
                if a.commutes and a.args[0].sign != args[0].sign == a.args[1].sign:
                    args = args[::-1]
                stack += list(zip(a.args, args, strict=True))[::-1]

    def _without_effect(self, a: Value, b: Value) -> list[tuple[Value, Value]]:
        """Zeros that are added, or ones that are multiplied with, which the model no longer has."""
        constants = [v for v in b.args if v.is_constant and v.constant is not None]
        rest = [v for v in b.args if not v.is_constant]
        neutral = {"add": 0.0, "mul": 1.0}.get(b.op)
        if neutral is None or len(constants) != 1 or len(rest) != 1 or a.op != rest[0].op:
            self.differences.append((a, b))
            return []
        marks = constants[0].constant
        assert marks is not None
        self._marks.set(marks, neutral)
        return [(a, rest[0])]

    def _folded(self, a: Value, norm: Value) -> list[tuple[Value, Value]]:
        """A batch norm that went into what is before it: it becomes the identity."""
        x, scale, shift, mean, variance = norm.args
        (product, bias), (own, own_bias) = a.bias(), x.bias()
        if product.op not in ("convolution", "mm") or product.op != own.op:
            self.differences.append((a, norm))
            return []
        if bias is not None and own_bias is None and shift.constant is None:
            self.differences.append((a, norm))
            return []
        self.folded += 1
        target = None if bias is None else own_bias or shift
        for v in (shift, mean, own_bias):
            if v is not None and v is not target and v.constant is not None:
                self._marks.set(v.constant, 0.0)
        if scale.constant is not None:
            self._marks.set(scale.constant, 1.0)
        if variance.constant is not None:
            # Of float32, so that the root of its sum with epsilon is one.
            self._marks.set(variance.constant, 1.0 - float(norm.literals[-1]))
        if bias is not None and target is not None:
            self._pair(bias, target)
        return [(product, own)]

    def _pair(self, a: Value, b: Value) -> None:
        x, y = a.constant, b.constant
        if x is None or y is None:
            if x is not y:
                self.differences.append((a, b))
            return
        if x.numel() != y.numel():
            self.differences.append((a, b))
            return
        if self._marks.take(y, x.reshape(y.shape)):
            return
        if not torch.allclose(x.reshape(y.shape).double(), y.double(), 1e-4, 1e-6, True):
            self.differences.append((a, b))


def align(model: list[Value], module: list[Value], marks: Marks) -> Alignment:
    """Give the places of the module's marks the values of the model's constants.

    From the outputs; where the graphs differ there, also from each value that both have once.
    """
    found = Alignment(marks)
    found.walk(zip(model, module, strict=False))
    if found.differences:
        ours, theirs = (_by_sign(outputs) for outputs in (model, module))
        found.walk(
            (ours[s][0], theirs[s][0])
            for s in ours
            if s in theirs and len(ours[s]) == len(theirs[s]) == 1
        )
    return found


def _by_sign(outputs: list[Value]) -> dict[int, list[Value]]:
    """Values by what they are made of, without those of them that only go into another of it."""
    found: dict[int, list[Value]] = defaultdict(list)
    inner: set[int] = set()
    seen: set[int] = set()
    stack = list(outputs)
    while stack:
        v = stack.pop()
        if id(v) in seen:
            continue
        seen.add(id(v))
        if not v.is_constant:
            found[v.sign].append(v)
            inner.update(id(a) for a in v.args if a.sign == v.sign)
            stack += v.args
    return {s: [v for v in values if id(v) not in inner] for s, values in found.items()}
