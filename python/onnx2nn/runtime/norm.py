"""Normalisations with ONNX's shapes, precisions and further outputs, and the losses."""

import torch
import torch.nn.functional as F
from torch import Tensor


def lrn(
    x: Tensor,
    size: int,
    *,
    alpha: float = 0.0001,
    beta: float = 0.75,
    bias: float = 1.0,
) -> Tensor:
    """ONNX LRN: where size is even, F.local_response_norm looks one channel further back."""
    channels = x.shape[1]
    squares = x.square().reshape(x.shape[0], 1, channels, -1)
    squares = F.pad(squares, [0, 0, (size - 1) // 2, size // 2])
    mean = F.avg_pool2d(squares, (size, 1), stride=1).reshape(x.shape)
    return x / (bias + alpha * mean).pow(beta)


def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """ONNX LpNormalization: zero where the norm is zero; F.normalize has a least norm instead."""
    norm = torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def wide_float(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which statistics are taken: at least float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, num_groups: int, *, epsilon: float = 1e-5
) -> Tensor:
    """ONNX GroupNormalization: scale and bias per group (opset 18) or per channel (21 on)."""
    channels = x.shape[1]
    if scale.shape[0] != channels:
        scale = scale.repeat_interleave(channels // num_groups)
        bias = bias.repeat_interleave(channels // num_groups)
    wide = x.to(wide_float(x.dtype)).reshape(x.shape[0], num_groups, -1)
    y = F.layer_norm(wide, [wide.shape[2]], eps=epsilon).reshape(x.shape).to(x.dtype)
    shape = [-1] + [1] * (x.dim() - 2)
    return y * scale.reshape(shape) + bias.reshape(shape)


def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    """ONNX InstanceNormalization: F.instance_norm refuses a single value per channel."""
    wide = x.to(wide_float(x.dtype)).reshape(x.shape[0], x.shape[1], -1)
    y = F.layer_norm(wide, [wide.shape[2]], eps=epsilon).reshape(x.shape)
    shape = [-1] + [1] * (x.dim() - 2)
    return (y * scale.reshape(shape) + bias.reshape(shape)).to(x.dtype)


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
) -> Tensor:
    """ONNX BatchNormalization with mixed dtypes, or statistics per place (spatial=0)."""
    shape = [*mean.shape] + [1] * (x.dim() - 1 - mean.dim())
    wide = torch.promote_types(x.dtype, mean.dtype)
    factor = scale.to(wide) / (var.to(wide) + epsilon).sqrt()
    y = (x.to(wide) - mean.to(wide).reshape(shape)) * factor.reshape(shape)
    return (y + bias.to(wide).reshape(shape)).to(x.dtype)


def batch_normalization_training(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """ONNX BatchNormalization in training: Y, running and this batch's mean and variance.

    Opsets 14 and later have the first three; F.batch_norm's running variance is the unbiased one.
    """
    over = [0, *range(2, x.dim())] if spatial else [0]
    wide = x.to(torch.promote_types(wide_float(x.dtype), mean.dtype))
    batch_var, batch_mean = torch.var_mean(wide, over, correction=0)
    y = batch_normalization(x, scale, bias, batch_mean, batch_var, epsilon=epsilon)
    new_mean = mean * momentum + batch_mean.to(mean.dtype) * (1 - momentum)
    new_var = var * momentum + batch_var.to(var.dtype) * (1 - momentum)
    return y, new_mean, new_var, batch_mean.to(mean.dtype), batch_var.to(var.dtype)


def mean_variance_normalization(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """ONNX MeanVarianceNormalization: epsilon is added to the deviation, over any axes."""
    over = [0, 2, 3] if axes is None else axes
    wide = x.to(wide_float(x.dtype))
    var, mean = torch.var_mean(wide, over, correction=0, keepdim=True)
    return ((wide - mean) / (var.sqrt() + 1e-9)).to(x.dtype)


def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    """ONNX LayerNormalization with Mean and InvStdDev: F.layer_norm gives Y only."""
    over = list(range(axis % x.dim(), x.dim()))
    wide = x.to(torch.promote_types(x.dtype, stash_type))
    var, mean = torch.var_mean(wide, over, correction=0, keepdim=True)
    inverse = (var + epsilon).rsqrt()
    y = ((wide - mean) * inverse).to(x.dtype) * scale
    y = y if bias is None else y + bias
    return y.to(x.dtype), mean.to(stash_type), inverse.to(stash_type)


def rms_normalization(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: torch.dtype = torch.float32,
) -> Tensor:
    """ONNX RMSNormalization: F.rms_norm broadcasts no scale and has no precision of its own."""
    over = list(range(axis % x.dim(), x.dim()))
    wide = x.to(torch.promote_types(x.dtype, stash_type))
    inverse = (wide.square().mean(over, keepdim=True) + epsilon).rsqrt()
    return (wide * inverse).to(scale.dtype) * scale


def negative_log_likelihood_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """ONNX NegativeLogLikelihoodLoss: F.nll_loss ignores class -100 and takes int64 only."""
    ignored = -(2**31) if ignore_index is None else ignore_index
    return F.nll_loss(
        x, target.to(torch.int64), weight, ignore_index=ignored, reduction=reduction
    )


def softmax_cross_entropy_loss(
    scores: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """ONNX SoftmaxCrossEntropyLoss and its log_prob, which F.cross_entropy does not give."""
    log_prob = F.log_softmax(scores, 1)
    loss = negative_log_likelihood_loss(
        log_prob, labels, weights, ignore_index=ignore_index, reduction=reduction
    )
    return loss, log_prob


def gated_rms_norm(
    x: Tensor,
    scale: Tensor,
    gate: Tensor,
    *,
    activation: str = "silu",
    epsilon: float = 1e-5,
) -> Tensor:
    """com.microsoft GatedRMSNorm: each group of scale's length normalised, all in float32."""
    rows = x.float().reshape(*x.shape[:-1], -1, scale.shape[0])
    y = F.rms_norm(rows, [scale.shape[0]], scale.float(), epsilon).reshape(x.shape)
    g = gate.float()
    return (y * (torch.sigmoid(g) if activation == "sigmoid" else F.silu(g))).to(
        x.dtype
    )
