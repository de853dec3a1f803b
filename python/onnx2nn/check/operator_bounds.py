"""What one torch operator makes of the errors of its operands, and what it adds of its own."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnx2nn.check.calls import Bound, Call, flat, for_each, most
from onnx2nn.check.elementwise_bounds import (
    SMOOTH,
    add_bound,
    cast_bound,
    clamp_bound,
    div_bound,
    elementwise_bound,
    extreme_bound,
    masked_fill_bound,
    mul_bound,
    pow_bound,
    where_bound,
)
from onnx2nn.check.general_bounds import (
    CHOICES,
    DECISIONS,
    MOVES,
    decided_bound,
    moved_bound,
    tried_bound,
)
from onnx2nn.check.sum_bounds import (
    PRODUCTS,
    batch_norm_bound,
    interpolate_bound,
    layer_norm_bound,
    linear_map_bound,
    norm_bound,
    product_bound,
    softmax_bound,
    terms_of,
    transform_bound,
)

__all__ = ["bounds_of", "summed_products"]


def bounds_of(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """The error of each output of a call, for those of its operands."""
    outs = call.outs
    errors = [known(x) for x in flat([call.args, call.kwargs])]
    exact = all(isinstance(e, float) and e == 0.0 for e in errors)
    name = call.name
    if exact and (name in MOVES or name in CHOICES or name in DECISIONS):
        return [0.0] * len(outs)
    rule = _RULES.get(name)
    try:
        if rule is not None:
            found = rule(call, known)
        elif name in MOVES:
            found = moved_bound(call, known)
        elif name in CHOICES:
            found = [most(errors)] * len(outs)
        elif name in DECISIONS:
            found = decided_bound(call, known)
        else:
            found = tried_bound(call, known)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        # A form of an operator that its rule does not foresee.
        found = tried_bound(call, known)
    found += [0.0] * (len(outs) - len(found))
    return [_sound(e, o) for e, o in zip(found, outs, strict=False)]


def _sound(error: Bound, out: Tensor) -> Bound:
    if isinstance(error, Tensor):
        error = torch.nan_to_num(error.to(torch.float64), nan=math.inf, posinf=math.inf)
        return error if error.shape == out.shape else float(error.max()) if error.numel() else 0.0
    return error if error == error else math.inf


def _sorted(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Sorted or largest values are as exact as the others; their places are, where those are exact."""
    e = most(known(x) for x in flat([call.args]))
    places = 0.0 if e == 0.0 else math.inf
    return [e if o.is_floating_point() else places for o in call.outs]


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
        e = cast_bound(Call(call.func, (source,), {}, [out]), known)[0]
    return [for_each(e, source).expand(out.shape) if isinstance(source, Tensor) else 0.0]


_RULES: dict[str, Any] = {
    **{name: elementwise_bound(size) for name, size in SMOOTH.items()},
    **dict.fromkeys(("add", "sub", "rsub"), add_bound),
    "mul": mul_bound,
    "div": div_bound,
    "pow": pow_bound,
    "clamp": clamp_bound,
    **dict.fromkeys(("clamp_min", "clamp_max"), clamp_bound),
    **dict.fromkeys(("maximum", "minimum"), extreme_bound),
    "where": where_bound,
    "masked_fill": masked_fill_bound,
    "_to_copy": cast_bound,
    **{name: product_bound(first) for name, first in PRODUCTS.items()},
    **dict.fromkeys(
        ("sum", "mean", "cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d"), linear_map_bound
    ),
    **dict.fromkeys(
        ("adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), linear_map_bound
    ),
    **dict.fromkeys(("col2im", "nansum"), linear_map_bound),
    **dict.fromkeys(
        ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), interpolate_bound
    ),
    **dict.fromkeys(("_softmax", "_log_softmax"), softmax_bound),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit_no_training"), batch_norm_bound
    ),
    "native_layer_norm": layer_norm_bound,
    **dict.fromkeys(("sort", "topk", "kthvalue", "max", "min"), _sorted),
    "linalg_vector_norm": norm_bound,
    **dict.fromkeys(("_fft_r2c", "_fft_c2c", "_fft_c2r"), transform_bound),
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
    first = PRODUCTS.get(call.name)
    if first is None:
        return 1.0
    return terms_of(call.name, call.args[first], call.args[first + 1])
