"""SeveralOutputs, converted from several_outputs.onnx by onnx2nn.

opset 17, produced by golden
"""

from pathlib import Path

import torch
from torch import Tensor, nn


def movable(x: Tensor) -> Tensor:
    """Views dtypes that torch cannot gather or scatter (uint16/32/64, float8) as plain integers."""
    if x.dtype == torch.uint16:
        return x.view(torch.int16)
    if x.dtype == torch.uint32:
        return x.view(torch.int32)
    if x.dtype == torch.uint64:
        return x.view(torch.int64)
    if x.dtype.itemsize == 1 and x.dtype.is_floating_point:
        return x.view(torch.uint8)
    return x


def moved(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Gives a tensor that was viewed as integers to be moved its dtype back."""
    return y if y.dtype == dtype else y.view(dtype)


def comparable(x: Tensor) -> Tensor:
    """Maps dtypes that torch cannot order (uint16/32/64, bool, float8) to one it can, in order."""
    if x.dtype == torch.uint16:
        return x.to(torch.int32)
    if x.dtype == torch.uint32:
        return x.to(torch.int64)
    if x.dtype == torch.uint64:
        return x.view(torch.int64) ^ torch.iinfo(torch.int64).min
    if x.dtype == torch.bool:
        return x.to(torch.uint8)
    if x.dtype.itemsize == 1 and x.dtype.is_floating_point:
        return x.to(torch.float32)
    return x


def top_k(
    x: Tensor, k: int, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """ONNX TopK: torch.topk does not promise the lowest index first among equal values."""
    order = comparable(x).sort(dim=axis, descending=bool(largest), stable=True).indices
    indices = order.narrow(axis, 0, k)
    return moved(movable(x).gather(axis, indices), x.dtype), indices


class SeveralOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Buffer(torch.empty(2), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """
        x: f32[N, 6]
        ->
        left: f32[N, 2]
        values: f32[N, 2]
        indices: i64[N, 2]
        same: f32[N, 6]
        answer: f32[2]
        """
        left, right = x.split((2, 4), dim=1)
        values, indices = top_k(right, 2, axis=1)
        return left, values, indices, x, self.answer


def load(
    weights: str | Path = Path(__file__).parent / "several_outputs.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> SeveralOutputs:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = SeveralOutputs()
    state = load_file(weights)
    for key in state.keys() - model.state_dict().keys():
        owner, _, name = key.rpartition(".")
        setattr(model.get_submodule(owner), name, state.pop(key))
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
