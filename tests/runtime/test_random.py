"""Random helpers: distribution, dtype and seed."""

import pytest
import torch

from onnx2nn.runtime import random as rn


def test_normal() -> None:
    y = rn.random_normal([200, 200], mean=3.0, scale=2.0, seed=5.0)
    assert abs(float(y.mean()) - 3.0) < 0.05
    assert abs(float(y.std()) - 2.0) < 0.05
    assert torch.equal(y, rn.random_normal([200, 200], mean=3.0, scale=2.0, seed=5.0))
    assert not torch.equal(rn.random_normal([9]), rn.random_normal([9]))


def test_uniform() -> None:
    y = rn.random_uniform([200, 200], low=-1.0, high=5.0, dtype=torch.float64)
    assert y.dtype == torch.float64
    assert -1.0 <= float(y.min()) < -0.99
    assert 4.99 < float(y.max()) <= 5.0


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_like(dtype: torch.dtype | None) -> None:
    x = torch.zeros(0, 3, dtype=torch.float64)
    for y in (rn.random_normal_like(x, dtype=dtype), rn.random_uniform_like(x, dtype=dtype)):
        assert y.shape == x.shape
        assert y.dtype == (dtype or x.dtype)


def test_bernoulli() -> None:
    y = rn.bernoulli(torch.full([10000], 0.3), seed=1.0, dtype=torch.int32)
    assert y.dtype == torch.int32
    assert abs(float(y.float().mean()) - 0.3) < 0.03


def test_multinomial() -> None:
    chances = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    y = rn.multinomial(chances.log(), sample_size=20000, seed=2.0)
    assert y.dtype == torch.int32
    for row, wanted in zip(y, chances):
        counts = torch.bincount(row, minlength=3) / 20000
        torch.testing.assert_close(counts, wanted, atol=0.02, rtol=0.0)
