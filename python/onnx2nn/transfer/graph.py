"""What a module computes, as a graph of torch operators in a form that says the same alike.

Sizes are those of the inputs that it ran on, so that no arithmetic on shapes is left. What depends on no
input is a constant, whatever it was made by.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from onnx2nn.check.bounds import Tape, aside, unfused
from onnx2nn.check.calls import Call, flat

__all__ = ["NORM", "Value", "graph_of"]

NORM = "batch_norm"
# Operators whose result is their first argument, as far as weights go.
_SAME = {"alias", "clone", "contiguous", "detach", "dropout", "lift_fresh", "native_dropout"}
_SAME |= {"_to_copy", "to"}
_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "squeeze", "unsqueeze"}
_PERMUTES = {"permute", "transpose", "t"}
# The same where nothing is left out or repeated.
_PARTS = {"slice", "expand", "narrow"}
_NORMS = {"native_batch_norm", "batch_norm", "cudnn_batch_norm", "_batch_norm_no_update"}
_NORMS |= {"_native_batch_norm_legit", "_native_batch_norm_legit_no_training"}
_COMMUTATIVE = {"add", "mul", "maximum", "minimum"}


@dataclass(eq=False)
class Value:
    """A result of an operator, an input or a constant.

    literals: arguments that are no tensors. sign: a hash of all that it is made of, biases and batch
    norms left out.
    """

    op: str
    args: "tuple[Value, ...]" = ()
    literals: tuple[Any, ...] = ()
    shape: tuple[int, ...] = ()
    constant: Tensor | None = None
    sign: int = 0

    @property
    def is_constant(self) -> bool:
        """Whether no input goes into it."""
        return self.op == "constant"

    @property
    def commutes(self) -> bool:
        """Whether its arguments may come in either order."""
        return self.op in _COMMUTATIVE and len(self.args) == 2

    def bias(self) -> "tuple[Value, Value | None]":
        """What it is without an added constant, and that constant."""
        if self.op == "add" and len(self.args) == 2:
            for x, b in (self.args, self.args[::-1]):
                if b.is_constant and x.op in ("convolution", "mm"):
                    return x, b
        return self, None


def graph_of(net: nn.Module, inputs: list[Any]) -> list[Value]:
    """The outputs of a module as a graph; raises whatever the module raises."""
    tape = _Trace()
    with torch.no_grad(), unfused(net), tape:
        outputs = net(*inputs)
    with torch.no_grad(), aside():
        graph = _Graph(tape, [x for x in flat([inputs]) if isinstance(x, Tensor)])
        return [graph.value(y) for y in flat([outputs]) if isinstance(y, Tensor)]


class _Trace(Tape):  # type: ignore[no-untyped-call,unused-ignore]
    def call(self, value: Tensor) -> tuple[Call, int] | None:
        """The operator that a value comes from, and which of its results that is."""
        return cast("tuple[Call, int] | None", self._made.get(value))


class _Graph:
    def __init__(self, tape: _Trace, inputs: list[Tensor]) -> None:
        self._tape = tape
        # Tensors are kept, so that no other gets one's id.
        self._known: dict[int, tuple[Tensor, Value]] = {}
        for k, x in enumerate(inputs):
            self._known[id(x)] = x, _signed(Value(f"input {k}", shape=tuple(x.shape)))

    def value(self, tensor: Tensor) -> Value:
        pending = [tensor]
        while pending:
            top = pending[-1]
            if id(top) in self._known:
                pending.pop()
                continue
            made = self._tape.call(top)
            if made is not None:
                args = [x for x in flat([made[0].args, made[0].kwargs]) if isinstance(x, Tensor)]
                missing = [x for x in args if id(x) not in self._known]
                if missing:
                    pending += missing
                    continue
            self._known[id(top)] = top, self._made(top, made)
            pending.pop()
        return self._known[id(tensor)][1]

    def _of(self, x: Any) -> Value:
        return self._known[id(x)][1] if isinstance(x, Tensor) else _signed(Value("constant"))

    def _made(self, tensor: Tensor, made: tuple[Call, int] | None) -> Value:
        shape = tuple(tensor.shape)
        constant = _signed(Value("constant", shape=shape, constant=tensor.detach()))
        if made is None:
            return constant
        call, k = made
        tensors = [x for x in flat([call.args, call.kwargs]) if isinstance(x, Tensor)]
        values = tuple(map(self._of, tensors))
        if all(v.is_constant for v in values):
            return constant
        return _signed(self._canonical(call, k, values, shape))

    def _canonical(
        self, call: Call, k: int, values: tuple[Value, ...], shape: tuple[int, ...]
    ) -> Value:
        name, args, x = call.name, call.args, values[0]
        if (name in _SAME and k == 0) or (name in _PARTS and x.shape == shape):
            return x
        if name in _RESHAPES:
            return _reshaped(x, shape)
        if name in _PERMUTES:
            return _permuted(x, _order(name, args, len(x.shape)), shape)
        if name in _NORMS and k == 0:
            norm = tuple(self._of(a) for a in args[:5])
            return Value(NORM, norm, (_literal(args[-1]),), shape)
        if name == "addmm" and not call.kwargs and len(args) == 3:
            product = _signed(Value("mm", values[1:], (), shape))
            return Value("add", (product, x), (), shape)
        if name == "linear":
            rows = math.prod(x.shape[:-1])
            weight = self._weight(args[1])
            out = Value("mm", (_reshaped(x, (rows, x.shape[-1])), weight), (), (rows, shape[-1]))
            if len(values) > 2:
                out = Value("add", (_signed(out), values[2]), (), out.shape)
            return _reshaped(_signed(out), shape)
        if name == "convolution":
            rest = tuple(map(_literal, args[3:]))
            product = Value("convolution", values[:2], rest, shape)
            if len(values) < 3:
                return product
            return Value("add", (_signed(product), values[2]), (), shape)
        if name == "div" and len(values) == 1 and isinstance(args[1], (int, float)) and args[1]:
            return Value("mul", values, (_literal(1 / args[1]),), shape)
        rest = tuple(_literal(a) for a in flat([args]) if not isinstance(a, Tensor))
        rest += tuple((n, _literal(v)) for n, v in sorted(call.kwargs.items()) if v is not None)
        if name == "add" and len(values) == 2 and not rest:
            return _biased(values, shape)
        return Value(name if k == 0 else f"{name} {k}", values, rest, shape)

    def _weight(self, weight: Tensor) -> Value:
        """The second factor of a product, for the weight of a linear layer."""
        value = self._of(weight)
        turned = tuple(weight.shape[::-1])
        if value.constant is not None:
            return _signed(Value("constant", shape=turned, constant=value.constant.t()))
        return _permuted(value, [1, 0], turned)


def _biased(values: tuple[Value, ...], shape: tuple[int, ...]) -> Value:
    """A sum; a bias that is added to a product of many rows is added before these are arranged."""
    for x, b in (values, values[::-1]):
        width = shape[-1:]
        if b.constant is None or x.op != "reshape" or (b.constant.numel(),) != width:
            continue
        product = x.args[0]
        if product.op == "mm" and product.shape[-1:] == width and x.shape == shape:
            flat_bias = Value("constant", shape=width, constant=b.constant.reshape(width))
            total = Value("add", (product, _signed(flat_bias)), (), product.shape)
            return _reshaped(_signed(total), shape)
    return Value("add", values, (), shape)


def _reshaped(x: Value, shape: tuple[int, ...]) -> Value:
    if x.op == "reshape":
        x = x.args[0]
    return x if x.shape == shape else _signed(Value("reshape", (x,), (), shape))


def _permuted(x: Value, order: list[int], shape: tuple[int, ...]) -> Value:
    if x.op == "permute":
        order, x = [x.literals[d] for d in order], x.args[0]
    if order == sorted(order):
        return x
    return _signed(Value("permute", (x,), tuple(order), shape))


def _order(name: str, args: Any, rank: int) -> list[int]:
    if name == "permute":
        return [d % rank for d in args[1]]
    order = list(range(rank))
    if rank > 1:
        i, j = (0, 1) if name == "t" else (args[1] % rank, args[2] % rank)
        order[i], order[j] = order[j], order[i]
    return order


def _literal(x: Any) -> Any:
    """An argument that is no tensor, rounded so that equal settings are equal."""
    if isinstance(x, bool) or x is None:
        return x
    if isinstance(x, (int, float)):
        return float(f"{float(x):.5g}")
    if isinstance(x, (list, tuple)):
        return tuple(map(_literal, x))
    return str(x)


def _signed(v: Value) -> Value:
    """The value, with its hash."""
    core, _ = v.bias()
    if core is not v:
        v.sign = core.sign
    elif v.op == NORM:
        v.sign = v.args[0].sign
    elif v.is_constant:
        v.sign = hash(("constant", math.prod(v.shape)))
    else:
        signs = [a.sign for a in v.args]
        v.sign = hash((v.op, v.literals, v.shape, *(sorted(signs) if v.commutes else signs)))
    return v
