"""What a module computes, as a graph of torch operators in a form that says the same alike.

Sizes are those of the inputs that it ran on, so that no arithmetic on shapes is left. What depends on no
input is a constant, whatever it was made by.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from onnx2nn.check.bounds import Tape, aside, unfused
from onnx2nn.check.calls import Call, flat
from onnx2nn.transfer import normal_form as nf
from onnx2nn.transfer.values import Value, View, constant, places, seen, whole

__all__ = ["graph_of"]

# Operators whose result is their first argument, as far as weights go.
_SAME = {"alias", "clone", "contiguous", "detach", "dropout", "lift_fresh", "native_dropout"}
_SAME |= {"_to_copy", "to"}
# The first argument in another shape.
_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "squeeze", "unsqueeze"}
# Elements of the first argument in other places.
_MOVES = {
    "permute",
    "transpose",
    "t",
    "slice",
    "select",
    "expand",
    "narrow",
    "split",
    "flip",
    "roll",
}
_MOVES |= {"split_with_sizes", "chunk", "unbind", "unfold", "repeat", "index", "index_select"}
_MOVES |= {
    "as_strided",
    "movedim",
    "diagonal",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
}
_JOINS = {"cat", "stack"}
# Tensors of which the first argument says the shape alone.
_MADE = {"new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like"}
_MADE |= {"empty_like", "new_empty_strided"}
_EACH = {"add", "mul", "sub", "div", "pow", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "erf"}
_EACH |= {"sin", "cos", "reciprocal", "maximum", "minimum", "clamp", "clamp_min", "clamp_max"}
_EACH |= {"relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "elu"}
_EACH |= {"leaky_relu", "softplus", "mish", "where", "masked_fill", "_prelu_kernel", "log_sigmoid"}
_EACH |= {"eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or"}
_EACH |= {"bitwise_not", "bitwise_and", "bitwise_or", "floor", "round", "sign", "isnan", "addcmul"}
_SOFTMAX = {"_softmax": "softmax", "_safe_softmax": "softmax", "_log_softmax": "log_softmax"}
_REDUCED = {"mean", "sum", "amax", "amin"}
_NORMS = {"native_batch_norm", "batch_norm", "cudnn_batch_norm", "_batch_norm_no_update"}
_NORMS |= {"_native_batch_norm_legit", "_native_batch_norm_legit_no_training"}


def graph_of(net: nn.Module, inputs: list[Any], patches: bool = False) -> list[View]:
    """The outputs of a module as a graph; raises whatever the module raises.

    patches: whether a convolution whose windows do not overlap is the product that it is, so that one of
    1 x 1 is a linear layer. It takes time where there are many.
    """
    tape = _Trace()
    with torch.no_grad(), unfused(net), _one_by_one(), tape:
        outputs = net(*inputs)
    with torch.no_grad(), aside():
        graph = _Graph(tape, [x for x in flat([inputs]) if isinstance(x, Tensor)], patches)
        return [graph.read(y) for y in flat([outputs]) if isinstance(y, Tensor)]


@contextlib.contextmanager
def _one_by_one() -> Iterator[None]:
    """Without the kernels that take a whole layer of nn.TransformerEncoder."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Trace(Tape):  # type: ignore[no-untyped-call,unused-ignore]
    def call(self, value: Tensor) -> tuple[Call, int] | None:
        """The operator that a value comes from, and which of its results that is."""
        return cast("tuple[Call, int] | None", self._made.get(value))


