"""Shapes that the page says behind its lines: those that the tensors have, at any size of what is open."""

import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

import onnx2nn

from .test_structure import EXPORTERS, Encoder, export, tokens, trained

LINE = re.compile(r"^( +)(\w+(?:, \w+)*) = .*  # (each )?\((.*)\)$")


def comments(source: str) -> list[str]:
    return [m[4] for line in source.splitlines() if (m := LINE.match(line))]


def checked(source: str, seen: list[str], **sizes: int) -> types.ModuleType:
    """The page, each of whose comments is compared with the tensors; `sizes` are those of the inputs."""

    def check(text: str, *tensors: Tensor) -> None:
        for x in tensors:
            said = [s for s in re.split(", ?", text) if s]
            assert x.dim() == len(said)
            for size, value in zip(said, x.shape, strict=True):
                if size.isidentifier():
                    assert sizes.setdefault(size, value) == value, text
                assert eval(size, {}, sizes) == value, (text, x.shape)
        seen.append(text)

    lines = []
    for line in source.splitlines():
        lines.append(line)
        if m := LINE.match(line):
            lines.append(f"{m[1]}_check({m[4]!r}, {m[2]})")
    module = types.ModuleType("page")
    vars(module).update(_check=check, __file__="page.py")
    exec(compile("\n".join(lines), "page.py", "exec"), vars(module))
    return module


class Patches(nn.Module):
    """Patches, a token before them, attention with one product for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.qkv = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x[:, 0])


class Stage(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 2 * width, 2, 2)
        self.fc = nn.Linear(2 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.fc(x.permute(0, 2, 3, 1).flatten(1, 2)).softmax(1)
        return x * y.mean(1)[:, :, None, None]


class Stages(nn.Module):
    """One class for two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Stage(3)
        self.second = Stage(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def run(data: bytes, net: nn.Module, *args: Tensor) -> list[str]:
    seen: list[str] = []
    ours: Any = vars(checked(onnx2nn.convert(data).source, seen))["Model"]().eval()
    ours.load_state_dict(net.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ours(*args), net(*args), rtol=1e-4, atol=1e-5)
    return seen


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_comments_are_the_shapes(exporter: str) -> None:
    torch.manual_seed(0)
    net = trained(Patches())
    seen = run(export(net, (torch.randn(2, 3, 16, 16),), exporter), net, torch.randn(3, 3, 16, 16))
    tail = [s.split(", ", 1)[1] for s in seen]
    assert "16, 16" in tail
    assert "4, 17, 4" in tail


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_layers_say_it_once(exporter: str) -> None:
    torch.manual_seed(0)
    net = trained(Encoder(3))
    data = export(net, tokens(2), exporter)
    source = onnx2nn.convert(data).source
    assert source.count("(batch, 2, 6, 8)") == 1, source
    run(data, net, *tokens(3))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_class_says_what_all_its_modules_have(exporter: str) -> None:
    torch.manual_seed(0)
    net = trained(Stages())
    data = export(net, (torch.randn(2, 3, 16, 16),), exporter)
    source = onnx2nn.convert(data).source
    assert source.count("class ") == 2, source
    assert not comments(source), source
    run(data, net, torch.randn(3, 3, 16, 16))


def reshaped(symbol: str) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [symbol, 4, 6])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Transpose", ["x"], ["y"], perm=[2, 0, 1]),
        helper.make_node("Softmax", ["y"], ["z"]),
        helper.make_node("Mul", ["z", "y"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [out])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


@pytest.mark.parametrize("symbol", ["n", "a\nimport os", "(", "n # noqa", "é", "x" * 100, "%5", ""])
def test_only_names_and_numbers_are_taken_from_the_model(symbol: str) -> None:
    source = onnx2nn.convert(reshaped(symbol)).source
    said = comments(source)
    assert said == ["6, n, 4"] or symbol != "n"
    assert all(re.fullmatch("6, [A-Za-z_][A-Za-z0-9_]*, 4", text) for text in said)
    net = onnx2nn.load(reshaped(symbol))
    assert net(torch.randn(3, 4, 6)).shape == (6, 3, 4)


def test_origins_are_said_instead(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(reshaped("n"))
    onnx2nn.convert(tmp_path / "net.onnx", tmp_path / "net.py", comments_origin=True)
    assert not comments((tmp_path / "net.py").read_text())
