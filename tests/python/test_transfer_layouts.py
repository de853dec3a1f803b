"""Weights for modules that lay out the same computation otherwise: projections, attention, windows, layouts."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onnx2nn
from exported_pairs import BOTH, drawn, export, same
from onnx2nn.transfer.graph import graph_of
from onnx2nn.transfer.weights import transfer

TOKENS = torch.tensor([[1, 7, 3, 10, 0, 4], [2, 2, 9, 8, 7, 6]])
PICTURE = torch.rand(2, 3, 8, 8)


class Joined(nn.Module):
    """Attention with one projection, in explicit steps: scores, softmax, product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, width))


class Packed(nn.Module):
    """The same by torch's own module, sequences first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        return self.attention(y, y, y, need_weights=False)[0].transpose(0, 1)


class Separate(nn.Module):
    """The same with three projections whose weights are the other way round, as GPT-2 has them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name in ("value", "query", "key", "out"):
            setattr(self, name, nn.Parameter(torch.zeros(width, width)))
            setattr(self, f"{name}_bias", nn.Parameter(torch.zeros(width)))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        flat = x.reshape(-1, width)
        q, k, v = (
            torch.addmm(getattr(self, f"{p}_bias"), flat, getattr(self, p))
            .view(n, length, self.heads, -1)
            .transpose(1, 2)
            for p in ("query", "key", "value")
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).reshape(n, length, width) @ self.out + self.out_bias


class Encoder(nn.Module):
    """Tokens with positions, of which the table has more than are used, and blocks of any attention."""

    def __init__(
        self, attention: Any, names: str = "norm1 norm2 up down", positions: int = 6
    ) -> None:
        super().__init__()
        self.names = names.split()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(positions, 8)
        self.blocks = nn.ModuleList(attention(8, 2) for _ in range(2))
        parts = [nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)]
        for name, part in sorted(zip(self.names, parts, strict=True)):
            setattr(self, name, part)

    def forward(self, i: Tensor) -> Tensor:
        norm1, norm2, up, down = (getattr(self, n) for n in self.names)
        x = self.tokens(i) + self.positions(torch.arange(i.shape[1]))
        for attend in self.blocks:
            x = x + attend(norm1(x))
            x = x + down(F.gelu(up(norm2(x))))
        return x[:, 0]


@BOTH
@pytest.mark.parametrize("theirs", [Joined, Packed, Separate])
@pytest.mark.parametrize("ours", [Joined, Packed, Separate])
def test_projections_in_any_layout(ours: Any, theirs: Any, dynamo: bool, tmp_path: Path) -> None:
    right = drawn(Encoder(theirs))
    path = export(right, TOKENS, tmp_path / "m.onnx", dynamo)
    module = Encoder(ours, "z y x w")
    found = transfer(module, path)
    assert found.how == "structure"
    assert found.report.ok
    same(module, found.state, right, TOKENS)


def test_rows_of_a_table_that_are_not_read_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = drawn(Encoder(Packed))
    path = export(right, TOKENS, tmp_path / "m.onnx", False)
    module = Encoder(Joined, positions=9)
    with caplog.at_level(logging.WARNING, "onnx2nn"):
        state = onnx2nn.weights_for(module, path)
    same(module, state, right, TOKENS)
    assert torch.equal(state["positions.weight"][:6], right.positions.weight)
    assert torch.equal(state["positions.weight"][6:], module.positions.weight[6:])
    assert "some values of positions.weight: left as the module has them" in caplog.text


class Windows(nn.Module):
    """Attention in shifted windows with a bias, then every two by two places into one."""

    def __init__(self, rolled: bool) -> None:
        super().__init__()
        self.rolled = rolled
        self.embed = nn.Conv2d(3, 8, 2, stride=2)
        self.attention, self.bias = Joined(8, 2), nn.Parameter(torch.zeros(2, 4, 4))
        self.norm, self.reduce = nn.LayerNorm(32), nn.Linear(32, 5, bias=False)
        hidden = torch.zeros(4, 1, 4, 4)
        hidden[1, :, :2, 2:] = -100.0
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        n = x.shape[0]
        if self.rolled:
            y = torch.roll(x, (-1, -1), (1, 2))
            bias = self.bias + self.hidden
        else:
            y = torch.cat([x[:, 1:], x[:, :1]], 1)
            y = torch.cat([y[:, :, 1:], y[:, :, :1]], 2)
            bias = self.bias.expand(4, 2, 4, 4)
        windows = y.reshape(n, 2, 2, 2, 2, 8).transpose(2, 3).reshape(-1, 4, 8)
        bias = bias.repeat(n, 1, 1, 1)
        bias = bias if self.rolled else bias + self.hidden.repeat(n, 1, 1, 1)
        y = self.attention(windows, bias)
        y = y.reshape(n, 2, 2, 2, 2, 8).transpose(2, 3).reshape(n, 4, 4, 8)
        x = x + torch.roll(y, (1, 1), (1, 2))
        if self.rolled:
            x = x.reshape(n, 2, 2, 2, 2, 8).permute(0, 1, 3, 4, 2, 5).flatten(3)
        else:
            x = F.pad(x, (0, 0, 0, 0, 0, 0))
            parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
            x = torch.cat(parts, -1)
        return self.reduce(self.norm(x))


@pytest.mark.parametrize("rolled", [False, True])
def test_windows_by_slices_and_by_reshapes(rolled: bool, tmp_path: Path) -> None:
    right = drawn(Windows(rolled))
    path = export(right, PICTURE, tmp_path / "m.onnx", False)
    module = Windows(not rolled)
    module.load_state_dict(onnx2nn.weights_for(module, path))
    same(module, module.state_dict(), right, PICTURE)


class Channels(nn.Module):
    """A block of ConvNeXt, its layers linear and channels last, or of 1 x 1 and channels first."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.depth = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        layers = (
            (nn.Linear(3, 12), nn.Linear(12, 3))
            if last
            else (nn.Conv2d(3, 12, 1), nn.Conv2d(12, 3, 1))
        )
        self.inner, self.outer = layers
        self.scale = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(x)
        if self.last:
            y = self.outer(F.gelu(self.inner(y.permute(0, 2, 3, 1)))) * self.scale
            y = y.permute(0, 3, 1, 2)
        else:
            y = self.outer(F.gelu(self.inner(y))) * self.scale.reshape(-1, 1, 1)
        return (x + y).mean((2, 3))


@BOTH
@pytest.mark.parametrize("last", [False, True])
def test_channels_first_and_last(last: bool, dynamo: bool, tmp_path: Path) -> None:
    right = drawn(Channels(last))
    path = export(right, PICTURE, tmp_path / "m.onnx", dynamo)
    module = Channels(not last)
    state = transfer(module, path).state
    same(module, state, right, PICTURE)
    assert torch.equal(state["inner.weight"].flatten(), right.inner.weight.flatten())


def test_attention_is_one_operator_in_each_form() -> None:
    for attention in (Joined, Packed, Separate):
        (y,) = graph_of(drawn(attention(8, 2)), [torch.rand(2, 5, 8)])
        core = y.values[0].added()[0].values[0]
        assert core.op == "mm"
        (inner,) = core.args[0].values
        assert inner.op == "attention"
        products = [a.values[0].added()[0].values[0] for a in inner.args]
        assert [(p.op, p.size) for p in products] == [("mm", 80)] * 3
