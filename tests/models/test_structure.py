"""The page's classes: what they compute, and what they look like, for models of both of torch's exporters."""

import ast
import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import onnx2nn
from onnx2nn.core import run_native
from onnx2nn.loading import build
from onnx2nn.source import as_source

EXPORTERS = ("dynamo", "torchscript")


class Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1)
        other = stride != 1 or width != out
        self.downsample = nn.Conv2d(width, out, 1, stride) if other else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Residual(nn.Module):
    """Blocks in nn.Sequential, of which some have a part that others lack."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 16, 2), *[Block(16, 16) for _ in range(3)])
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Layers in a loop that passes a mask on and collects what each gives."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.layers = nn.ModuleList(Layer(16, 2) for _ in range(layers))

    def forward(self, tokens: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
        mask = (1.0 - keep[:, None, None].float()) * -1e9
        x = self.embedding(tokens)
        states = []
        for layer in self.layers:
            x = layer(x, mask)
            states.append(x)
        return (x.mean(1), *states)


class Dilated(nn.Module):
    """Modules of one class that differ in a number from turn to turn."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv1d(4, 4, 3, padding=d, dilation=d), nn.ReLU()) for d in (1, 2, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(x)
        return x


class Twice(nn.Module):
    """One module that is called twice, with the same work."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(F.relu(self.block(x) - 0.1))


class Heads(nn.Module):
    """Attention to oneself or to something else, with a mask and without."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (2, -1)).transpose(1, 2)
            for y in (self.query(x), self.key(other), self.value(other))
        )
        return self.out(
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        )


class Translator(nn.Module):
    """One attention used in three ways, and widths that follow from one another."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Heads(16)
        self.writer, self.listener = Heads(16), Heads(16)
        self.wide, self.small = Widths(16), Widths(8)
        self.down = nn.Linear(16, 8)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        x = x + self.reader(x, x)
        y = y + self.writer(y, y, mask)
        y = y + self.listener(y, x)
        return self.small(self.down(self.wide(y)))


class Widths(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Activated(nn.Module):
    """Convolutions of which the last has no activation, padded by half of their kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(Conv(3, 8, 3, True), Conv(8, 8, 5, True), Conv(8, 8, 1, False))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Conv(nn.Module):
    def __init__(self, width: int, out: int, kernel: int, active: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(2, out)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x) if self.active else x


