"""Pages in half precision: masks have the dtype that the weights are loaded in."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import onnx2nn
from exported_pairs import BOTH, drawn
from exported_pairs import export as export_one
from onnx2nn.api import convert
from pages import imported

HEADS, WIDTH, TOKENS = 2, 16, 6


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (
            f(y).view(*y.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.out(y.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """What exporters write of Hugging Face's encoders: a mask of zeros and the lowest numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(20, WIDTH)
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embeddings(ids)
        mask = torch.where((ids > 4)[:, None, None], 0.0, torch.finfo(torch.float32).min)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Rotary(nn.Module):
    """What exporters write of decoders: angles of positions, by a product or by one of matrices."""

    def __init__(self, matrices: bool, first: int = 0) -> None:
        super().__init__()
        self.matrices, self.first = matrices, first
        self.embeddings = nn.Embedding(20, WIDTH)
        self.register_buffer("frequencies", 100 ** -torch.arange(0, 1, 2 / WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embeddings(ids)
        positions = (ids > 1).long().cumsum(1) + self.first
        if self.matrices:
            column = self.frequencies[None, :, None]
            angles = (column @ positions[:, None].float()).transpose(1, 2)
        else:
            angles = positions[:, :, None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        y = self.norm(x)
        half = torch.cat([-y[..., WIDTH // 2 :], y[..., : WIDTH // 2]], dim=-1)
        return self.out(y * angles.cos() + half * angles.sin())


class Steps(nn.Module):
    """A diffusion network's: waves of a step go into a linear layer, and a mask of 0 and 1 is a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(20, WIDTH)
        self.register_buffer("frequencies", 100 ** -torch.arange(0, 1, 2 / WIDTH))
        self.steps = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embeddings(ids) * (ids > 4).float().unsqueeze(2)
        angles = ids[:, :1].float() * self.frequencies
        return x + self.steps(torch.cat([angles.sin(), angles.cos()], dim=1)).unsqueeze(1)


NETS = {
    "encoder": Encoder,
    "rotary": lambda: Rotary(False),
    "rotary-matrices": lambda: Rotary(True),
    "steps": Steps,
}


@pytest.fixture
def ids() -> Tensor:
    """The second row has nothing but padding, as rows of a left-padded decoder have."""
    rows = torch.arange(5, 5 + TOKENS)[None].repeat(2, 1)
    rows[0, -2:] = 1
    rows[1] = 2
    return rows


class Attention(TorchDispatchMode):
    """Notes the dtypes of all that attention is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if "scaled_dot_product" in str(func):
            tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
            assert len(tensors) == 4  # query, key, value and mask
            self.dtypes |= {t.dtype for t in tensors}
        return func(*args, **kwargs)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_masks_have_the_dtype_of_the_weights(
    tmp_path: Path, ids: Tensor, dynamo: bool, dtype: torch.dtype
) -> None:
    path = export_one(drawn(Encoder()), ids, tmp_path / "m.onnx", dynamo)
    with torch.no_grad(), Attention() as seen:
        onnx2nn.load(path, dtype=dtype)(ids)
    assert seen.dtypes == {dtype}


@BOTH
@pytest.mark.parametrize("name", NETS)
def test_half_precision(tmp_path: Path, ids: Tensor, dynamo: bool, name: str) -> None:
    net = drawn(NETS[name]())
    path = export_one(net, ids, tmp_path / "m.onnx", dynamo)
    convert(path, tmp_path / "m.pt")
    script = torch.jit.load(tmp_path / "m.pt")
    with torch.no_grad():
        right = net(ids)
        torch.testing.assert_close(onnx2nn.load(path)(ids), right, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(script(ids), right, rtol=1e-5, atol=1e-5)
        for half in (onnx2nn.load(path, dtype=torch.float16), script.half()):
            answer = half(ids)
            assert answer.dtype == torch.float16
            torch.testing.assert_close(answer.float(), right, rtol=0.05, atol=0.05)


@BOTH
@pytest.mark.parametrize("matrices", [False, True])
def test_far_positions(tmp_path: Path, ids: Tensor, dynamo: bool, matrices: bool) -> None:
    """In bfloat16 the frequency 0.56 is off by a thousandth: at position 5,000 by five radians."""
    net = drawn(Rotary(matrices, 5000))
    net.frequencies.copy_(100 ** -torch.arange(0, 1, 2 / WIDTH))
    path = export_one(net, ids, tmp_path / "m.onnx", dynamo)
    convert(path, tmp_path / "m.py")
    with torch.no_grad():
        for half in (
            onnx2nn.load(path, dtype=torch.bfloat16),
            imported(tmp_path / "m.py").load(dtype=torch.bfloat16),
        ):
            answer = half(ids)
            assert answer.dtype == torch.bfloat16
            torch.testing.assert_close(answer.float(), net(ids), rtol=0.05, atol=0.05)


def test_masks_of_torchscript(tmp_path: Path, ids: Tensor) -> None:
    convert(export_one(drawn(Encoder()), ids, tmp_path / "m.onnx", True), tmp_path / "m.pt")
    with torch.no_grad(), Attention() as seen:
        torch.jit.load(tmp_path / "m.pt").half()(ids)
    assert seen.dtypes == {torch.float16}


@BOTH
def test_a_page_says_it_once(tmp_path: Path, ids: Tensor, dynamo: bool) -> None:
    path = export_one(drawn(Encoder()), ids, tmp_path / "m.onnx", dynamo)
    convert(path, tmp_path / "m.py")
    text = (tmp_path / "m.py").read_text()
    assert (
        len(
            re.findall(r"torch\.where\(mask, 0\.0, torch\.finfo\((\w+)\.dtype\)\.min\)\.to\(", text)
        )
        == 1
    )
    assert "torch.float32" not in text
