"""What operators that sum make of the errors of their operands: products, means, norms, transforms."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from onnx2nn.check.calls import Bound, Call, for_each, in_double, is_zero, own_rounding, size_of
from onnx2nn.check.general_bounds import tried_bound

__all__ = [
    "PRODUCTS",
    "batch_norm_bound",
    "interpolate_bound",
    "layer_norm_bound",
    "linear_map_bound",
    "norm_bound",
    "product_bound",
    "softmax_bound",
    "terms_of",
    "transform_bound",
]

# Products that are summed, and where their operands begin.
PRODUCTS = {
    "mm": 0,
    "bmm": 0,
    "mv": 0,
    "dot": 0,
    "addmm": 1,
    "baddbmm": 1,
    "addmv": 1,
    "convolution": 0,
}


def product_bound(first: int) -> Any:
    """A rule for products that are summed; operands `first` and the next, a sum before them or behind."""

    def rule(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
        out = call.outs[0]
        args = list(call.args)
        left, right = args[first], args[first + 1]
        if not out.is_floating_point() and all(is_zero(known(x)) for x in args):
            return [0.0]
        kind = torch.float64 if left.dtype == torch.float64 else torch.float32
        terms = terms_of(call.name, left, right)
        added = args[0] if first else args[2] if call.name == "convolution" else None
        beta, alpha = (abs(float(call.kwargs.get(k, 1))) for k in ("beta", "alpha"))

        def run(a: Tensor, b: Tensor) -> Tensor:
            a, b = a.to(kind), b.to(kind)
            if call.name == "convolution":
                y = call.func(a, b, None, *args[3:])
            else:
                y = alpha * torch.matmul(a, b)
            return cast(Tensor, y.to(torch.float64))

        a, b = size_of(left, kind), size_of(right, kind)
        size = run(a, b)
        error: Any = 0.0
        if not is_zero(known(left)):
            error = error + run(for_each(known(left), left), b)
        if not is_zero(known(right)):
            error = error + run(a + for_each(known(left), left), for_each(known(right), right))
        if isinstance(added, Tensor):
            view = added.shape if first else [-1, *[1] * (out.dim() - 2)]
            size = size + beta * in_double(added).abs().reshape(view)
            error = error + beta * for_each(known(added), added).reshape(view)
        return [error + own_rounding(out, size, terms)]

    return rule


def terms_of(name: str, left: Tensor, right: Tensor) -> float:
    """How many products are summed for an element."""
    if name == "convolution":
        return float(right[0].numel()) if right.shape[0] else 1.0
    return float(left.shape[-1])


def linear_map_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Weighted sums with weights that are not negative: sums, means, average pools."""
    x, out = call.args[0], call.outs[0]
    kwargs = {k: v for k, v in call.kwargs.items() if k != "dtype"}
    terms = x.numel() / max(1, out.numel())
    if "cumsum" in call.name:
        terms = float(max(x.shape, default=1))
    size = call.func(in_double(x).abs(), *call.args[1:], **kwargs)
    error: Any = 0.0
    if not is_zero(known(x)):
        error = call.func(for_each(known(x), x), *call.args[1:], **kwargs)
    return [error + own_rounding(out, size, terms)]


def interpolate_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Bilinear and the like: places are rounded too, the more the larger the picture."""
    x = call.args[0]
    error = linear_map_bound(call, known)[0]
    near = max(x.shape[2:], default=1)
    return [error + own_rounding(call.outs[0], in_double(x).abs().max()) * (near / 2)]


def softmax_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, dim, out = call.args[0], call.args[1], call.outs[0]
    e = for_each(known(x), x)
    wide = in_double(x)
    depth = (wide.amax(dim, keepdim=True) - wide).abs() if x.numel() else wide
    moved = e + e.amax(dim, keepdim=True) if x.numel() else e
    n = x.shape[dim] if x.dim() else 1
    if call.name == "_log_softmax":
        return [moved + own_rounding(out, depth + 1 + math.log(max(1, n)), n)]
    y = in_double(out)
    factor = torch.expm1(moved.clamp_max(700))
    return [torch.minimum(y * factor, torch.ones(())) + own_rounding(out, y * (2 + depth), n)]


def batch_norm_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, weight, bias, mean, var, training = call.args[:6]
    trains = call.name == "native_batch_norm" and training
    shape = [1, -1, *[1] * (x.dim() - 2)]
    if trains or not isinstance(mean, Tensor):
        dims = [d for d in range(x.dim()) if d != 1]
        weight, bias = (w.reshape(shape) if isinstance(w, Tensor) else w for w in (weight, bias))
        rest = tried_bound(call, known)[1:]
        return [_normalised(call, known(x), dims, weight, bias, float(call.args[-1])), *rest]
    one = torch.ones(mean.shape, dtype=torch.float64)
    scale = (in_double(weight).abs() if isinstance(weight, Tensor) else one) / torch.sqrt(
        in_double(var) + float(call.args[-1])
    )
    shift = in_double(bias).abs() if isinstance(bias, Tensor) else 0 * one
    size = in_double(x).abs() * scale.reshape(shape) + (
        in_double(mean).abs() * scale + shift
    ).reshape(shape)
    return [for_each(known(x), x) * scale.reshape(shape) + own_rounding(call.outs[0], size)]


def layer_norm_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, shape, weight, bias, eps = call.args[:5]
    dims = list(range(-len(shape), 0))
    return [_normalised(call, known(x), dims, weight, bias, float(eps))]


def _normalised(
    call: Call, error: Bound, dims: list[int], weight: Any, bias: Any, eps: float
) -> Tensor:
    """What is left of a value when its mean over `dims` is taken off and it is divided by its spread."""
    x, out = call.args[0], call.outs[0]
    wide, e = in_double(x), for_each(error, x)
    mean = wide.mean(dims, keepdim=True)
    var = ((wide - mean) ** 2).mean(dims, keepdim=True) + eps
    scale = in_double(weight).abs() if isinstance(weight, Tensor) else 1.0
    shift = in_double(bias).abs() if isinstance(bias, Tensor) else 0.0
    normed = (wide - mean).abs() / var.sqrt()
    # The variance may be computed as the mean square less the square of the mean.
    square = (wide**2).mean(dims, keepdim=True) / var
    size = (wide.abs() + wide.abs().mean(dims, keepdim=True)) / var.sqrt() + normed * square
    moved = (e + e.mean(dims, keepdim=True)) / var.sqrt()
    moved = moved + normed * ((normed * e).mean(dims, keepdim=True) / var.sqrt())
    # Squares have one sign: a long sum of them outgrows its terms, and its rounding is no random walk.
    n = float(math.prod(x.shape[d] for d in dims)) ** 1.2
    return moved * scale + own_rounding(out, size * scale + shift, n)


def norm_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    x, out = call.args[0], call.outs[0]
    if is_zero(known(x)):
        return [own_rounding(out, out, x.numel() / max(1, out.numel()))]
    return [tried_bound(call, known)[0]]


def transform_bound(call: Call, known: Callable[[Any], Bound]) -> list[Bound]:
    """Fourier transforms: each result sums all of the dims."""
    x, dims, out = call.args[0], call.args[1], call.outs[0]
    size = in_double(x).abs().sum(dims, keepdim=True)
    error = for_each(known(x), x).sum(dims, keepdim=True)
    return [
        (error + own_rounding(out, size, math.prod(x.shape[d] for d in dims))).expand(out.shape)
    ]
