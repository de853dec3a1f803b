"""ControlFlow, converted from control_flow.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
from torch import Tensor, nn


class ControlFlow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(4))
        self.linear_1 = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: f32[n, 4] -> final: f32[n, 4], peaks: f32[3]"""
        if x.sum() > 0.0:
            y = x * self.gain
        else:
            y = -x
        peaks_list = []
        state = y
        for _ in range(3):
            state = torch.tanh(self.linear_1(state))
            x = state.amax()
            peaks_list.append(x)
        peaks = torch.stack(peaks_list)  # (3,)
        return state, peaks


def load(
    weights: str | Path = Path(__file__).parent / "control_flow.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> ControlFlow:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = ControlFlow()
    state = load_file(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
