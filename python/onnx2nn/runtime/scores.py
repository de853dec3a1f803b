"""Scores and labels of ai.onnx.ml's models; where the specification is silent, as ONNX Runtime answers."""

import numpy as np
import torch
from torch import Tensor

from onnx2nn.runtime.text import string_pick


def pick_label(labels: Tensor | list[str], index: Tensor) -> Tensor | np.ndarray:
    """Class labels at `index`: integers stay a tensor, strings become a string tensor."""
    return string_pick(labels, index) if isinstance(labels, list) else labels[index]


def as_matrix(x: Tensor) -> Tensor:
    """A batch of rows; ai.onnx.ml reads a vector as a batch of one."""
    return x.reshape(1, -1) if x.dim() == 1 else x


def probit(x: Tensor) -> Tensor:
    """ai.onnx.ml's PROBIT by ONNX Runtime's closed form, which torch.erfinv is not."""
    y = 2 * x - 1
    log = torch.log((1 - y) * (1 + y))
    v = 2 / (3.14159 * 0.147) + 0.5 * log
    root = torch.sqrt(torch.sqrt(v * v - log / 0.147) - v)
    return 1.41421356 * torch.where(y < 0, -root, root)


def softmax_zero(x: Tensor) -> Tensor:
    """ai.onnx.ml's SOFTMAX_ZERO: a softmax over the non-zero scores; zeros stay zero."""
    top = x.amax(-1, keepdim=True)
    used = x.abs() > 1e-7
    e = torch.where(used, torch.exp(x - top), 0.0)
    return torch.where(used, e, x * torch.exp(-top)) / e.sum(-1, keepdim=True)


def post_transform_scores(x: Tensor, post_transform: str) -> Tensor:
    """ai.onnx.ml's post_transform on rows of scores [N, C]."""
    if post_transform == "SOFTMAX":
        return torch.softmax(x, -1)
    if post_transform == "LOGISTIC":
        return torch.sigmoid(x)
    if post_transform == "SOFTMAX_ZERO":
        return softmax_zero(x)
    return probit(x) if post_transform == "PROBIT" else x


def post_transform_targets(x: Tensor, post_transform: str) -> Tensor:
    """post_transform on regression targets: a single target knows only PROBIT."""
    return (
        x
        if x.shape[1] == 1 and post_transform != "PROBIT"
        else post_transform_scores(x, post_transform)
    )


def binary_scores(
    score: Tensor, *, binary: bool, all_positive: bool, post_transform: str
) -> Tensor:
    """Two columns from a binary classifier's one score [N, 1], as ONNX Runtime makes them."""
    if post_transform == "PROBIT":
        return torch.cat([probit(score), torch.zeros_like(score)], 1)
    if post_transform == "LOGISTIC":
        return torch.sigmoid(torch.cat([-score, score], 1))
    return torch.cat([1 - score if binary and all_positive else -score, score], 1)
