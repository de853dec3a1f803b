"""Transformer, converted from transformer.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleDict()
        self.encoder.layer["0"] = nn.Module()
        self.encoder.layer["0"].norm1 = nn.LayerNorm(16)
        self.encoder.layer["0"].attention = nn.Module()
        self.encoder.layer["0"].attention.query = nn.Linear(16, 16)
        self.encoder.layer["0"].attention.key = nn.Linear(16, 16)
        self.encoder.layer["0"].attention.value = nn.Linear(16, 16)
        self.encoder.layer["0"].attention.output = nn.Linear(16, 16)
        self.encoder.layer["0"].norm2 = nn.LayerNorm(16)
        self.encoder.layer["0"].mlp = nn.Module()
        self.encoder.layer["0"].mlp.up = nn.Linear(16, 64)
        self.encoder.layer["0"].mlp.down = nn.Linear(64, 16)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: f32[batch, seq, 16] -> output: f32[batch, seq, 16]"""
        norm1 = self.encoder.layer["0"].norm1(hidden)
        x = self.encoder.layer["0"].attention.query(norm1).unflatten(-1, (4, 4))
        q_heads = x.transpose(1, 2)
        x = self.encoder.layer["0"].attention.key(norm1).unflatten(-1, (4, 4))
        keys = x.transpose(1, 2)
        x = self.encoder.layer["0"].attention.value(norm1).unflatten(-1, (4, 4))
        x = x.transpose(1, 2)
        x = F.scaled_dot_product_attention(q_heads, keys, x).transpose(1, 2)
        x = x.flatten(2)
        residual_1 = self.encoder.layer["0"].attention.output(x) + hidden
        x = self.encoder.layer["0"].norm2(residual_1)
        x = F.gelu(self.encoder.layer["0"].mlp.up(x))
        return self.encoder.layer["0"].mlp.down(x) + residual_1


def load(
    weights: str | Path = Path(__file__).parent / "transformer.safetensors",
) -> Transformer:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Transformer()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()
