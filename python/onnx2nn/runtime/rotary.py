"""com.microsoft's rotary embeddings and position biases."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.heads import merge_heads, rotate_heads, split_heads


def ms_rotary_embedding(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """com.microsoft RotaryEmbedding: as ONNX's, but one position may stand for the first."""
    if x.dim() == 3 and not (num_heads and rotary_embedding_dim):
        num_heads = x.shape[2] // (2 * cos_cache.shape[1])
    heads = split_heads(x, num_heads)
    if position_ids.dim() == 1:
        steps = torch.arange(heads.shape[2], device=x.device)
        position_ids = (position_ids + steps).expand(heads.shape[0], -1)
    cos, sin = (
        F.embedding(position_ids, cos_cache),
        F.embedding(position_ids, sin_cache),
    )
    y = rotate_heads(heads, cos, sin, interleaved)
    return merge_heads(y) if x.dim() == 3 else y


def mix_streams(streams: Tensor, sections: list[int], layout: int) -> Tensor:
    """One of the angles' three streams [3, batch, length, pairs] for each pair."""
    if layout == 0:
        parts = streams.split_with_sizes(sections, -1)
        return torch.cat([part[i] for i, part in enumerate(parts)], -1)
    mixed = streams[0].clone()
    for i in (1, 2):
        places = slice(i, 3 * sections[i], 3)
        mixed[..., places] = streams[i][..., places]
    return mixed


def multimodal_rotary_embedding(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    mrope_section: list[int],
    interleaved: int = 0,
    mrope_layout: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """com.microsoft MRotaryEmbedding: positions in time, height and width share the angles."""
    if x.dim() == 3 and not (num_heads and rotary_embedding_dim):
        num_heads = x.shape[2] // (2 * cos_cache.shape[1])
    angles = F.embedding(position_ids, torch.cat([cos_cache, sin_cache], -1))
    angles = angles * scale if scale != 1.0 else angles
    cos, sin = (
        mix_streams(part, mrope_section, mrope_layout) for part in angles.chunk(2, -1)
    )
    y = rotate_heads(split_heads(x, num_heads), cos, sin, interleaved)
    return merge_heads(y) if x.dim() == 3 else y


def gemma_rotary_embedding(
    emb: Tensor, q: Tensor, q_rot: Tensor, k: Tensor, k_rot: Tensor
) -> tuple[Tensor, Tensor]:
    """com.microsoft GemmaRotaryEmbedding: halves turned by angles given in float32."""
    sin, cos = (part.to(q.dtype).unsqueeze(1) for part in (emb.sin(), emb.cos()))
    return q * cos + q_rot * sin, k * cos + k_rot * sin


def distance_bucket(distance: Tensor, count: int, max_distance: int) -> Tensor:
    """T5's buckets: one for each small distance, then ones that widen with it."""
    exact = count // 2
    rate = (count - exact) / math.log(max_distance / exact)
    far = exact + ((distance.clamp(min=1).float() / exact).log() * rate).long()
    return torch.where(distance < exact, distance, far.clamp(max=count - 1))


def relative_position_bias(
    bias_table: Tensor,
    query_length: int,
    key_length: int,
    *,
    max_distance: int,
    is_bidirectional: int = 0,
) -> Tensor:
    """com.microsoft RelativePositionBias: T5's.

    The table's numbers lie head by head, although its shape says [buckets, heads].
    """
    buckets, heads = bias_table.shape
    ahead = torch.arange(key_length, device=bias_table.device)
    ahead = ahead - torch.arange(query_length, device=ahead.device).unsqueeze(1)
    if is_bidirectional:
        half = buckets // 2
        place = distance_bucket(ahead.abs(), half, max_distance)
        place = torch.where(ahead > 0, half, 0) + place
    else:
        place = distance_bucket((-ahead).clamp(min=0), buckets, max_distance)
    return bias_table.reshape(heads, buckets)[:, place].unsqueeze(0)


def gated_relative_position_bias(
    query: Tensor,
    query_bias: Tensor,
    rel_pos: Tensor,
    weight: Tensor,
    bias: Tensor,
    eco_a: Tensor,
    *,
    num_heads: int,
) -> Tensor:
    """com.microsoft GatedRelativePositionBias: a position bias scaled by gates of the query."""
    q = split_heads(query + query_bias, num_heads)
    gates = torch.unflatten(q @ weight + bias, -1, (2, -1)).sum(-1)
    update, reset = torch.sigmoid(gates).chunk(2, dim=-1)
    return (update * (reset * eco_a - 1.0) + 2.0) * rel_pos
