"""com.microsoft's other parts of transformers: norms, embeddings and fused products."""

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.quantization import real_values


def skip_layer_norm(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """com.microsoft SkipLayerNormalization: gives output, mean, inverse deviation and the sum."""
    total = x + skip if bias is None else x + skip + bias
    y = F.layer_norm(total, [total.shape[-1]], gamma, beta, epsilon)
    mean = total.float().mean(-1, keepdim=True)
    variance = total.float().var(-1, keepdim=True, correction=0)
    return y, mean, torch.rsqrt(variance + epsilon), total


def simplified_layer_norm(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """SimplifiedLayerNormalization: F.rms_norm with the inverse root mean square as well."""
    axes = list(range(axis % x.dim(), x.dim()))
    inverse = torch.rsqrt(x.float().square().mean(axes, keepdim=True) + epsilon)
    return (x.float() * inverse).to(x.dtype) * scale, inverse


def skip_simplified_layer_norm(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """com.microsoft SkipSimplifiedLayerNormalization: output, zeros, inverse and the sum."""
    total = x + skip if bias is None else x + skip + bias
    y, inverse = simplified_layer_norm(total, gamma, epsilon=epsilon)
    # ONNX Runtime fills the mean, which means nothing here, with zeros.
    return y, torch.zeros_like(inverse), inverse, total


def embedded_sum(ids: list[Tensor | None], tables: list[Tensor | None]) -> Tensor:
    """The sum of what the ids pick of their tables; ids that are None count from 0."""
    first, positions, segments = ids
    assert first is not None
    if positions is None:
        positions = torch.arange(first.shape[1], device=first.device).unsqueeze(0)
    words, places, kinds = tables
    assert words is not None
    assert places is not None
    total = F.embedding(first, words) + F.embedding(positions, places)
    if segments is not None and kinds is not None:
        total = total + F.embedding(segments, kinds)
    return total


def embed_layer_norm(
    input_ids: Tensor,
    segment_ids: Tensor | None,
    word_embedding: Tensor,
    position_embedding: Tensor,
    segment_embedding: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor, Tensor]:
    """com.microsoft EmbedLayerNormalization: gives output, lengths by the mask and the sum."""
    total = embedded_sum(
        [input_ids, position_ids, segment_ids],
        [word_embedding, position_embedding, segment_embedding],
    )
    y = F.layer_norm(total, [total.shape[-1]], gamma, beta, epsilon)
    lengths = torch.zeros_like(input_ids[:, 0], dtype=torch.int32)
    if mask is not None:
        lengths = (mask == 1).sum(1, dtype=torch.int32)
    return y, lengths, total


def bias_split_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """com.microsoft BiasSplitGelu: a gelu of one half gates the other; torch has no such call."""
    value, gate = (x + bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """com.microsoft FusedMatMul: torch.matmul with transposes, of the batch too, and a factor."""
    if transBatchA and a.dim() > 2:
        a = a.movedim(0, -2)
    if transBatchB and b.dim() > 2:
        b = b.movedim(0, -2)
    a = a.mT if transA and a.dim() > 1 else a
    b = b.mT if transB and b.dim() > 1 else b
    y = a @ b
    return y if alpha == 1.0 else y * alpha


def fused_activation(
    x: Tensor,
    activation: str,
    alpha: float = 0.0,
    beta: float = 0.0,
    gamma: float = 0.0,
) -> Tensor:
    """The activation that com.microsoft's FusedConv and FusedGemm name, with its parameters."""
    if activation == "LeakyRelu":
        return F.leaky_relu(x, alpha)
    if activation == "Clip":
        return x.clamp(alpha, beta)
    if activation == "HardSigmoid":
        return (alpha * x + beta).clamp(0.0, 1.0)
    if activation in ("Elu", "Selu"):
        y = F.elu(x, alpha)
        return y if activation == "Elu" else gamma * y
    if activation == "ThresholdedRelu":
        return torch.where(x > alpha, x, 0.0)
    if activation == "ScaledTanh":
        return alpha * torch.tanh(beta * x)
    if activation == "ParametricSoftplus":
        return alpha * F.softplus(beta * x)
    return plain_activation(x, activation)


def plain_activation(x: Tensor, activation: str) -> Tensor:
    """An activation without parameters by its name in ONNX."""
    if activation == "Relu":
        return torch.relu(x)
    if activation == "Tanh":
        return torch.tanh(x)
    if activation == "Sigmoid":
        return torch.sigmoid(x)
    if activation == "Softplus":
        return F.softplus(x)
    return F.softsign(x) if activation == "Softsign" else F.hardswish(x)


def after_only_match(
    source: list[int], tokens: list[int], least: int, most: int
) -> int:
    """Where the source goes on after the tokens' end, of which as much is taken as makes it
    occur once; -1 where it does not."""
    for size in range(least, most + 1):
        if size > len(tokens):
            return -1
        count = len(source) - size + 1
        places = [i for i in range(count) if source[i : i + size] == tokens[-size:]]
        if not places:
            return -1
        if places[0] + size >= len(source) or len(places) == 1:
            return places[0] + size
    return -1


def bifurcation_detector(
    src_tokens: Tensor,
    cur_tokens: Tensor,
    prev_suffix_match_idx: Tensor,
    pred_tokens: Tensor | None = None,
    *,
    min_ngram_size: int = 1,
    max_ngram_size: int = 3,
) -> tuple[Tensor, Tensor]:
    """com.microsoft BifurcationDetector: finds where guessed tokens part from the source's."""
    source, tokens = src_tokens.tolist(), cur_tokens.tolist()
    if pred_tokens is not None:
        guesses, start, same = pred_tokens.tolist(), int(prev_suffix_match_idx), 0
        while same < len(source) - start and guesses[same] == source[start + same]:
            same += 1
        tokens = tokens + guesses[: same + 1]
    found = after_only_match(source, tokens, min_ngram_size, max_ngram_size)
    grown = torch.tensor(tokens, dtype=cur_tokens.dtype, device=src_tokens.device)
    return grown, torch.full([], found, dtype=torch.int64, device=src_tokens.device)


def linear_attention_gate(
    a: Tensor, dt_bias: Tensor, decay_scale: Tensor, b: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """com.microsoft LinearAttentionGate: the decay, in float32 until it is done, and the rate."""
    decay = decay_scale * F.softplus(a.float() + dt_bias)
    return decay.to(a.dtype), None if b is None else torch.sigmoid(b)


def q_embed_layer_norm(
    input_ids: Tensor,
    segment_ids: Tensor | None,
    word_embedding: Tensor,
    position_embedding: Tensor,
    segment_embedding: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None,
    word_scale: Tensor,
    position_scale: Tensor,
    segment_scale: Tensor | None,
    gamma_scale: Tensor,
    beta_scale: Tensor,
    word_zero_point: Tensor,
    position_zero_point: Tensor,
    segment_zero_point: Tensor | None,
    gamma_zero_point: Tensor,
    beta_zero_point: Tensor,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor]:
    """com.microsoft QEmbedLayerNormalization: EmbedLayerNormalization of tables of bytes."""
    segments = None
    if segment_embedding is not None and segment_scale is not None:
        segments = real_values(segment_embedding, segment_scale, segment_zero_point)
    y, lengths, _ = embed_layer_norm(
        input_ids,
        segment_ids,
        real_values(word_embedding, word_scale, word_zero_point),
        real_values(position_embedding, position_scale, position_zero_point),
        segments,
        real_values(gamma, gamma_scale, gamma_zero_point),
        real_values(beta, beta_scale, beta_zero_point),
        mask,
        epsilon=epsilon,
    )
    return y, lengths


def clamped_swiglu(
    gate: Tensor,
    up: Tensor | None = None,
    *,
    limit: float = 0.0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    round_activation: int = 0,
) -> Tensor:
    """com.microsoft SwiGLU: clamped, in float32; without `up` the gate holds both halves."""
    dtype = gate.dtype
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    gate, up = gate.float(), up.float()
    if limit > 0:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    y = gate * torch.sigmoid(activation_alpha * gate)
    if round_activation:
        y = y.to(dtype).float()
    return (y * (up + activation_beta)).to(dtype)
