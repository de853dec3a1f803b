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
        gradient = norm_coefficient * x + g
        total = h + gradient * gradient
        values.append((x - rate * gradient / (total.sqrt() + epsilon)).to(x.dtype))
        sums.append(total.to(h.dtype))
    return (*values, *sums)


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
    n = len(tensors) // 4
    step = t.to(r.dtype)
    rate = torch.where(t > 0, r * (1 - beta**step).sqrt() / (1 - alpha**step), r)
    values, momentums, squares = [], [], []
    for i in range(n):
        x, g, v, h = tensors[i], tensors[n + i], tensors[2 * n + i], tensors[3 * n + i]
        gradient = norm_coefficient * x + g
        momentum = alpha * v + (1 - alpha) * gradient
        square = beta * h + (1 - beta) * (gradient * gradient)
        moved_value = x - rate * (momentum / (square.sqrt() + epsilon))
        values.append(((1 - norm_coefficient_post) * moved_value).to(x.dtype))
        momentums.append(momentum.to(v.dtype))
        squares.append(square.to(h.dtype))
    return (*values, *momentums, *squares)


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
        gradient = norm_coefficient * x + g
        momentum = alpha * v + share * gradient
        ahead = momentum if mode == "standard" else gradient + alpha * momentum
        values.append((x - r * ahead).to(x.dtype))
        momentums.append(momentum.to(v.dtype))
    return (*values, *momentums)
