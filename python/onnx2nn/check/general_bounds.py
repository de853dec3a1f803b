"""What operators make of errors that only move, choose or decide; and any operator without a rule."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnx2nn.check.calls import (
    Bound,
    Call,
    called_again,
    flat,
    for_each,
    in_double,
    is_zero,
    most,
    own_rounding,
    tensors_in,
    unit_of,
)

__all__ = ["CHOICES", "DECISIONS", "MOVES", "decided_bound", "moved_bound", "tried_bound"]

# Drawn signs of the errors, where an operator is only tried out, and by how much they are widened.
_TRIALS, _WIDENED = 3, 4.0

# What only moves elements moves their errors.
MOVES = {
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
CHOICES = {
    *("amax", "amin", "cummax", "max_pool2d_with_indices", "max_pool3d_with_indices", "median"),
    *("adaptive_max_pool2d", "max_unpool2d", "max_pool2d", "max_pool1d", "masked_select"),
}
# What answers with something that changes abruptly.
DECISIONS = {
    *("all", "any", "argmax", "argmin", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor"),
    *("bucketize", "ceil", "eq", "floor", "floor_divide", "fmod", "frac", "ge", "gt", "heaviside"),
    *("isfinite", "isinf", "isnan", "isneginf", "isposinf", "le", "logical_and", "logical_not"),
    *("logical_or", "logical_xor", "lt", "ne", "nonzero", "remainder", "round", "searchsorted"),
    *("sgn", "sign", "signbit", "trunc", "__lshift__", "__rshift__", "unique_dim", "_unique2"),
}


def moved_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    indices = {"embedding": 1, "gather": 2, "index": 1, "index_select": 2, "take": 1}
    at = indices.get(call.name)
    if at is not None and not all(is_zero(known(i)) for i in flat([call.args[at]])):
        return [math.inf] * len(call.outs)

    def error_of(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if not (x.is_floating_point() or x.is_complex()) and is_zero(known(x)):
            # Indices; integers that are data are exact.
            return (
                x if call.name not in ("cat", "stack") else torch.zeros_like(x, dtype=torch.float64)
            )
        return for_each(known(x), x)

    def change(x: Any) -> Any:
        # A number that is filled in is exact.
        return error_of(x)

    if call.name == "constant_pad_nd":
        padded = call.func(for_each(known(call.args[0]), call.args[0]), call.args[1], 0.0)
        return [padded]
    if call.name == "scatter" and not isinstance(call.args[3], Tensor):
        return [most([known(call.args[0])])]
    return list(tensors_in(called_again(call, change)))


def decided_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """By how much answers change where operands move to the ends of their errors."""
    tensors = [x for x in flat([call.args, call.kwargs]) if isinstance(x, Tensor)]
    inexact = [x for x in tensors if not is_zero(known(x))]
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
                return x if moved[id(x)] < 0 else x ^ (for_each(known(x), x) > 0)
            y = x.to(torch.float64) + moved[id(x)] * for_each(known(x), x)
            return y if x.is_floating_point() else y.to(x.dtype)

        for k, y in enumerate(tensors_in(called_again(call, change))):
            if y.shape != base[k].shape:
                return [math.inf] * len(base)
            worst[k] = torch.maximum(worst[k], (y.to(torch.float64) - base[k]).abs())
    if call.name in ("argmax", "argmin", "nonzero", "searchsorted", "bucketize"):
        return [torch.where(w > 0, math.inf, 0.0) for w in worst]
    return list(worst)


def tried_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """An operator without a rule: how it answers in double precision to operands that move.

    They move by their errors and by the last digits that its arithmetic may round.
    """
    outs = call.outs
    if not any(o.is_floating_point() or o.is_complex() for o in outs):
        exact = all(is_zero(known(x)) for x in flat([call.args, call.kwargs]))
        return [0.0 if exact else math.inf] * len(outs)
    eps = max((unit_of(o) for o in outs), default=0.0)
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
            return wide + sign * (for_each(known(x), x) + 2 * eps * in_double(x))

        return tensors_in(called_again(call, change))

    try:
        base = run(False)
        trials = [run(True) for _ in range(_TRIALS)]
    except Exception:  # no kernel in double precision
        return [
            own_rounding(o, in_double(o).max() if o.numel() else 0.0)
            + most(known(x) for x in flat([call.args]))
            for o in outs
        ]
    found: list[Bound] = []
    for k, out in enumerate(outs):
        if k >= len(base) or base[k].shape != out.shape:
            found.append(math.inf)
            continue
        worst = (
            in_double(out - base[k]) if out.numel() else torch.zeros(out.shape, dtype=torch.float64)
        )
        for t in trials:
            if t[k].shape != out.shape:
                return [math.inf] * len(outs)
            worst = torch.maximum(worst, in_double(t[k] - base[k]))
        # Drawn signs seldom hit the worst of each element: no element is held to less than the average.
        worst = torch.maximum(worst, worst.mean()) if worst.numel() else worst
        found.append(_WIDENED * worst + own_rounding(out, out))
    return found
