"""What one torch operator makes of the errors of its operands, and what it adds of its own."""

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["Bound", "Call", "bounds_of", "flat", "most", "summed_products"]

# How many units in the last place of its largest term an operator may be off, both sides together.
_UNITS = 4.0
# Sums of more terms than this round by more: their error grows as a random walk does (Higham and Mary,
# A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019). Of equal terms
# it grows faster, which is why the number is small.
_SHORT_SUM = 1.0
# Drawn signs of the errors, where an operator is only tried out, and by how much they are widened.
_TRIALS, _WIDENED = 3, 4.0

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

    @property
    def moves(self) -> bool:
        """Whether elements only change places."""
        return self.name in _MOVES


def flat(values: Iterable[Any]) -> Iterable[Any]:
    for v in values:
        if isinstance(v, (list, tuple)):
            yield from flat(v)
        elif isinstance(v, dict):
            yield from flat(v.values())
        else:
            yield v


# ---- What one operator makes of errors ------------------------------------------------------------------


def bounds_of(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """The error of each output of a call, for those of its operands."""
    outs = call.outs
    errors = [known(x) for x in flat([call.args, call.kwargs])]
    exact = all(isinstance(e, float) and e == 0.0 for e in errors)
    name = call.name
    if exact and (name in _MOVES or name in _CHOICES or name in _DECISIONS):
        return [0.0] * len(outs)
    rule = _RULES.get(name)
    try:
        if rule is not None:
            found = rule(call, known)
        elif name in _MOVES:
            found = _moved(call, known)
        elif name in _CHOICES:
            found = [most(errors)] * len(outs)
        elif name in _DECISIONS:
            found = _decided(call, known)
        else:
            found = _tried(call, known)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        # A form of an operator that its rule does not foresee.
        found = _tried(call, known)
    found += [0.0] * (len(outs) - len(found))
    return [_sound(e, o) for e, o in zip(found, outs, strict=False)]


def _sound(error: Bound, out: Tensor) -> Bound:
    if isinstance(error, Tensor):
        error = torch.nan_to_num(error.to(torch.float64), nan=math.inf, posinf=math.inf)
        return error if error.shape == out.shape else float(error.max()) if error.numel() else 0.0
    return error if error == error else math.inf


def most(errors: Iterable[Bound]) -> float:
    """One bound for all elements."""
    worst = 0.0
    for e in errors:
        if isinstance(e, Tensor):
            worst = max(worst, float(e.max())) if e.numel() else worst
        else:
            worst = max(worst, e)
    return worst


def _wide(x: Any) -> Tensor:
    """A tensor or number in double precision, without infinities and NaN: as a size of terms."""
    t = x if isinstance(x, Tensor) else torch.as_tensor(x)
    t = t.abs() if t.is_complex() else t
    return torch.nan_to_num(t.to(torch.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _size(x: Tensor, kind: torch.dtype) -> Tensor:
    """The same as _wide, in a narrower type, of absolute values: weights may be large."""
    return torch.nan_to_num_(x.abs().to(kind), nan=0.0, posinf=0.0)


def _eps(x: Tensor) -> float:
    """The unit in the last place of 1 in the type of x; 0 where arithmetic is exact."""
    return torch.finfo(x.dtype).eps if x.is_floating_point() or x.is_complex() else 0.0


def _own(out: Tensor, size: Any, terms: float = 1.0) -> Tensor:
    """What summing `terms` terms that add up to `size` in absolute value may round, in out's type."""
    eps = _eps(out)
    if eps == 0.0:
        return torch.zeros((), dtype=torch.float64)
    grown = max(1.0, math.sqrt(terms / _SHORT_SUM))
    # Subnormal numbers may be flushed to zero.
    return _UNITS * grown * eps * _wide(size).abs() + torch.finfo(out.dtype).smallest_normal


def _full(error: Bound, like: Tensor) -> Tensor:
    """An error for each element."""
    if isinstance(error, Tensor) and error.shape == like.shape:
        return error
    return torch.full(like.shape, most([error]), dtype=torch.float64)


def _is_zero(error: Bound) -> bool:
    return isinstance(error, float) and error == 0.0


def _replaced(call: Call, change: Callable[[Any], Any]) -> Any:
    """The call's operator on changed operands."""

    def again(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(again(y) for y in x)
        return change(x)

    args = [again(a) for a in call.args]
    kwargs = {k: again(v) for k, v in call.kwargs.items()}
    return call.func(*args, **kwargs)


def _listed(result: Any) -> list[Tensor]:
    return [x for x in flat([result]) if isinstance(x, Tensor)]


# What only moves elements moves their errors.
_MOVES = {
    *("_reshape_alias", "_unsafe_view", "alias", "as_strided", "cat", "channel_shuffle", "clone"),
    *(
        "contiguous",
        "constant_pad_nd",
        "detach",
        "diagonal",
        "embedding",
        "expand",
        "flip",
        "gather",
    ),
    *("im2col", "index", "index_select", "lift_fresh", "narrow", "permute", "pixel_shuffle"),
    *("pixel_unshuffle", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "repeat"),
    *("replication_pad1d", "replication_pad2d", "replication_pad3d", "reshape", "roll", "select"),
    *("slice", "split", "split_with_sizes", "squeeze", "stack", "t", "take", "tile", "transpose"),
    *("tril", "triu", "unbind", "unfold", "unsafe_split", "unsqueeze", "upsample_nearest1d"),
    *("upsample_nearest2d", "upsample_nearest3d", "view", "view_as_complex", "view_as_real"),
    *(
        "slice_scatter",
        "select_scatter",
        "repeat_interleave",
        "index_put",
        "scatter",
        "masked_scatter",
    ),
    *("movedim", "rot90", "unsafe_chunk", "chunk", "copy"),
}
# What takes one of its operands, or the largest of them, is off by no more than the worst of them.
_CHOICES = {
    *("amax", "amin", "cummax", "max_pool2d_with_indices", "max_pool3d_with_indices", "median"),
    *("adaptive_max_pool2d", "max_unpool2d", "max_pool2d", "max_pool1d", "masked_select"),
}
# What answers with something that changes abruptly.
_DECISIONS = {
    *("all", "any", "argmax", "argmin", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor"),
    *("bucketize", "ceil", "eq", "floor", "floor_divide", "fmod", "frac", "ge", "gt", "heaviside"),
    *("isfinite", "isinf", "isnan", "isneginf", "isposinf", "le", "logical_and", "logical_not"),
    *("logical_or", "logical_xor", "lt", "ne", "nonzero", "remainder", "round", "searchsorted"),
    *("sgn", "sign", "signbit", "trunc", "__lshift__", "__rshift__", "unique_dim", "_unique2"),
}


def _moved(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    indices = {"embedding": 1, "gather": 2, "index": 1, "index_select": 2, "take": 1}
    at = indices.get(call.name)
    if at is not None and not all(_is_zero(known(i)) for i in flat([call.args[at]])):
        return [math.inf] * len(call.outs)

    def error_of(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if not (x.is_floating_point() or x.is_complex()) and _is_zero(known(x)):
            # Indices; integers that are data are exact.
            return (
                x if call.name not in ("cat", "stack") else torch.zeros_like(x, dtype=torch.float64)
            )
        return _full(known(x), x)

    def change(x: Any) -> Any:
        # A number that is filled in is exact.
        return error_of(x)

    if call.name == "constant_pad_nd":
        padded = call.func(_full(known(call.args[0]), call.args[0]), call.args[1], 0.0)
        return [padded]
    if call.name == "scatter" and not isinstance(call.args[3], Tensor):
        return [most([known(call.args[0])])]
    return list(_listed(_replaced(call, change)))


def _decided(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """By how much answers change where operands move to the ends of their errors."""
    tensors = [x for x in flat([call.args, call.kwargs]) if isinstance(x, Tensor)]
    inexact = [x for x in tensors if not _is_zero(known(x))]
    base = [o.to(torch.float64) for o in call.outs]
    worst = [torch.zeros_like(b) for b in base]
    # All ends for one or two operands; for more, each alone.
    signs = (
        [(s,) for s in (-1.0, 1.0)]
        if len(inexact) == 1
        else [(s, t) for s in (-1.0, 1.0) for t in (-1.0, 1.0)]
        if len(inexact) == 2
        else [
            tuple(s if k == j else 0.0 for j in range(len(inexact)))
            for k in range(len(inexact))
            for s in (-1.0, 1.0)
        ]
    )
    for sign in signs:
        moved = {id(x): s for x, s in zip(inexact, sign, strict=True)}

        def change(x: Any, moved: dict[int, float] = moved) -> Any:
            if not isinstance(x, Tensor) or id(x) not in moved:
                return (
                    x.to(torch.float64) if isinstance(x, Tensor) and x.dtype == torch.float32 else x
                )
            if x.dtype == torch.bool:
                return x if moved[id(x)] < 0 else x ^ (_full(known(x), x) > 0)
            y = x.to(torch.float64) + moved[id(x)] * _full(known(x), x)
            return y if x.is_floating_point() else y.to(x.dtype)

        for k, y in enumerate(_listed(_replaced(call, change))):
            if y.shape != base[k].shape:
                return [math.inf] * len(base)
            worst[k] = torch.maximum(worst[k], (y.to(torch.float64) - base[k]).abs())
    if call.name in ("argmax", "argmin", "nonzero", "searchsorted", "bucketize"):
        return [torch.where(w > 0, math.inf, 0.0) for w in worst]
    return list(worst)


def _tried(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """An operator without a rule: how it answers in double precision to operands that move.

    They move by their errors and by the last digits that its arithmetic may round.
    """
    outs = call.outs
    if not any(o.is_floating_point() or o.is_complex() for o in outs):
        exact = all(_is_zero(known(x)) for x in flat([call.args, call.kwargs]))
        return [0.0 if exact else math.inf] * len(outs)
    eps = max((_eps(o) for o in outs), default=0.0)
    generator = torch.Generator().manual_seed(0)

    def run(moved: bool) -> list[Tensor]:
        def change(x: Any) -> Any:
            if isinstance(x, torch.dtype):
                return torch.float64 if x.is_floating_point else x
            if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
                return x
            wide = x.to(torch.complex128 if x.is_complex() else torch.float64)
            if not moved:
                return wide
            sign = torch.randint(0, 2, x.shape, generator=generator).to(torch.float64) * 2 - 1
            return wide + sign * (_full(known(x), x) + 2 * eps * _wide(x))

        return _listed(_replaced(call, change))

    try:
        base = run(False)
        trials = [run(True) for _ in range(_TRIALS)]
    except Exception:  # no kernel in double precision
        return [
            _own(o, _wide(o).max() if o.numel() else 0.0)
            + most(known(x) for x in flat([call.args]))
            for o in outs
        ]
    found: list[Bound] = []
    for k, out in enumerate(outs):
        if k >= len(base) or base[k].shape != out.shape:
            found.append(math.inf)
            continue
        worst = _wide(out - base[k]) if out.numel() else torch.zeros(out.shape, dtype=torch.float64)
        for t in trials:
            if t[k].shape != out.shape:
                return [math.inf] * len(outs)
            worst = torch.maximum(worst, _wide(t[k] - base[k]))
        # Drawn signs seldom hit the worst of each element: no element is held to less than the average.
        worst = torch.maximum(worst, worst.mean()) if worst.numel() else worst
        found.append(_WIDENED * worst + _own(out, out))
    return found


# ---- Rules ----------------------------------------------------------------------------------------------


def _pair(call: Call, known: Callable[[Any], Bound]) -> tuple[Tensor, Tensor, Bound, Bound]:
    a, b = call.args[0], call.args[1]
    ea, eb = known(a), known(b)
    return (
        _wide(a).abs(),
        _wide(b).abs(),
        ea,
        eb,
    )


def _add(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    a, b, ea, eb = _pair(call, known)
    if call.name == "rsub":
        a, b, ea, eb = b, a, eb, ea
    alpha = abs(float(call.kwargs.get("alpha", 1)))
    return [ea + alpha * eb + _own(call.outs[0], a + alpha * b) + torch.zeros(call.outs[0].shape)]


def _mul(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    a, b, ea, eb = _pair(call, known)
    return [a * eb + b * ea + ea * eb + _own(call.outs[0], a * b)]


def _div(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    if call.kwargs.get("rounding_mode") is not None:
        return _decided_ratio(call, known)
    _, b, ea, eb = _pair(call, known)
    y = _wide(call.outs[0])
    room = b - eb
    error = torch.where(torch.as_tensor(room) > 0, (ea + y.abs() * eb) / room, math.inf)
    if _is_zero(ea) and _is_zero(eb):
        error = torch.zeros(())
    return [error + _own(call.outs[0], y.abs())]


def _decided_ratio(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """A quotient that is rounded: one step where it lies within its error of a whole number."""
    a, b = (x.to(torch.float64) if isinstance(x, Tensor) else float(x) for x in call.args[:2])
    ea, eb = known(call.args[0]), known(call.args[1])
    q = torch.as_tensor(a / b)
    size = torch.as_tensor(b).abs() if isinstance(b, Tensor) else torch.tensor(abs(b))
    e = (ea + q.abs() * eb) / size + _own(call.outs[0], q.abs())
    lower, upper = torch.floor(q - e), torch.floor(q + e)
    return [(upper - lower).expand(call.outs[0].shape)]


def _elementwise(size: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """A rule for functions of one number that are smooth; `size(x, y)` is their largest term."""

    def rule(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
        x, out = call.args[0], call.outs[0]
        e = known(x)
        own = _own(out, size(_wide(x), _wide(out)))
        if _is_zero(e):
            return [own]
        wide = x.to(torch.float64)
        ends = [
            torch.nan_to_num(call.func(wide + s * _full(e, x), *call.args[1:], **call.kwargs))
            for s in (-1.0, 1.0)
        ]
        base = torch.nan_to_num(call.func(wide, *call.args[1:], **call.kwargs))
        return [torch.maximum(*((y - base).abs() for y in ends)) + own]

    return rule


def _pow(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    out = call.outs[0]
    a, b = (_wide(x).abs() for x in call.args[:2])
    grown = 1 + (b * torch.log(a.clamp_min(1e-300)).abs())
    if all(_is_zero(known(x)) for x in call.args[:2]):
        return [_own(out, _wide(out).abs() * grown)]
    return [_tried(call, known)[0] + _own(out, _wide(out).abs() * grown)]


def _clamp(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    error, *limits = (known(x) for x in flat([call.args, call.kwargs]))
    return [error if most(limits) == 0.0 else most([error, *limits])]


def _extreme(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """minimum and maximum of two."""
    zero = torch.zeros(call.outs[0].shape, dtype=torch.float64)
    a, b = (known(x) for x in call.args[:2])
    return [torch.maximum(zero + a, zero + b)]


def _where(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    condition, a, b = call.args[:3]
    shape = call.outs[0].shape
    zero = torch.zeros(shape, dtype=torch.float64)
    ea, eb, ec = (known(x) for x in (a, b, condition))
    error = torch.where(condition, zero + ea, zero + eb)
    if not _is_zero(ec):
        gap = torch.nan_to_num((_plain(a) - _plain(b)).abs(), nan=math.inf)
        error = torch.where(torch.as_tensor(ec) > 0, gap + zero + ea + eb, error)
    return [error]


def _plain(x: Any) -> Tensor:
    return (
        x.to(torch.float64)
        if isinstance(x, Tensor)
        else torch.tensor(float(x), dtype=torch.float64)
    )


def _masked_fill(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, mask, value = call.args[:3]
    zero = torch.zeros(call.outs[0].shape, dtype=torch.float64)
    error = torch.where(mask, zero + known(value), zero + known(x))
    if not _is_zero(known(mask)):
        gap = torch.nan_to_num((_plain(x) - _plain(value)).abs(), nan=math.inf)
        error = torch.where(torch.as_tensor(known(mask)) > 0, gap + zero, error)
    return [error]


def _cast(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, out = call.args[0], call.outs[0]
    e = known(x)
    if out.is_floating_point() or out.is_complex():
        narrower = _eps(out) > _eps(x)
        return [e + _own(out, x) if narrower else e]
    if _is_zero(e) or not x.is_floating_point():
        return [e]
    ends = [torch.trunc(x.to(torch.float64) + s * _full(e, x)) for s in (-1.0, 1.0)]
    return [torch.maximum(*((y - torch.trunc(x.to(torch.float64))).abs() for y in ends))]


def _product(first: int) -> Any:
    """A rule for products that are summed; operands `first` and the next, a sum before them or behind."""

    def rule(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
        out = call.outs[0]
        args = list(call.args)
        left, right = args[first], args[first + 1]
        if not out.is_floating_point() and all(_is_zero(known(x)) for x in args):
            return [0.0]
        kind = torch.float64 if left.dtype == torch.float64 else torch.float32
        terms = _terms(call.name, left, right)
        added = args[0] if first else args[2] if call.name == "convolution" else None
        beta, alpha = (abs(float(call.kwargs.get(k, 1))) for k in ("beta", "alpha"))

        def run(a: Tensor, b: Tensor) -> Tensor:
            a, b = a.to(kind), b.to(kind)
            if call.name == "convolution":
                y = call.func(a, b, None, *args[3:])
            else:
                y = alpha * torch.matmul(a, b)
            return cast(Tensor, y.to(torch.float64))

        a, b = _size(left, kind), _size(right, kind)
        size = run(a, b)
        error: Any = 0.0
        if not _is_zero(known(left)):
            error = error + run(_full(known(left), left), b)
        if not _is_zero(known(right)):
            error = error + run(a + _full(known(left), left), _full(known(right), right))
        if isinstance(added, Tensor):
            view = added.shape if first else [-1, *[1] * (out.dim() - 2)]
            size = size + beta * _wide(added).abs().reshape(view)
            error = error + beta * _full(known(added), added).reshape(view)
        return [error + _own(out, size, terms)]

    return rule


def _terms(name: str, left: Tensor, right: Tensor) -> float:
    """How many products are summed for an element."""
    if name == "convolution":
        return float(right[0].numel()) if right.shape[0] else 1.0
    return float(left.shape[-1])


def _linear_map(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Weighted sums with weights that are not negative: sums, means, average pools."""
    x, out = call.args[0], call.outs[0]
    kwargs = {k: v for k, v in call.kwargs.items() if k != "dtype"}
    terms = x.numel() / max(1, out.numel())
    if "cumsum" in call.name:
        terms = float(max(x.shape, default=1))
    size = call.func(_wide(x).abs(), *call.args[1:], **kwargs)
    error: Any = 0.0
    if not _is_zero(known(x)):
        error = call.func(_full(known(x), x), *call.args[1:], **kwargs)
    return [error + _own(out, size, terms)]


def _interpolate(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Bilinear and the like: places are rounded too, the more the larger the picture."""
    x = call.args[0]
    error = _linear_map(call, known)[0]
    near = max(x.shape[2:], default=1)
    return [error + _own(call.outs[0], _wide(x).abs().max()) * (near / 2)]


def _softmax(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, dim, out = call.args[0], call.args[1], call.outs[0]
    e = _full(known(x), x)
    wide = _wide(x)
    depth = (wide.amax(dim, keepdim=True) - wide).abs() if x.numel() else wide
    moved = e + e.amax(dim, keepdim=True) if x.numel() else e
    n = x.shape[dim] if x.dim() else 1
    if call.name == "_log_softmax":
        return [moved + _own(out, depth + 1 + math.log(max(1, n)), n)]
    y = _wide(out)
    factor = torch.expm1(moved.clamp_max(700))
    return [torch.minimum(y * factor, torch.ones(())) + _own(out, y * (2 + depth), n)]


def _batch_norm(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, weight, bias, mean, var, training = call.args[:6]
    trains = call.name == "native_batch_norm" and training
    shape = [1, -1, *[1] * (x.dim() - 2)]
    if trains or not isinstance(mean, Tensor):
        dims = [d for d in range(x.dim()) if d != 1]
        weight, bias = (w.reshape(shape) if isinstance(w, Tensor) else w for w in (weight, bias))
        rest = _tried(call, known)[1:]
        return [_normalised(call, known(x), dims, weight, bias, float(call.args[-1])), *rest]
    one = torch.ones(mean.shape, dtype=torch.float64)
    scale = (_wide(weight).abs() if isinstance(weight, Tensor) else one) / torch.sqrt(
        _wide(var) + float(call.args[-1])
    )
    shift = _wide(bias).abs() if isinstance(bias, Tensor) else 0 * one
    size = _wide(x).abs() * scale.reshape(shape) + (_wide(mean).abs() * scale + shift).reshape(
        shape
    )
    return [_full(known(x), x) * scale.reshape(shape) + _own(call.outs[0], size)]


def _layer_norm(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, shape, weight, bias, eps = call.args[:5]
    dims = list(range(-len(shape), 0))
    return [_normalised(call, known(x), dims, weight, bias, float(eps))]


def _normalised(
    call: Call, error: Bound, dims: list[int], weight: Any, bias: Any, eps: float
) -> Tensor:
    """What is left of a value when its mean over `dims` is taken off and it is divided by its spread."""
    x, out = call.args[0], call.outs[0]
    wide, e = _wide(x), _full(error, x)
    mean = wide.mean(dims, keepdim=True)
    var = ((wide - mean) ** 2).mean(dims, keepdim=True) + eps
    scale = _wide(weight).abs() if isinstance(weight, Tensor) else 1.0
    shift = _wide(bias).abs() if isinstance(bias, Tensor) else 0.0
    normed = (wide - mean).abs() / var.sqrt()
    # The variance may be computed as the mean square less the square of the mean.
    square = (wide**2).mean(dims, keepdim=True) / var
    size = (wide.abs() + wide.abs().mean(dims, keepdim=True)) / var.sqrt() + normed * square
    moved = (e + e.mean(dims, keepdim=True)) / var.sqrt()
    moved = moved + normed * ((normed * e).mean(dims, keepdim=True) / var.sqrt())
    # Squares have one sign: a long sum of them outgrows its terms, and its rounding is no random walk.
    n = float(math.prod(x.shape[d] for d in dims)) ** 1.2
    return moved * scale + _own(out, size * scale + shift, n)


def _sorted(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Sorted or largest values are as exact as the others; their places are, where those are exact."""
    e = most(known(x) for x in flat([call.args]))
    places = 0.0 if e == 0.0 else math.inf
    return [e if o.is_floating_point() else places for o in call.outs]


def _norm(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, out = call.args[0], call.outs[0]
    if _is_zero(known(x)):
        return [_own(out, out, x.numel() / max(1, out.numel()))]
    return [_tried(call, known)[0]]


def _transform(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Fourier transforms: each result sums all of the dims."""
    x, dims, out = call.args[0], call.args[1], call.outs[0]
    size = _wide(x).abs().sum(dims, keepdim=True)
    error = _full(known(x), x).sum(dims, keepdim=True)
    return [(error + _own(out, size, math.prod(x.shape[d] for d in dims))).expand(out.shape)]


def _filled(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    return [known(call.args[1]) if len(call.args) > 1 else 0.0]


def _made_anew(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Zeros like another tensor, and other values that hang on its shape only."""
    return [0.0] * len(call.outs)


def _copied(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """copy_: what is written, in the type of what it is written into."""
    source, out = call.args[1], call.outs[0]
    e = known(source)
    if isinstance(source, Tensor) and source.dtype != out.dtype:
        e = _cast(Call(call.func, (source,), {}, [out]), known)[0]
    return [_full(e, source).expand(out.shape) if isinstance(source, Tensor) else 0.0]


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


_SMOOTH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
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

# Products that are summed, and where their operands begin.
_PRODUCTS = {
    "mm": 0,
    "bmm": 0,
    "mv": 0,
    "dot": 0,
    "addmm": 1,
    "baddbmm": 1,
    "addmv": 1,
    "convolution": 0,
}

_RULES: dict[str, Any] = {
    **{name: _elementwise(size) for name, size in _SMOOTH.items()},
    **dict.fromkeys(("add", "sub", "rsub"), _add),
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "clamp": _clamp,
    **dict.fromkeys(("clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys(("maximum", "minimum"), _extreme),
    "where": _where,
    "masked_fill": _masked_fill,
    "_to_copy": _cast,
    **{name: _product(first) for name, first in _PRODUCTS.items()},
    **dict.fromkeys(
        ("sum", "mean", "cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d"), _linear_map
    ),
    **dict.fromkeys(
        ("adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _linear_map
    ),
    **dict.fromkeys(("col2im", "nansum"), _linear_map),
    **dict.fromkeys(
        ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), _interpolate
    ),
    **dict.fromkeys(("_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    "native_layer_norm": _layer_norm,
    **dict.fromkeys(("sort", "topk", "kthvalue", "max", "min"), _sorted),
    "linalg_vector_norm": _norm,
    **dict.fromkeys(("_fft_r2c", "_fft_c2c", "_fft_c2r"), _transform),
    "fill": _filled,
    "copy": _copied,
    **dict.fromkeys(
        ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full"),
        _made_anew,
    ),
    **dict.fromkeys(("new_empty", "zero", "promote_types", "rand_like", "randn_like"), _made_anew),
}


def summed_products(call: Call) -> float:
    """How many products a call sums for each element; 1 where it sums none."""
    first = _PRODUCTS.get(call.name)
    if first is None:
        return 1.0
    return _terms(call.name, call.args[first], call.args[first + 1])
