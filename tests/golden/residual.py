"""Residual, converted from residual.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ConvBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.conv2(x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.layer1 = nn.ModuleList([ConvBlock()])
        self.fc = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """
        image: f32[batch, 3, 32, 32]
        ->
        logits: f32[batch, 5]
        probabilities: f32[batch, 5]
        """
        x = F.max_pool2d(F.relu(self.stem(image)), 2)
        x = F.relu(self.layer1[0](x) + x)
        logits = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))  # (batch, 5)
        probabilities = F.softmax(logits, dim=1)
        return logits, probabilities


def load(
    weights: str | Path = Path(__file__).parent / "residual.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Residual:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Residual()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
