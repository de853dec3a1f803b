"""Normalisations and losses against ONNX's node cases and ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import norm

from . import vision_cases as vc


def call_batch_normalization(v: list[Any], a: dict[str, Any]) -> Any:
    a = dict(a)
    if a.pop("training_mode", 0):
        return norm.batch_normalization_training(*v, **a)[:3]
    a.pop("momentum", None)
    return norm.batch_normalization(*v, **a)


CALLS = {
    "LRN": lambda v, a: norm.lrn(*v, **a),
    "LpNormalization": lambda v, a: norm.lp_normalization(*v, **a),
    "GroupNormalization": lambda v, a: norm.group_normalization(*v, **a),
    "InstanceNormalization": lambda v, a: norm.instance_normalization(*v, **a),
    "BatchNormalization": call_batch_normalization,
    "MeanVarianceNormalization": lambda v, a: norm.mean_variance_normalization(*v, **a),
    "LayerNormalization": lambda v, a: norm.layer_normalization(*v, **a),
    "RMSNormalization": lambda v, a: norm.rms_normalization(*v, **a),
    "NegativeLogLikelihoodLoss": lambda v, a: norm.negative_log_likelihood_loss(*v, **a),
    "SoftmaxCrossEntropyLoss": lambda v, a: norm.softmax_cross_entropy_loss(*v, **a),
}


@pytest.mark.parametrize("case", [c for op in CALLS for c in vc.cases_of(op)], ids=lambda c: c.name)
def test_node(case: TestCase) -> None:
    vc.check(case, CALLS[case.model.graph.node[0].op_type])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_lrn_runtime(size: int) -> None:
    # ONNX Runtime refuses even sizes: those against the operator's definition.
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 4)).astype(np.float32)
    got = norm.lrn(torch.from_numpy(x), size, alpha=0.3, beta=0.6, bias=1.5).numpy()
    before = (size - 1) // 2
    sums = np.stack(
        [(x[:, max(0, c - before) : c + size // 2 + 1] ** 2).sum(1) for c in range(7)], 1
    )
    np.testing.assert_allclose(got, x / (1.5 + 0.3 / size * sums) ** 0.6, rtol=1e-5)


def test_group_normalization_per_group() -> None:
    x = torch.randn(2, 6, 5)
    scale, bias = torch.randn(3), torch.randn(3)
    want = torch.nn.functional.group_norm(
        x, 3, scale.repeat_interleave(2), bias.repeat_interleave(2)
    )
    torch.testing.assert_close(norm.group_normalization(x, scale, bias, 3), want)


def test_layer_normalization_statistics_runtime() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 4), (3, 4), (3, 4)))
    want = vc.runtime("LayerNormalization", [x, w, b], outputs=3, opset=17, axis=1)
    got = norm.layer_normalization(*[torch.from_numpy(v) for v in (x, w, b)], axis=1)
    for have, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(have.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_batch_normalization_per_place() -> None:
    x = torch.randn(8, 3, 4)
    scale, bias = torch.rand(3, 4), torch.rand(3, 4)
    y, mean, var, now_mean, now_var = norm.batch_normalization_training(
        x, scale, bias, torch.zeros(3, 4), torch.ones(3, 4), spatial=False
    )
    torch.testing.assert_close(now_var, x.var(0, correction=0))
    torch.testing.assert_close(mean, now_mean * 0.1)
    assert var.shape == (3, 4)
    again = norm.batch_normalization(x, scale, bias, now_mean, now_var)
    torch.testing.assert_close(y, again)
