"""Mlp, converted from mlp.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
        )

    def forward(self, input: Tensor) -> Tensor:
        """input: f32[batch, 8] -> logits: f32[batch, 4]"""
        return self.net(input)


def load(
    weights: str | Path = Path(__file__).parent / "mlp.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Mlp:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Mlp()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
