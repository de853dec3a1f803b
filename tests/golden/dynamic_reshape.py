"""DynamicReshape, converted from dynamic_reshape.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

from torch import Tensor, nn


class DynamicReshape(nn.Module):
    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x: f32[batch, time, 16] -> y: f32[batch, 8, 2*time]"""
        y = x.unflatten(-1, (4, 4)).transpose(1, 2)  # (batch, 4, time, 4)
        return y.reshape(x.shape[0], -1, x.shape[1] * 2)


def load(
    weights: str | Path = Path(__file__).parent / "dynamic_reshape.safetensors",
) -> DynamicReshape:
    """The model in eval mode, with its weights."""
    return DynamicReshape().eval()
