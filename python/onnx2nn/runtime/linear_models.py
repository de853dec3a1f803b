"""Linear models and support vector machines of ai.onnx.ml."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnx2nn.runtime.scores import (
    as_matrix,
    binary_scores,
    pick_label,
    post_transform_scores,
    post_transform_targets,
)
from onnx2nn.runtime.text import string_pick


def linear_regressor(
    x: Tensor,
    coefficients: Tensor,
    intercepts: Tensor | None = None,
    *,
    targets: int = 1,
    post_transform: str = "NONE",
) -> Tensor:
    """ai.onnx.ml LinearRegressor: float32 [N, targets]; F.linear with a post_transform."""
    y = as_matrix(x).float() @ coefficients.reshape(targets, -1).T
    if intercepts is not None and intercepts.shape[0] == targets:
        y = y + intercepts
    return post_transform_targets(y, post_transform)


def linear_scores(x: Tensor, coefficients: Tensor, intercepts: Tensor | None) -> Tensor:
    """Scores [N, C]; there are as many classes as intercepts, whatever follows in coefficients."""
    weight = coefficients.reshape(-1, x.shape[1])
    if intercepts is None:
        return x @ weight.T
    return x @ weight[: len(intercepts)].T + intercepts


def linear_classifier(
    x: Tensor,
    coefficients: Tensor,
    intercepts: Tensor | None,
    labels: Tensor | list[str],
    *,
    post_transform: str = "NONE",
) -> tuple[Tensor | np.ndarray, Tensor]:
    """ai.onnx.ml LinearClassifier: labels [N] and scores [N, C] in float32."""
    scores = linear_scores(as_matrix(x).float(), coefficients, intercepts)
    if scores.shape[1] > 1:
        label = pick_label(labels, scores.argmax(1))
        return label, post_transform_scores(scores, post_transform)
    positive = (scores[:, 0] > 0).long()
    if len(labels) == 2:
        both = binary_scores(
            scores, binary=True, all_positive=True, post_transform=post_transform
        )
        return pick_label(labels, positive), both
    # ONNX Runtime then answers 0 and 1, whatever the label is called.
    targets = post_transform_targets(scores, post_transform)
    if isinstance(labels, list):
        return string_pick(["0", "1"], positive), targets
    return positive, targets


def svm_kernel(
    x: Tensor,
    vectors: Tensor,
    kernel_type: str = "LINEAR",
    kernel_params: list[float] | None = None,
) -> Tensor:
    """The kernel of each row of x [N, F] with each vector [V, F]: [N, V]."""
    gamma, coef0, degree = kernel_params or [0.0, 0.0, 0.0]
    if kernel_type == "RBF":
        # Written out: |x|^2 - 2xv + |v|^2 loses the digits that the exponential needs.
        return torch.exp(-gamma * (x.unsqueeze(1) - vectors).square().sum(-1))
    dot = x @ vectors.T
    if kernel_type == "POLY":
        return (gamma * dot + coef0) ** degree
    return torch.tanh(gamma * dot + coef0) if kernel_type == "SIGMOID" else dot


def svm_regressor(
    x: Tensor,
    coefficients: Tensor,
    rho: Tensor,
    support_vectors: Tensor | None = None,
    *,
    n_supports: int = 0,
    kernel_type: str = "LINEAR",
    kernel_params: list[float] | None = None,
    one_class: int = 0,
) -> Tensor:
    """ai.onnx.ml SVMRegressor: float32 [N, 1]; ONNX Runtime ignores its post_transform."""
    x = as_matrix(x).float()
    if support_vectors is not None and n_supports > 0:
        x = svm_kernel(
            x, support_vectors.reshape(n_supports, -1), kernel_type, kernel_params or []
        )
    y = x @ coefficients.reshape(-1, 1) + rho[0]
    return torch.where(y > 0, 1.0, -1.0) if one_class else y


def improved_pairs(p: Tensor, q: Tensor, qp: Tensor, pqp: Tensor) -> Tensor:
    """One round of Wu, Lin and Weng's iteration, class by class."""
    for t in range(p.shape[1]):
        diagonal, qpt = q[:, t, t].unsqueeze(1), qp[:, t].unsqueeze(1)
        diff = (pqp - qpt) / diagonal
        raised = torch.cat([p[:, :t], p[:, t : t + 1] + diff, p[:, t + 1 :]], 1)
        p = raised / (1 + diff)
        pqp = (pqp + diff * (diff * diagonal + 2 * qpt)) / (1 + diff) ** 2
        qp = (qp + diff * q[:, t]) / (1 + diff)
    return p


