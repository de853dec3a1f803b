"""Random operators, which in ONNX may carry their own seed."""

import torch
from torch import Tensor


def seeded_generator(
    seed: float | None, device: torch.device | str
) -> torch.Generator | None:
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
        shape,
        generator=seeded_generator(seed, device),
        dtype=torch.float32,
        device=device,
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
        shape,
        generator=seeded_generator(seed, device),
        dtype=torch.float32,
        device=device,
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
        list(x.shape),
        mean=mean,
        scale=scale,
        seed=seed,
        dtype=dtype or x.dtype,
        device=x.device,
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
        list(x.shape),
        low=low,
        high=high,
        seed=seed,
        dtype=dtype or x.dtype,
        device=x.device,
    )


def bernoulli(
    x: Tensor, *, seed: float | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """ONNX Bernoulli: torch.bernoulli cannot choose the result's dtype."""
    # Runtimes draw by comparing; a probability outside of [0, 1] is then a certain outcome.
    drawn = torch.bernoulli(x.clamp(0, 1), generator=seeded_generator(seed, x.device))
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


def seeded_uniform(shape: list[int] | torch.Size, seed: int) -> Tensor:
    """Numbers in [0, 1) as ONNX's reference draws them from a seed, with numpy's generator.

    torch has the same generator (MT19937), but makes its numbers of other bits.
    """
    bits = torch.empty(shape, dtype=torch.int64)
    least = torch.iinfo(torch.int64).min
    bits.random_(least, None, generator=torch.Generator().manual_seed(seed))
    high, low = (bits >> 37) & (2**27 - 1), (bits >> 6) & (2**26 - 1)
    return (high * 2**26 + low).double() / 2**53


def dropout_with_mask(
    x: Tensor,
    ratio: Tensor | float,
    training: Tensor | bool,
    *,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """ONNX Dropout in training: F.dropout gives no mask, and takes neither tensors nor a seed."""
    enabled = torch.as_tensor(training, device=x.device)
    wide = x.to(torch.float32) if x.dtype.itemsize == 1 else x
    rate = torch.as_tensor(ratio, dtype=wide.dtype, device=x.device)
    noise = (
        torch.rand_like(wide)
        if seed is None
        else seeded_uniform(x.shape, seed).to(x.device)
    )
    mask = (noise >= rate) | ~enabled
    scale = torch.where(enabled, 1 / (1 - rate), 1)
    return torch.where(mask, wide * scale, 0).to(x.dtype), mask
