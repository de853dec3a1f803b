"""Resnet50, converted from resnet50.onnx by onnx2nn.

opset 18, produced by pytorch 2.13.0+cpu
batch norms folded by the exporter: bn*, layer*.*.bn*, layer*.*.downsample.*
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        stride: int = 1,
        downsample: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, mid_channels, kernel_size=1)
        self.conv2 = nn.Conv2d(
            mid_channels, mid_channels, kernel_size=3, stride=stride, padding=1
        )
        self.conv3 = nn.Conv2d(mid_channels, 4 * mid_channels, kernel_size=1)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, 4 * mid_channels, kernel_size=1, stride=stride)
            )
            if downsample
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        y = self.conv3(F.relu(y))
        x = x if self.downsample is None else self.downsample(x)
        return F.relu(y + x)


class Resnet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3)
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, downsample=True),
            Bottleneck(256, 64),
            Bottleneck(256, 64),
        )
        self.layer2 = nn.Sequential(
            Bottleneck(256, 128, stride=2, downsample=True),
            *[Bottleneck(512, 128) for _ in range(3)],
        )
        self.layer3 = nn.Sequential(
            Bottleneck(512, 256, stride=2, downsample=True),
            *[Bottleneck(1024, 256) for _ in range(5)],
        )
        self.layer4 = nn.Sequential(
            Bottleneck(1024, 512, stride=2, downsample=True),
            Bottleneck(2048, 512),
            Bottleneck(2048, 512),
        )
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """x: f32[batch, 3, 224, 224] -> linear: f32[batch, 1000]"""
        x = F.relu(self.conv1(x))
        x = self.layer1(F.max_pool2d(x, 3, stride=2, padding=1))
        x = self.layer4(self.layer3(self.layer2(x)))
        return self.fc(x.mean(dim=(2, 3), keepdim=True).flatten(1))


def load(
    weights: str | Path = Path(__file__).parent / "resnet50.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Resnet50:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Resnet50()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
