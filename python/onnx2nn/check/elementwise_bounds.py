"""What elementwise operators make of the errors of their operands, and what they add of their own."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnx2nn.check.calls import (
    Bound,
    Call,
    flat,
    for_each,
    in_double,
    is_zero,
    most,
    own_rounding,
    unit_of,
)
from onnx2nn.check.general_bounds import tried_bound

__all__ = [
    "SMOOTH",
    "add_bound",
    "cast_bound",
    "clamp_bound",
    "div_bound",
    "elementwise_bound",
    "extreme_bound",
    "masked_fill_bound",
    "mul_bound",
    "pow_bound",
    "where_bound",
]


def _pair(call: Call, known: Callable[[Any], Bound]) -> tuple[Tensor, Tensor, Bound, Bound]:
    a, b = call.args[0], call.args[1]
    ea, eb = known(a), known(b)
    return (
        in_double(a).abs(),
        in_double(b).abs(),
        ea,
        eb,
    )


def add_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    a, b, ea, eb = _pair(call, known)
    if call.name == "rsub":
        a, b, ea, eb = b, a, eb, ea
    alpha = abs(float(call.kwargs.get("alpha", 1)))
    return [
        ea
        + alpha * eb
        + own_rounding(call.outs[0], a + alpha * b)
        + torch.zeros(call.outs[0].shape)
    ]


def mul_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    a, b, ea, eb = _pair(call, known)
    return [a * eb + b * ea + ea * eb + own_rounding(call.outs[0], a * b)]


def div_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    if call.kwargs.get("rounding_mode") is not None:
        return _decided_ratio(call, known)
    _, b, ea, eb = _pair(call, known)
    y = in_double(call.outs[0])
    room = b - eb
    error = torch.where(torch.as_tensor(room) > 0, (ea + y.abs() * eb) / room, math.inf)
    if is_zero(ea) and is_zero(eb):
        error = torch.zeros(())
    return [error + own_rounding(call.outs[0], y.abs())]


def _decided_ratio(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """A quotient that is rounded: one step where it lies within its error of a whole number."""
    a, b = (x.to(torch.float64) if isinstance(x, Tensor) else float(x) for x in call.args[:2])
    ea, eb = known(call.args[0]), known(call.args[1])
    q = torch.as_tensor(a / b)
    size = torch.as_tensor(b).abs() if isinstance(b, Tensor) else torch.tensor(abs(b))
    e = (ea + q.abs() * eb) / size + own_rounding(call.outs[0], q.abs())
    lower, upper = torch.floor(q - e), torch.floor(q + e)
    return [(upper - lower).expand(call.outs[0].shape)]


def elementwise_bound(size: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """A rule for functions of one number that are smooth; `size(x, y)` is their largest term."""

    def rule(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
        x, out = call.args[0], call.outs[0]
        e = known(x)
        own = own_rounding(out, size(in_double(x), in_double(out)))
        if is_zero(e):
            return [own]
        wide = x.to(torch.float64)
        ends = [
            torch.nan_to_num(call.func(wide + s * for_each(e, x), *call.args[1:], **call.kwargs))
            for s in (-1.0, 1.0)
        ]
        base = torch.nan_to_num(call.func(wide, *call.args[1:], **call.kwargs))
        return [torch.maximum(*((y - base).abs() for y in ends)) + own]

    return rule


def pow_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    out = call.outs[0]
    a, b = (in_double(x).abs() for x in call.args[:2])
    grown = 1 + (b * torch.log(a.clamp_min(1e-300)).abs())
    if all(is_zero(known(x)) for x in call.args[:2]):
        return [own_rounding(out, in_double(out).abs() * grown)]
    return [tried_bound(call, known)[0] + own_rounding(out, in_double(out).abs() * grown)]


def clamp_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    error, *limits = (known(x) for x in flat([call.args, call.kwargs]))
    return [error if most(limits) == 0.0 else most([error, *limits])]


def extreme_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """minimum and maximum of two."""
    zero = torch.zeros(call.outs[0].shape, dtype=torch.float64)
    a, b = (known(x) for x in call.args[:2])
    return [torch.maximum(zero + a, zero + b)]


def where_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    condition, a, b = call.args[:3]
    shape = call.outs[0].shape
    zero = torch.zeros(shape, dtype=torch.float64)
    ea, eb, ec = (known(x) for x in (a, b, condition))
    error = torch.where(condition, zero + ea, zero + eb)
    if not is_zero(ec):
        gap = torch.nan_to_num((_plain(a) - _plain(b)).abs(), nan=math.inf)
        error = torch.where(torch.as_tensor(ec) > 0, gap + zero + ea + eb, error)
    return [error]


def _plain(x: Any) -> Tensor:
    return (
        x.to(torch.float64)
        if isinstance(x, Tensor)
        else torch.tensor(float(x), dtype=torch.float64)
    )


def masked_fill_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, mask, value = call.args[:3]
    zero = torch.zeros(call.outs[0].shape, dtype=torch.float64)
    error = torch.where(mask, zero + known(value), zero + known(x))
    if not is_zero(known(mask)):
        gap = torch.nan_to_num((_plain(x) - _plain(value)).abs(), nan=math.inf)
        error = torch.where(torch.as_tensor(known(mask)) > 0, gap + zero, error)
    return [error]


def cast_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, out = call.args[0], call.outs[0]
    e = known(x)
    if out.is_floating_point() or out.is_complex():
        narrower = unit_of(out) > unit_of(x)
        return [e + own_rounding(out, x) if narrower else e]
    if is_zero(e) or not x.is_floating_point():
        return [e]
    ends = [torch.trunc(x.to(torch.float64) + s * for_each(e, x)) for s in (-1.0, 1.0)]
    return [torch.maximum(*((y - torch.trunc(x.to(torch.float64))).abs() for y in ends))]


def _range(x: Tensor, y: Tensor) -> Tensor:
    return torch.ones(())


def _of_result(x: Tensor, y: Tensor) -> Tensor:
    return y.abs()


def _of_argument(x: Tensor, y: Tensor) -> Tensor:
    return x.abs()


def _of_both(x: Tensor, y: Tensor) -> Tensor:
    return x.abs() + y.abs()


def _one_more(x: Tensor, y: Tensor) -> Tensor:
    return 1 + y.abs()


def _argument_and_one(x: Tensor, y: Tensor) -> Tensor:
    return 1 + x.abs()


SMOOTH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # Their formulas sum terms near 1, however small the result: 0.5 + tanh(x / 2) / 2, for one.
    **dict.fromkeys(
        ("sigmoid", "tanh", "erf", "erfc", "sin", "cos", "atan", "asin", "acos"), _range
    ),
    **dict.fromkeys(("exp", "exp2", "sqrt", "rsqrt", "reciprocal", "square", "log"), _of_result),
    **dict.fromkeys(("log2", "log10", "log1p", "lgamma", "digamma", "erfinv"), _one_more),
    **dict.fromkeys(("elu", "celu", "selu", "expm1", "sinh", "cosh", "tan", "asinh"), _one_more),
    **dict.fromkeys(("acosh", "atanh", "logit"), _one_more),
    **dict.fromkeys(("gelu", "silu", "mish", "hardswish"), _of_argument),
    **dict.fromkeys(("softplus", "log_sigmoid_forward", "hardsigmoid"), _argument_and_one),
    **dict.fromkeys(("abs", "neg", "relu", "hardtanh", "relu6", "threshold"), lambda x, y: 0 * y),
    **dict.fromkeys(("leaky_relu", "hardshrink", "softshrink", "nan_to_num"), _of_both),
}