class _Graph:
    def __init__(self, tape: _Trace, inputs: list[Tensor], patches: bool) -> None:
        self._tape = tape
        self._patches = patches
        # Tensors are kept, so that no other gets one's id.
        self._known: dict[int, tuple[Tensor, View]] = {}
        self._read: dict[int, View] = {}
        for k, x in enumerate(inputs):
            self._known[id(x)] = x, whole(Value(f"input {k}", size=x.numel()), x.shape)

    def read(self, tensor: Tensor) -> View:
        """An output, with all that it is made of."""
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
        return self._of(tensor)

    def _of(self, x: Any) -> View:
        """An argument of an operator that computes; a number is a constant."""
        if not isinstance(x, Tensor):
            return constant(torch.tensor(x))
        if id(x) not in self._read:
            v = self._known[id(x)][1]
            self._read[id(x)] = v if v.index is None else seen(v.values, v.index)
        return self._read[id(x)]

    def _if(self, x: Any) -> View | None:
        return None if x is None else self._of(x)

    def _made(self, tensor: Tensor, made: tuple[Call, int] | None) -> View:
        if made is None or made[0].name in _MADE:
            return constant(tensor.detach())
        call, k = made
        tensors = [x for x in flat([call.args, call.kwargs]) if isinstance(x, Tensor)]
        views = [self._known[id(x)][1] for x in tensors]
        shape = tuple(tensor.shape)
        if call.name in _SAME and k == 0:
            return views[0]
        if call.name in _RESHAPES:
            return views[0].reshaped(shape)
        moved = self._moved(call, k, views)
        if moved is not None:
            return moved
        if all(v.is_constant for v in views):
            return constant(tensor.detach())
        values = [self._of(x) for x in tensors]
        make = _FORMS.get(call.name)
        found = make(self, call, values, shape) if make is not None and k == 0 else None
        return found if found is not None else self._other(call, k, values, shape)

    def _moved(self, call: Call, k: int, values: list[View]) -> View | None:
        """An operator that moves elements, as what it does to their places."""
        if call.name in _JOINS:
            if call.args[1:] and isinstance(call.args[1], Tensor):
                return None
            starts, parts, every = 0, list[Tensor](), list[Value]()
            for v in values:
                parts.append(places(v) + starts)
                starts += sum(x.size for x in v.values)
                every += v.values
            return seen(every, call.func(parts, *call.args[1:], **call.kwargs), cut=False)
        if call.name == "constant_pad_nd":
            fill = Value(
                "constant", constant=torch.tensor([call.args[2] if call.args[2:] else 0.0])
            )
            return seen(
                [fill, *values[0].values], call.func(places(values[0]) + 1, call.args[1], 0)
            )
        if call.name == "embedding" and values[1].is_constant:
            return seen(values[0].values, places(values[0])[call.args[1]])
        if call.name not in _MOVES or not all(v.is_constant for v in values[1:]):
            return None
        index = call.func(places(values[0]), *call.args[1:], **call.kwargs)
        index = index if isinstance(index, Tensor) else index[k]
        return seen(values[0].values, index, cut=False)

    def _other(self, call: Call, k: int, values: list[View], shape: tuple[int, ...]) -> View:
        name = call.name if k == 0 else f"{call.name} {k}"
        value = Value(name, tuple(values), _literals(call), math.prod(shape))
        return whole(value, shape)

    # ---- Forms of operators; None where it is none of them after all ----

    def each(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        name, args = call.name, call.args
        if name in ("add", "sub") and call.kwargs.get("alpha", 1) != 1:
            return None
        if name in ("rsub", "neg"):
            ones = constant(torch.tensor(-1.0))
            x = nf.each("mul", (values[0], ones), (), values[0].shape)
            return x if name == "neg" else nf.each("add", (x, self._of(args[1])), (), shape)
        if name not in ("add", "sub", "mul", "div") or len(args) != 2:
            return nf.each(name, values, _literals(call), shape)
        pair = [self._of(a) for a in args]
        if pair[1].is_number and name in ("sub", "div"):
            number = pair[1].tensor().reshape(-1)[:1].reshape(())
            name, number = ("add", -number) if name == "sub" else ("mul", 1 / number)
            pair[1] = constant(number)
        return nf.each(name, pair, (), shape)

    def product(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        a, b = values[-2:]
        if len(a.shape) == 2:
            a, b = a.reshaped((1, *a.shape)), b.reshaped((1, *b.shape))
        out = nf.attention_or_product(a, b).reshaped(shape)
        if call.name in ("mm", "bmm"):
            return out
        if call.kwargs or len(call.args) != 3:
            return None
        return nf.plus(out, values[0])

    def linear(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        x, weight = values[:2]
        if not weight.is_constant:
            return None
        rows = x.reshaped((x.size // x.shape[-1], x.shape[-1]))
        turned = seen(weight.values, places(weight).t())
        out = nf.product(rows, turned).reshaped(shape)
        return nf.plus(out, values[2] if len(values) > 2 else None)

    def convolution(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        stride, padding, dilation, transposed, _, groups = call.args[3:9]
        x, weight = values[:2]
        bias = self._if(call.args[2])
        if (
            self._patches
            and weight.is_constant
            and not transposed
            and (groups, max(padding), max(dilation)) == (1, 0, 1)
            and tuple(stride) == weight.shape[2:]
        ):
            return nf.patches(x, weight, bias, shape)
        return nf.convolution(x, weight, bias, tuple(map(_literal, call.args[3:])), shape)

    def embedding(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        index = call.args[-1] if call.name == "index_select" else call.args[1]
        if isinstance(index, (list, tuple)):
            if len(index) != 1 or index[0] is None:
                return None
            index = index[0]
        first = call.name != "index_select" or call.args[1] == 0
        table = values[0]
        if not first or not table.is_constant or index.dtype not in (torch.int64, torch.int32):
            return None
        return nf.embedding(table, self._of(index))

    def layer_norm(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        width = math.prod(call.args[1])
        weight, bias = self._if(call.args[2]), self._if(call.args[3])
        return nf.layer_norm(values[0], width, weight, bias, _literal(call.args[4]))

    def rms_norm(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        width, eps = math.prod(call.args[1]), _literal(call.args[3])
        return nf.layer_norm(values[0], width, self._if(call.args[2]), None, eps, "rms_norm")

    def group_norm(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        weight, bias = self._if(call.args[1]), self._if(call.args[2])
        return nf.group_norm(values[0], call.args[6], weight, bias, _literal(call.args[7]))

    def batch_norm(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        args = [a for a in call.args[:5] if a is not None]
        if len(args) != 5:
            return None
        return nf.batch_norm([self._of(a) for a in args], _literal(call.args[-1]))

    def softmax(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        return nf.softmax(values[0], call.args[1], _SOFTMAX[call.name]) if shape else None

    def reduced(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        dims = call.args[1] if len(call.args) > 1 else None
        dims = [dims] if isinstance(dims, int) else dims
        return nf.reduced(call.name, values[0], dims or [], shape)

    def average(self, call: Call, values: list[View], shape: tuple[int, ...]) -> View | None:
        x = values[0]
        kernel, padding = call.args[1], call.args[3:4] or [[0]]
        if tuple(kernel) != x.shape[2:] or any(padding[0]):
            return None
        return nf.reduced("mean", x, [-2, -1], shape)


_Form = Callable[[_Graph, Call, list[View], tuple[int, ...]], View | None]
_FORMS: dict[str, _Form] = {
    **dict.fromkeys([*_EACH, "rsub"], _Graph.each),
    **dict.fromkeys(["mm", "bmm", "addmm"], _Graph.product),
    **dict.fromkeys(["embedding", "index", "index_select"], _Graph.embedding),
    **dict.fromkeys(_SOFTMAX, _Graph.softmax),
    **dict.fromkeys(_REDUCED, _Graph.reduced),
    **dict.fromkeys(_NORMS, _Graph.batch_norm),
    "linear": _Graph.linear,
    "convolution": _Graph.convolution,
    "native_layer_norm": _Graph.layer_norm,
    "native_group_norm": _Graph.group_norm,
    "_fused_rms_norm": _Graph.rms_norm,
    "avg_pool2d": _Graph.average,
}


def _literals(call: Call) -> tuple[Any, ...]:
    rest = tuple(_literal(a) for a in flat([call.args]) if not isinstance(a, Tensor))
    named = sorted((n, v) for n, v in call.kwargs.items() if v is not None)
    return rest + tuple((n, _literal(v)) for n, v in named if not isinstance(v, Tensor))


def _literal(x: Any) -> Any:
    """An argument that is no tensor, rounded so that equal settings are equal."""
    if isinstance(x, bool) or x is None:
        return x
    if isinstance(x, (int, float)):
        return float(f"{float(x):.5g}")
    if isinstance(x, (list, tuple)):
        return tuple(map(_literal, x))
    return str(x)
