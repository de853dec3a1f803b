"""ai.onnx.preview.training: gradients, and one step of the optimisers, as functions without state."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradient(
    function: Callable[..., Tensor], xs: Sequence[Tensor], zs: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """ONNX Gradient: of the sum of `function(*xs, *zs)`, to each of `xs`.

    A caller's torch.no_grad() makes no difference, and gradients of gradients are right.
    """
    result = torch.func.vjp(lambda *values: function(*values, *zs), *xs)
    gradients: tuple[Tensor, ...] = result[1](torch.ones_like(result[0]))
    return gradients


def adagrad(
    r: Tensor,
    t: Tensor,
    *tensors: Tensor,
    norm_coefficient: float = 0.0,
    epsilon: float = 0.0,
    decay_factor: float = 0.0,
) -> tuple[Tensor, ...]:
    """ONNX Adagrad: torch's optimisers change parameters in place; these give new ones.

    Takes all parameters, then all gradients, then all squared sums; gives parameters, squared sums.
    """
    n = len(tensors) // 3
    rate = r / (1 + t * decay_factor)
    values, sums = [], []
    for x, g, h in zip(tensors[:n], tensors[n : 2 * n], tensors[2 * n :], strict=True):
        slope = norm_coefficient * x + g
        total = h + slope * slope
        values.append((x - rate * slope / (total.sqrt() + epsilon)).to(x.dtype))
        sums.append(total.to(h.dtype))
    return (*values, *sums)


def adam_step(
    tensors: list[Tensor],
    rate: Tensor,
    decays: tuple[float, float],
    epsilon: float,
    norms: tuple[float, float],
) -> list[Tensor]:
    """One parameter, gradient, momentum and squared momentum after a step of ONNX Adam."""
    x, g, v, h = tensors[0], tensors[1], tensors[2], tensors[3]
    slope = norms[0] * x + g
    momentum = decays[0] * v + (1 - decays[0]) * slope
    square = decays[1] * h + (1 - decays[1]) * (slope * slope)
    new = x - rate * (momentum / (square.sqrt() + epsilon))
    return [
        ((1 - norms[1]) * new).to(x.dtype),
        momentum.to(v.dtype),
        square.to(h.dtype),
    ]


def adam(
    r: Tensor,
    t: Tensor,
    *tensors: Tensor,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 0.0,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> tuple[Tensor, ...]:
    """ONNX Adam: torch's corrects the bias differently, and in place.

    Takes all parameters, gradients, momentums, squared momentums; gives the first and last two new.
    """
    step = t.to(r.dtype)
    rate = torch.where(t > 0, r * (1 - beta**step).sqrt() / (1 - alpha**step), r)
    norms, n = (norm_coefficient, norm_coefficient_post), len(tensors) // 4
    new = [
        adam_step(list(tensors[i::n]), rate, (alpha, beta), epsilon, norms)
        for i in range(n)
    ]
    out: list[Tensor] = []
    for part in range(3):
        out += [one[part] for one in new]
    return tuple(out)


def momentum_step(
    r: Tensor,
    t: Tensor,
    *tensors: Tensor,
    alpha: float,
    beta: float,
    mode: str = "standard",
    norm_coefficient: float = 0.0,
) -> tuple[Tensor, ...]:
    """ONNX Momentum: torch's SGD dampens differently at the first step, and in place.

    Takes all parameters, then all gradients, then all momentums; gives parameters, momentums.
    """
    n = len(tensors) // 3
    share = torch.where(t > 0, beta, 1.0).to(r.dtype)
    values, momentums = [], []
    for x, g, v in zip(tensors[:n], tensors[n : 2 * n], tensors[2 * n :], strict=True):
        slope = norm_coefficient * x + g
        momentum = alpha * v + share * slope
        ahead = momentum if mode == "standard" else slope + alpha * momentum
        values.append((x - r * ahead).to(x.dtype))
        momentums.append(momentum.to(v.dtype))
    return (*values, *momentums)