class Inverted(nn.Module):
    """Blocks of which only some add what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(Widen(4, 8), Widen(8, 8), Widen(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class Widen(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.same = width == out
        self.up = nn.Conv2d(width, 3 * width, 1)
        self.down = nn.Conv2d(3 * width, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.relu(self.up(x)))
        return x + y if self.same else y


def translated(rows: int) -> tuple[Tensor, ...]:
    mask = torch.where(torch.ones(5, 5).tril() > 0, 0.0, -1e9).expand(rows, 1, 5, 5)
    return torch.randn(rows, 6, 16), torch.randn(rows, 5, 16), mask.contiguous()


def tokens(rows: int) -> tuple[Tensor, ...]:
    return torch.randint(0, 20, (rows, 6)), torch.ones(rows, 6, dtype=torch.long)


CASES: dict[str, tuple[Any, Any]] = {
    "residual": (Residual, lambda n: (torch.randn(n, 3, 32, 32),)),
    "encoder": (lambda: Encoder(3), tokens),
    "dilated": (Dilated, lambda n: (torch.randn(n, 4, 9),)),
    "translator": (Translator, translated),
    "activated": (Activated, lambda n: (torch.randn(n, 3, 12, 12),)),
    "inverted": (Inverted, lambda n: (torch.randn(n, 4, 8, 8),)),
    "twice": (Twice, lambda n: (torch.randn(n, 4, 8, 8),)),
}


def export(net: nn.Module, args: tuple[Tensor, ...], exporter: str) -> bytes:
    stream = io.BytesIO()
    dynamic: dict[str, Any]
    if exporter == "dynamo":
        batch = torch.export.Dim("batch")
        dynamic = {"dynamo": True, "dynamic_shapes": tuple({0: batch} for _ in args)}
        dynamic["verbose"] = False
    else:
        names = [f"x{i}" for i in range(len(args))]
        dynamic = {"dynamo": False, "input_names": names}
        dynamic["dynamic_axes"] = {n: {0: "batch"} for n in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, args, stream, **dynamic)
    return stream.getvalue()


def trained(net: nn.Module) -> nn.Module:
    """The net with weights that all differ: exporters keep equal ones once."""
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return net.eval()


def made(case: str, exporter: str) -> tuple[nn.Module, bytes, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, inputs = CASES[case]
    net = trained(make())
    return net, export(net, inputs(2), exporter), inputs(3)


def outputs(y: Any) -> list[Tensor]:
    return list(y) if isinstance(y, (tuple, list)) else [y]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("case", CASES)
def test_classes_compute_what_the_flat_function_does(case: str, exporter: str) -> None:
    original, model, args = made(case, exporter)
    source = as_source(model)
    nets = [build(run_native(source, {"flat": flat})) for flat in (False, True)]
    assert set(nets[0].state_dict()) == set(nets[1].state_dict())
    with torch.no_grad():
        ours, flat = (outputs(net(*args)) for net in nets)
        theirs = outputs(original(*args))
    assert len(ours) == len(theirs)
    for a, b, c in zip(ours, flat, theirs, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)
    nets[0].load_state_dict(original.state_dict(), strict=True)


def classes(source: str) -> dict[str, ast.ClassDef]:
    return {n.name: n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)}


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_blocks_share_a_class(exporter: str) -> None:
    _, model, _ = made("residual", exporter)
    source = onnx2nn.convert(model).source
    assert len(classes(source)) == 2, source
    assert "downsample: bool = False" in source
    assert "for _ in range(3)" in source
    assert "nn.Sequential(" in source


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_uses_of_one_module_share_a_class(exporter: str) -> None:
    _, model, _ = made("translator", exporter)
    source = onnx2nn.convert(model).source
    assert (
        sum("scaled_dot_product_attention" in ast.unparse(c) for c in classes(source).values()) == 1
    )
    assert "context: Tensor, mask: Tensor | None = None" in source


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_numbers_that_follow_from_others_are_no_arguments(exporter: str) -> None:
    _, model, _ = made("translator", exporter)
    source = onnx2nn.convert(model).source
    assert "def __init__(self, dim: int) -> None:" in source
    assert "nn.Linear(dim, 4 * dim)" in source
    _, model, _ = made("activated", exporter)
    source = onnx2nn.convert(model).source
    assert "padding=kernel_size // 2" in source


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_activation_that_only_some_have_is_a_flag(exporter: str) -> None:
    _, model, _ = made("activated", exporter)
    source = onnx2nn.convert(model).source
    assert len(classes(source)) == 2, source
    assert "F.relu(x) if self.relu else x" in source


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_page_is_as_long_for_many_layers_as_for_two(exporter: str) -> None:
    lines = []
    for layers in (2, 6):
        torch.manual_seed(0)
        model = export(trained(Encoder(layers)), tokens(2), exporter)
        source = onnx2nn.convert(model).source
        assert "for layer in self.layers:" in source, source
        lines.append([x for x in source.splitlines() if ": f32[" not in x])
    assert len(lines[0]) == len(lines[1])


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_flat_writes_one_class(exporter: str, tmp_path: Path) -> None:
    _, model, _ = made("residual", exporter)
    flat = onnx2nn.convert(model, tmp_path / "net.py", flat=True)
    assert len(classes(flat.source)) == 1
    assert onnx2nn.verify(model, tmp_path / "net.py").ok


class Rotary(nn.Module):
    """Attention whose queries and keys are turned by tables, and whose input is called as what it is."""

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.self = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        def turned(y: Tensor) -> Tensor:
            a, b = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-b, a), dim=-1) * sin

        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        y = F.scaled_dot_product_attention(turned(q), turned(k), v, attn_mask=mask)
        return self.self(y.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.layers = nn.ModuleList(Rotary() for _ in range(2))

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        n = tokens.shape[1]
        angles = torch.outer(torch.arange(n) * 1.0, 100.0 ** -torch.linspace(0, 1, 4)).repeat(1, 2)
        mask = torch.ones(n, n, dtype=torch.bool).tril() & keep[:, None, None].bool()
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + layer(x, angles.cos(), angles.sin(), mask)
        return x


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_variables_and_tables_are_called_by_what_they_are(exporter: str) -> None:
    torch.manual_seed(0)
    source = onnx2nn.convert(export(trained(Decoder()), tokens(2), exporter)).source
    assert "def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor)" in source, source
    for line in (
        "q1, q2 = q.chunk(2, dim=",
        "q = q * cos + torch.cat([-q2, q1], dim=",
        "scaled_dot_product_attention(q, k, v, attn_mask=mask)",
        "torch.tril(",
        ", self.cos, self.sin, mask)",
    ):
        assert line in source, (line, source)
    assert "self_" not in source
    assert " layers" not in source


class Picking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 6)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return self.proj(x).gather(-1, index.expand(x.shape[0], -1, -1))


class Shared(nn.Module):
    """Two modules that read one table, which is repeated for the batch in each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Picking() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        index = (torch.arange(6) * 2 % 5).expand(1, 4, 6)
        for layer in self.layers:
            x = x + layer(x, index)
        return x


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_table_that_is_given_to_modules_is_traced(exporter: str) -> None:
    torch.manual_seed(0)
    original = trained(Shared())
    net = onnx2nn.load(export(original, (torch.randn(2, 4, 6),), exporter))
    x = torch.randn(3, 4, 6)
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), original(x))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_sum_that_only_some_blocks_have_is_a_flag(exporter: str) -> None:
    _, model, _ = made("inverted", exporter)
    source = onnx2nn.convert(model).source
    assert len(classes(source)) == 2, source
    assert "if self.residual else" in source
    assert ("class Widen(" if exporter == "dynamo" else "class ResidualBlock(") in source
