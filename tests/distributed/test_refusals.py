"""Layers that --tp-plan leaves whole, and what the plan says of each."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import onnx2nn

WIDTH, HEADS = 16, 4


class Block(nn.Module):
    """An MLP of two layers, and what is done with the features between and around them."""

    def __init__(self, between: Callable[["Block", Tensor], Tensor], middle: int = 32) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 32), nn.Linear(middle, WIDTH)
        self.norm = nn.LayerNorm(32)
        self.scale = nn.Parameter(torch.rand(32))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.between(self, self.up(x)))


class Fused(nn.Module):
    """Attention whose queries, keys and values are one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).split(WIDTH, -1)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Conv1D(nn.Module):
    """As GPT-2 has it: a linear layer by its transposed weight."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n_in, n_out))
        self.bias = nn.Parameter(torch.rand(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Convs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(WIDTH, 32), Conv1D(32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.up(x)))


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


FEATURES = "along the features that are split"
REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "fused projection": (
        Fused,
        {
            "qkv": "it is several projections in one, each to be split",
        },
    ),
    "halves of a gate": (
        lambda: Block(lambda _, x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1], 16),
        {
            "up": "it is several projections in one, each to be split",
        },
    ),
    "GPT-2's layers": (
        Convs,
        dict.fromkeys(
            ["c_fc.weight", "c_proj.weight"],
            "it is multiplied by as it is, and torch splits nn.Linear alone",
        ),
    ),
    "softmax": (
        lambda: Block(lambda _, x: x.softmax(-1)),
        {"up": f"it goes into softmax {FEATURES}"},
    ),
    "a norm": (lambda: Block(lambda m, x: m.norm(x)), {"up": "it goes into LayerNorm"}),
    "a scale": (
        lambda: Block(lambda m, x: x * m.scale),
        {"up": "it goes into mul with what is trained and whole"},
    ),
    "a sum": (lambda: Block(lambda _, x: x - x.mean(-1, True)), {"up": "it goes into mean"}),
    "an output": (Last, {"head": "it is an output of the model"}),
    "a layer that is called twice": (Twice, {"up": "it is called for both ends of a block"}),
}


def whole(net: nn.Module, folder: Path) -> tuple[dict[str, str], str]:
    """What the plan's docstring says of each layer that stays whole; and the source."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(), (torch.rand(2, 3, WIDTH),), dynamo=True, verbose=False
        )
    assert program is not None
    onnx.save(program.model_proto, folder / "net.onnx")
    onnx2nn.convert(folder / "net.onnx", folder / "net.py", tp_plan=True)
    source = (folder / "net.py").read_text()
    text = re.sub(r":\n {8}", ": ", source.split("def tp_plan")[1])
    return dict(re.findall(r"^ {4}([\w.*]+): (.+)$", text, re.M)), source


@pytest.mark.parametrize("kind", REFUSED)
def test_reason(kind: str, tmp_path: Path) -> None:
    make, reasons = REFUSED[kind]
    torch.manual_seed(0)
    found, source = whole(make(), tmp_path)
    assert {name: found.get(name) for name in reasons} == reasons
    assert "ColwiseParallel" not in source


def test_what_is_elementwise_is_split(tmp_path: Path) -> None:
    found, source = whole(Block(lambda _, x: F.gelu(x)), tmp_path)
    assert not found
    assert source.count("Parallel()") == 2
    # Torch takes unequal shares of features for equal ones, and refuses the product then.
    assert "for a number of processes that divides 32." in source
