"""Residual, converted from residual.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1, bias=False)
        self.stem.bn = nn.BatchNorm2d(8)
        self.layer1 = nn.ModuleDict()
        self.layer1["0"] = nn.Module()
        self.layer1["0"].conv1 = nn.Conv2d(8, 8, kernel_size=3, padding=1, bias=False)
        self.layer1["0"].bn1 = nn.BatchNorm2d(8)
        self.layer1["0"].conv2 = nn.Conv2d(8, 8, kernel_size=3, padding=1, bias=False)
        self.fc = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """
        image: f32[batch, 3, 32, 32]
        ->
        logits: f32[batch, 5]
        probabilities: f32[batch, 5]
        """
        x = self.stem.conv(image)
        pool = F.max_pool2d(F.relu(self.stem.bn(x)), 2)
        x = self.layer1["0"].conv1(pool)
        x = F.relu(self.layer1["0"].bn1(x))
        x = F.relu(self.layer1["0"].conv2(x) + pool)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        x = self.fc(x)
        probabilities = F.softmax(x, dim=1)
        return x, probabilities


def load(
    weights: str | Path = Path(__file__).parent / "residual.safetensors",
) -> Residual:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Residual()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()
