"""SharedWeights, converted from shared_weights.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 6, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: i64[batch, seq] -> scores: f32[batch, seq, 11]"""
        x = F.relu(self.mix(self.embed(tokens)))
        return self.mix(x) @ self.embed.weight.transpose(0, 1)


def load(
    weights: str | Path = Path(__file__).parent / "shared_weights.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> SharedWeights:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = SharedWeights()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