def pairwise_probabilities(r: Tensor) -> Tensor:
    """Class probabilities [N, C] from pairwise ones [N, C, C] by Wu, Lin and Weng's iteration.

    It stops where ONNX Runtime stops, long before it has converged, so no closed form will do.
    """
    rows, n, _ = r.shape
    p = r.new_full((rows, n), 1 / n)
    off = 1 - torch.eye(n, device=r.device, dtype=r.dtype)
    q = torch.diag_embed((r.square() * off).sum(1)) - r.transpose(1, 2) * r * off
    running = torch.ones(rows, 1, dtype=torch.bool, device=r.device)
    for _ in range(100):
        qp = (q @ p.unsqueeze(2)).squeeze(2)
        pqp = (p * qp).sum(1, keepdim=True)
        running = running & ((qp - pqp).abs().amax(1, keepdim=True) >= 0.005 / n)
        if not bool(running.any()):
            break
        p = torch.where(running, improved_pairs(p, q, qp, pqp), p)
    return p


def pair_numbers(n: int) -> tuple[list[int], list[int]]:
    """The first and the second of each pair of n classes."""
    first = [i for i in range(n) for _ in range(i + 1, n)]
    return first, [j for i in range(n) for j in range(i + 1, n)]


def svm_pair_scores(
    kernel: Tensor, coefficients: Tensor, rho: Tensor, vectors_per_class: list[int]
) -> Tensor:
    """One-against-one scores [N, pairs] from the kernel [N, vectors]."""
    first, second = pair_numbers(len(vectors_per_class))
    rows = coefficients.reshape(-1, kernel.shape[1]).T
    pieces = zip(
        torch.split(kernel, vectors_per_class, 1),
        torch.split(rows, vectors_per_class),
        strict=True,
    )
    # parts[:, c, r]: row r of the coefficients on the vectors of class c alone
    parts = torch.stack([k @ w for k, w in pieces], 1)
    left = parts[:, first, [j - 1 for j in second]]
    return left + parts[:, second, first] + rho[: len(first)]


def pair_votes(scores: Tensor, n: int) -> Tensor:
    """How many pairs each of n classes wins, [N, n]."""
    first, second = (torch.tensor(c, device=scores.device) for c in pair_numbers(n))
    winner = torch.where(scores > 0, first, second)
    votes = scores.new_zeros(scores.shape[0], n)
    return votes.scatter_add(1, winner, torch.ones_like(scores))


def svm_probabilities(scores: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    """Class probabilities [N, n] from one-against-one scores, by Platt's sigmoid of each pair."""
    first, second = pair_numbers(n)
    chance = torch.sigmoid(-(scores * a[: len(first)] + b[: len(first)]))
    chance = chance.clamp(1e-7, 1 - 1e-7)
    r = scores.new_zeros(scores.shape[0], n, n)
    r[:, first, second] = chance
    r[:, second, first] = 1 - chance
    return pairwise_probabilities(r)


def svm_without_vectors(
    x: Tensor,
    coefficients: Tensor,
    rho: Tensor,
    labels: Tensor | list[str],
    post_transform: str,
    all_positive: bool,
) -> tuple[Tensor | np.ndarray, Tensor]:
    """SVMClassifier whose classes have a row of coefficients each."""
    n = len(labels)
    scores = x @ coefficients.reshape(n, -1).T + rho[0]
    best = scores.argmax(1)
    if n == 2:
        top = scores.amax(1)
        best = torch.where(top >= 0.5 if all_positive else top > 0, 1, best)
    return pick_label(labels, best), post_transform_scores(scores, post_transform)


def svm_classifier(
    x: Tensor,
    coefficients: Tensor,
    rho: Tensor,
    labels: Tensor | list[str],
    support_vectors: Tensor | None = None,
    prob_a: Tensor | None = None,
    prob_b: Tensor | None = None,
    *,
    vectors_per_class: list[int] | None = None,
    post_transform: str = "NONE",
    all_positive: bool = False,
    **kernel: Any,
) -> tuple[Tensor | np.ndarray, Tensor]:
    """ai.onnx.ml SVMClassifier: labels by one-against-one votes, and scores in float32."""
    x, model = as_matrix(x).float(), (coefficients, rho)
    if not vectors_per_class or support_vectors is None:
        return svm_without_vectors(x, *model, labels, post_transform, all_positive)
    vectors = support_vectors.reshape(sum(vectors_per_class), -1)
    scores = svm_pair_scores(
        svm_kernel(x, vectors, **kernel), *model, vectors_per_class
    )
    n = len(labels)
    label = pick_label(labels, pair_votes(scores, n).argmax(1))
    return label, svm_class_scores(scores, prob_a, prob_b, n, post_transform)


def svm_class_scores(
    scores: Tensor, a: Tensor | None, b: Tensor | None, n: int, post_transform: str
) -> Tensor:
    """What SVMClassifier gives beside the label: probabilities, or the scores of pairs."""
    if a is not None and b is not None and a.shape[0]:
        chances = svm_probabilities(scores, a, b, n)
        return post_transform_scores(chances, post_transform)
    if n > 2:
        return post_transform_scores(scores, post_transform)
    positive = post_transform != "NONE"
    return binary_scores(
        scores, binary=True, all_positive=positive, post_transform=post_transform
    )
