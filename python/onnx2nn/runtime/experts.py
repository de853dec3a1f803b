"""com.microsoft's mixtures of experts."""

import torch
import torch.nn.functional as F
from torch import Tensor

from onnx2nn.runtime.packed_weights import unpack_bits


def ungated_activation(x: Tensor, kind: str) -> Tensor:
    """The activations inside com.microsoft's experts that take one input."""
    if kind == "gelu":
        # ONNX Runtime's experts take the approximation.
        return F.gelu(x, approximate="tanh")
    if kind == "identity":
        return x
    if kind == "relu2":
        return torch.relu(x).square()
    return F.silu(x) if kind == "silu" else torch.relu(x)


def expert_activation(
    x: Tensor,
    other: Tensor | None,
    activation_type: str,
    alpha: float,
    beta: float,
    limit: float | None,
    fusion: int,
) -> Tensor:
    """The activation inside com.microsoft's experts; the gated ones split or take two inputs."""
    if activation_type not in ("swiglu", "geglu"):
        y = ungated_activation(x, activation_type)
        return y if other is None else y * other
    if other is not None:
        gate, value = x, other
    elif fusion == 1:
        gate, value = x[..., 0::2], x[..., 1::2]
    else:
        gate, value = x.chunk(2, dim=-1)
    if activation_type == "geglu":
        return F.gelu(gate, approximate="tanh") * value
    if limit is not None:
        gate, value = gate.clamp(max=limit), value.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (value + beta)


def mixture_of_experts(
    x: Tensor,
    router_probs: Tensor,
    fc1_weights: Tensor,
    fc1_bias: Tensor | None,
    fc2_weights: Tensor,
    fc2_bias: Tensor | None = None,
    fc3_weights: Tensor | None = None,
    fc3_bias: Tensor | None = None,
    *,
    k: int = 1,
    activation_type: str = "relu",
    normalize_routing_weights: int = 0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    swiglu_limit: float | None = None,
    swiglu_fusion: int = 0,
    router_weights: Tensor | None = None,
) -> Tensor:
    """com.microsoft MoE: torch has no experts chosen per token. Each runs once, on its tokens."""
    tokens = x.reshape(-1, x.shape[-1])
    chances = router_probs.float().softmax(-1)
    chosen = chances.topk(k, dim=-1).indices
    weights = (chances if router_weights is None else router_weights.float()).gather(
        1, chosen
    )
    if normalize_routing_weights:
        weights = weights / weights.sum(-1, keepdim=True)
    y = torch.zeros_like(tokens)
    for expert in range(fc1_weights.shape[0]):
        rows, places = (chosen == expert).nonzero(as_tuple=True)
        part = tokens[rows]
        first = F.linear(
            part, fc1_weights[expert], None if fc1_bias is None else fc1_bias[expert]
        )
        third = None
        if fc3_weights is not None:
            third = F.linear(
                part,
                fc3_weights[expert],
                None if fc3_bias is None else fc3_bias[expert],
            )
        inner = expert_activation(
            first,
            third,
            activation_type,
            activation_alpha,
            activation_beta,
            swiglu_limit,
            swiglu_fusion,
        )
        out = F.linear(
            inner, fc2_weights[expert], None if fc2_bias is None else fc2_bias[expert]
        )
        y = y.index_add(
            0, rows, out * weights[rows, places].unsqueeze(-1).to(out.dtype)
        )
    return y.reshape(x.shape)


def expert_weights(
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    bits: int,
    block_size: int,
) -> Tensor:
    """Real [experts, rows, columns] weights of com.microsoft QMoE from packed ones."""
    values = unpack_bits(packed, bits).to(scales.dtype)
    experts, rows, columns = values.shape
    if not block_size or scales.dim() == 2:
        scales, block_size = scales.reshape(experts, rows, 1), columns
        if zero_points is not None:
            zero_points = unpack_bits(zero_points.reshape(experts, -1), bits)[
                :, :rows
            ].unsqueeze(-1)
    elif zero_points is not None:
        zero_points = unpack_bits(zero_points, bits)[..., : scales.shape[-1]]
    blocks = values.reshape(experts, rows, -1, block_size)
    if zero_points is None:
        blocks = blocks - (1 << (bits - 1))
    else:
        blocks = blocks - zero_points.to(scales.dtype).unsqueeze(-1)
    return (blocks * scales.unsqueeze(-1)).reshape(experts, rows, columns)


def quantised_mixture_of_experts(
    x: Tensor,
    router_probs: Tensor,
    fc1_weights: Tensor,
    fc1_scales: Tensor,
    fc1_bias: Tensor | None,
    fc2_weights: Tensor,
    fc2_scales: Tensor,
    fc2_bias: Tensor | None = None,
    fc3_weights: Tensor | None = None,
    fc3_scales: Tensor | None = None,
    fc3_bias: Tensor | None = None,
    fc1_zero_points: Tensor | None = None,
    fc2_zero_points: Tensor | None = None,
    fc3_zero_points: Tensor | None = None,
    router_weights: Tensor | None = None,
    *,
    k: int = 1,
    activation_type: str = "relu",
    normalize_routing_weights: int = 0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    swiglu_limit: float | None = None,
    swiglu_fusion: int = 0,
    expert_weight_bits: int = 4,
    block_size: int = 0,
) -> Tensor:
    """com.microsoft QMoE with integer weights of 2, 4 or 8 bits: MoE on weights made real first."""
    bits = expert_weight_bits
    # ONNX Runtime takes the softmax over the chosen experts alone, unlike in MoE.
    normalized = 1 if router_weights is None else normalize_routing_weights
    third = None
    if fc3_weights is not None and fc3_scales is not None:
        third = expert_weights(
            fc3_weights, fc3_scales, fc3_zero_points, bits, block_size
        )
    return mixture_of_experts(
        x,
        router_probs,
        expert_weights(fc1_weights, fc1_scales, fc1_zero_points, bits, block_size).to(
            x.dtype
        ),
        fc1_bias,
        expert_weights(fc2_weights, fc2_scales, fc2_zero_points, bits, block_size).to(
            x.dtype
        ),
        fc2_bias,
        None if third is None else third.to(x.dtype),
        fc3_bias,
        k=k,
        activation_type=activation_type,
        normalize_routing_weights=normalized,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        swiglu_limit=swiglu_limit,
        swiglu_fusion=swiglu_fusion,
        router_weights=router_weights,
    )
