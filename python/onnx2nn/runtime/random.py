"""Random operators, which in ONNX may carry their own seed."""

import torch
from torch import Tensor


def seeded_generator(seed: float | None, device: torch.device | str) -> torch.Generator | None:
    """A generator for an ONNX seed, or None for torch's own."""
    if seed is None:
        return None
    return torch.Generator(device).manual_seed(int(seed))


def random_normal(
    shape: list[int],
    *,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """ONNX RandomNormal: torch.randn has no mean and scale."""
    values = torch.randn(
        shape, generator=seeded_generator(seed, device), dtype=torch.float32, device=device
    )
    return (values * scale + mean).to(dtype)


def random_uniform(
    shape: list[int],
    *,
    low: float = 0.0,
    high: float = 1.0,
    seed: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """ONNX RandomUniform: torch.rand has no bounds."""
    values = torch.rand(
        shape, generator=seeded_generator(seed, device), dtype=torch.float32, device=device
    )
    return (values * (high - low) + low).to(dtype)


def random_normal_like(
    x: Tensor,
    *,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """ONNX RandomNormalLike: torch.randn_like has no mean, scale and seed."""
    return random_normal(
        list(x.shape), mean=mean, scale=scale, seed=seed, dtype=dtype or x.dtype, device=x.device
    )


def random_uniform_like(
    x: Tensor,
    *,
    low: float = 0.0,
    high: float = 1.0,
    seed: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """ONNX RandomUniformLike: torch.rand_like has no bounds and seed."""
    return random_uniform(
        list(x.shape), low=low, high=high, seed=seed, dtype=dtype or x.dtype, device=x.device
    )


def bernoulli(x: Tensor, *, seed: float | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """ONNX Bernoulli: torch.bernoulli cannot choose the result's dtype."""
    drawn = torch.bernoulli(x, generator=seeded_generator(seed, x.device))
    return drawn.to(dtype or x.dtype)


def multinomial(
    x: Tensor,
    *,
    sample_size: int = 1,
    seed: float | None = None,
    dtype: torch.dtype = torch.int32,
) -> Tensor:
    """ONNX Multinomial: torch.multinomial takes probabilities, not their logarithms."""
    chances = x.float().softmax(-1)
    generator = seeded_generator(seed, x.device)
    return torch.multinomial(chances, sample_size, True, generator=generator).to(dtype)
