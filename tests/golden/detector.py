"""Detector, converted from detector.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, 6, kernel_size=1)
        self.grid = nn.Buffer(torch.empty(1, 16, 2), persistent=False)

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        """
        small: f32[batch, 4, 2, 2]
        large: f32[batch, 4, 4, 4]
        ->
        boxes: f32[batch, 16, 6]
        """
        x = F.interpolate(small, scale_factor=2.0, mode="nearest")  # (batch, 4, 4, 4)
        x = self.head(torch.cat([x, large], dim=1)).flatten(2)  # (batch, 6, 16)
        x1, x2, x3 = torch.sigmoid(x.transpose(1, 2)).split(2, dim=2)
        x = x1 + self.grid
        return torch.cat([x, x2, x3], dim=2)


def load(
    weights: str | Path = Path(__file__).parent / "detector.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Detector:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Detector()
    state = load_file(weights)
    for key in state.keys() - model.state_dict().keys():
        owner, _, name = key.rpartition(".")
        setattr(model.get_submodule(owner), name, state.pop(key))
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
