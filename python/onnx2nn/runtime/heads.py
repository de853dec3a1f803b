"""What the attentions of ONNX and com.microsoft share: heads, masks and rotation."""

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, length, heads * size] as [batch, heads, length, size]; four axes are left alone."""
    if x.dim() == 4:
        return x
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def split_parts(x: Tensor, sizes: list[int]) -> list[Tensor]:
    """Query, key and value that lie side by side in the last axis."""
    a, b = sizes[0], sizes[0] + sizes[1]
    return [x[..., :a], x[..., a:b], x[..., b:]]


def merge_heads(x: Tensor) -> Tensor:
    """[batch, heads, length, size] as [batch, length, heads * size]."""
    return x.transpose(1, 2).flatten(2)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Repeats each key or value head for its group of query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def add_masks(allowed: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """One mask for scaled_dot_product_attention from what may be seen and what is added."""
    if bias is None or allowed is None:
        return allowed if bias is None else bias
    return torch.where(allowed, bias, -torch.inf)


def visible_keys(
    q_length: int,
    k_length: int,
    offset: Tensor | int,
    is_causal: int,
    left: int,
    right: int,
    device: torch.device,
) -> Tensor | None:
    """Which keys each query may see: none later, and none outside a window; None for all."""
    if not is_causal and left < 0 and right < 0:
        return None
    rows = torch.arange(q_length, device=device).unsqueeze(1) + offset
    ahead = torch.arange(k_length, device=device) - rows
    allowed = torch.ones_like(ahead, dtype=torch.bool)
    if is_causal:
        allowed = ahead <= 0
    if left >= 0:
        allowed = allowed & (ahead >= -left)
    if right >= 0:
        allowed = allowed & (ahead <= right)
    return allowed


def softmax_of_visible(scores: Tensor) -> Tensor:
    """Softmax over the last axis in which a row of -inf gives zeros, and every step is rounded."""
    hidden = (scores == -torch.inf).all(-1, keepdim=True)
    if scores.dtype in (torch.float32, torch.float64):
        return scores.softmax(-1).masked_fill(hidden, 0.0)
    powers = torch.exp(scores - scores.amax(-1, keepdim=True).masked_fill(hidden, 0.0))
    return (powers / powers.sum(-1, keepdim=True)).masked_fill(hidden, 0.0)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of the halves of [..., size] by angles [..., size / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([cos * a - sin * b, sin * a + cos * b], dim=-1)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of neighbours in [..., size] by angles [..., size / 2]."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([cos * a - sin * b, sin * a + cos * b], dim=-1).flatten(-2)


def rotate_heads(x: Tensor, cos: Tensor, sin: Tensor, interleaved: int) -> Tensor:
    """Turns pairs in [batch, heads, length, size] by angles [batch, length, pairs]."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    width = 2 * cos.shape[-1]
    turned, kept = x[..., :width], x[..., width:]
    if interleaved:
        y = rotate_pairs(turned, cos, sin)
    else:
        y = rotate_halves(turned, cos, sin)
    return torch.cat([y, kept], dim=-1) if kept.shape[-1] else y
