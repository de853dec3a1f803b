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
    net = drawn(Encoder())
    path = export_one(net, ids, tmp_path / "m.onnx", dynamo)
    with torch.no_grad(), Attention() as seen:
        answer = onnx2nn.load(path, dtype=dtype)(ids)
    assert seen.dtypes == {dtype}
    assert answer.dtype == dtype
    with torch.no_grad():
        torch.testing.assert_close(answer.float(), net(ids), rtol=0.05, atol=0.1)


def test_torchscript_in_half_precision(tmp_path: Path, ids: Tensor) -> None:
    net = drawn(Encoder())
    convert(export_one(net, ids, tmp_path / "m.onnx", True), tmp_path / "m.pt")
    script = torch.jit.load(tmp_path / "m.pt")
    with torch.no_grad():
        torch.testing.assert_close(script(ids), net(ids), rtol=1e-5, atol=1e-5)
        with Attention() as seen:
            answer = script.half()(ids)
        assert seen.dtypes == {torch.float16}
        torch.testing.assert_close(answer.float(), net(ids), rtol=0.05, atol=0.1)


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
