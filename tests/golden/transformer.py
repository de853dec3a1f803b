"""Transformer, converted from transformer.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(16, 16)
        self.key = nn.Linear(16, 16)
        self.value = nn.Linear(16, 16)
        self.output = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (4, 4)).transpose(1, 2)
        key = self.key(x).unflatten(-1, (4, 4)).transpose(1, 2)
        x = self.value(x).unflatten(-1, (4, 4)).transpose(1, 2)
        x = F.scaled_dot_product_attention(query, key, x)
        return self.output(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 64)
        self.down = nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(16)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(16)
        self.mlp = Mlp()

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        x = self.attention(self.norm1(hidden)) + hidden
        y = self.mlp(self.norm2(x))
        return x, y


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([TransformerBlock()])

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        residual_1, down = self.layer[0](hidden)
        return residual_1, down


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: f32[batch, seq, 16] -> output: f32[batch, seq, 16]"""
        residual_1, down = self.encoder(hidden)
        return down + residual_1


def load(
    weights: str | Path = Path(__file__).parent / "transformer.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Transformer:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Transformer()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
