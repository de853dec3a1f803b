"""NameCollisions, converted from name_collisions.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Lambda(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class NameCollisions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("class", nn.Parameter(torch.empty(3)))
        self.add_module("lambda", Lambda())
        self.lambda_1 = nn.Parameter(torch.empty(3))
        self.weight_1 = nn.Parameter(torch.empty(3))
        self.weight = nn.Parameter(torch.empty(3))

    def forward(
        self, self_: Tensor, torch_: Tensor, F_: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        self_: f32[N, 3]
        torch_: f32[N, 3]
        F_: f32[N, 3]
        ->
        Relu: f32[N, 3]
        x: f32[N, 3]
        """
        x = getattr(self, "lambda")((self_ + torch_) * getattr(self, "class"))
        x = ((x - self.lambda_1) * self.weight_1 + self.weight) / F_
        relu = F.relu(x)
        return relu, x


def load(
    weights: str | Path = Path(__file__).parent / "name_collisions.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> NameCollisions:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = NameCollisions()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
