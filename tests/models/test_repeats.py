"""Blocks that are found in the graph itself, for models whose names say nothing, and functions cut where they are long."""

import ast
import itertools
import time
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

import onnx2nn
from onnx2nn.core import run_native
from onnx2nn.loading import build
from onnx2nn.source import as_source

from .test_structure import EXPORTERS, Encoder, Residual, classes, export, outputs, tokens, trained


def stripped(model: bytes, weights: bool = True) -> bytes:
    """The model without any name but those of its inputs and outputs, and, if so, its weights."""
    proto = onnx.load_from_string(model)
    kept = {v.name for v in [*proto.graph.input, *proto.graph.output]}
    if not weights:
        kept |= {t.name for t in proto.graph.initializer}
    names: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        return name if name in kept else names.setdefault(name, f"t{len(names)}")

    for tensor in proto.graph.initializer:
        tensor.name = renamed(tensor.name)
    for node in proto.graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [renamed(x) for x in node.input]
        node.output[:] = [renamed(x) for x in node.output]
    del proto.graph.value_info[:]
    del proto.metadata_props[:]
    return proto.SerializeToString()


def page(model: bytes, *args: Tensor) -> str:
    """The source, after its classes gave the flat function's answers."""
    source = as_source(model)
    nets = [build(run_native(source, {"flat": flat})) for flat in (False, True)]
    assert set(nets[0].state_dict()) == set(nets[1].state_dict())
    with torch.no_grad():
        ours, flat = (outputs(net(*args)) for net in nets)
    assert len(ours) == len(flat)
    assert all(torch.equal(a, b) for a, b in zip(ours, flat, strict=True))
    torch.fx.symbolic_trace(nets[0])
    return onnx2nn.convert(model).source


def lines(source: str) -> int:
    return sum(": f32[" not in line for line in source.splitlines())


def longest(source: str) -> int:
    return max(
        (n.end_lineno or 0) - n.lineno + 1
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.FunctionDef)
    )


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_residual_blocks_without_names_share_a_class(exporter: str) -> None:
    torch.manual_seed(0)
    model = export(trained(Residual()), (torch.randn(2, 3, 32, 32),), exporter)
    source = page(stripped(model), torch.randn(3, 3, 32, 32))
    assert "class BasicBlock(nn.Module):" in source
    assert "downsample: bool = False" in source
    assert "self.blocks = nn.Sequential(" in source
    assert len(classes(source)) == 2, source
    assert lines(source) <= 1.3 * lines(onnx2nn.convert(model).source)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_transformer_without_names_has_a_loop(exporter: str) -> None:
    found = []
    for layers in (2, 6):
        torch.manual_seed(0)
        model = export(trained(Encoder(layers)), tokens(2), exporter)
        source = page(stripped(model), *tokens(3))
        assert "for layer in self.layers:" in source, source
        assert "class Attention(nn.Module):" in source
        for name in ("query", "key", "value", "out"):
            assert f"self.{name} = nn.Linear(" in source
        assert lines(source) <= 1.3 * lines(onnx2nn.convert(model).source)
        found.append(lines(source))
    assert found[0] == found[1]


def test_keys_of_the_author_stay() -> None:
    torch.manual_seed(0)
    net = trained(Residual())
    model = export(net, (torch.randn(2, 3, 32, 32),), "torchscript")
    converted = onnx2nn.load(stripped(model, weights=False))
    converted.load_state_dict(net.state_dict(), strict=True)


class Shared(nn.Module):
    """One block that is called several times, as in ALBERT."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.gate = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(5):
            y = self.norm(x)
            x = x + self.down(F.gelu(self.up(y))) * torch.sigmoid(self.gate(y))
        return x


def test_what_has_the_same_weights_is_one_block_called_again() -> None:
    torch.manual_seed(0)
    model = export(trained(Shared()), (torch.randn(2, 3, 8),), "dynamo")
    source = page(stripped(model), torch.randn(3, 3, 8))
    assert source.count("self.block(") == 5, source
    assert len(classes(source)) == 2


class Untrained(nn.Module):
    """Norms of which exporters keep the weights once."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).tanh() * 0.5
        return x


def test_norms_that_were_kept_once_are_one_for_each_block() -> None:
    torch.manual_seed(0)
    model = export(Untrained().eval(), (torch.randn(2, 3, 8),), "dynamo")
    source = page(stripped(model), torch.randn(3, 3, 8))
    assert source.count("nn.LayerNorm(") == 1, source
    assert "for _ in range(4)" in source


class Concatenated(nn.Module):
    """Layers that read all before them: what they read is another list each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(4 * (i + 1), 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.ReLU()
            )
            for i in range(6)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_what_differs_from_turn_to_turn_stands_between_the_blocks(exporter: str) -> None:
    torch.manual_seed(0)
    model = export(trained(Concatenated()), (torch.randn(2, 4, 8, 8),), exporter)
    source = page(stripped(model), torch.randn(3, 4, 8, 8))
    assert source.count("nn.Conv2d(") <= 4, source


class Norm2d(nn.LayerNorm):
    """A layer of torch's with statements around it, as torchvision's LayerNorm2d."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), Norm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), Norm2d(12)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean((2, 3))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_layer_with_statements_around_it_is_a_class(exporter: str) -> None:
    torch.manual_seed(0)
    net = trained(Normed())
    model = export(net, (torch.randn(2, 3, 8, 8),), exporter)
    source = page(model, torch.randn(3, 3, 8, 8))
    assert "nn.Sequential(" in source, source
    assert "nn.ModuleList" not in source
    assert exporter != "dynamo" or "class Norm2d(nn.Module):" in source
    onnx2nn.load(model).load_state_dict(net.state_dict(), strict=True)


class Long(nn.Module):
    """Much work that never repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        functions = [torch.sin, torch.tanh, torch.exp, torch.sigmoid, torch.cos, torch.atan]
        for i in range(90):
            kept = x
            for k in range(1 + i % 3):
                x = functions[(i * (i + 1) // 2 + 3 * k) % len(functions)](x)
            x = (x * (0.1 * i + 1)).roll(i % 7, -1) if i % 4 == 1 else x - kept * 0.3
        return self.last(x)


def test_a_long_function_is_cut_into_methods() -> None:
    torch.manual_seed(0)
    net = trained(Long())
    model = export(net, (torch.randn(2, 8),), "torchscript")
    source = page(model, torch.randn(3, 8))
    assert longest(source) <= 60, source
    assert "def stem(self" in source
    onnx2nn.load(model).load_state_dict(net.state_dict(), strict=True)


class Outputs(nn.Module):
    """Many results that have nothing to do with each other."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        out = [torch.sin(x * (i + 1)).cumsum(-1) - y for i in range(80)]
        return tuple(out)


def test_results_of_parts_are_tuples() -> None:
    torch.manual_seed(0)
    model = export(Outputs(), (torch.randn(2, 8), torch.randn(2, 8)), "torchscript")
    source = page(model, torch.randn(3, 8), torch.randn(3, 8))
    assert "*outputs" in source, source
    parts = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    assert all((n.end_lineno or 0) - n.lineno < 60 for n in parts if n.name != "forward"), source


class Chains(nn.Module):
    """Chains of one form with other numbers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [3, 4, 6, 8, 10, 12, 14, 16, 18]
        self.features = nn.Sequential(
            *[
                nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in itertools.pairwise(sizes)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean((2, 3))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_chains_that_come_often_have_a_class(exporter: str) -> None:
    torch.manual_seed(0)
    net = trained(Chains())
    model = export(net, (torch.randn(2, 3, 8, 8),), exporter)
    source = page(model, torch.randn(3, 3, 8, 8))
    assert "(nn.Sequential):" in source, source
    assert source.count("nn.Conv2d(") == 1


def chain(operators: list[str]) -> bytes:
    nodes = [
        helper.make_node(
            op, [f"x{i}"] if op != "Add" else [f"x{i}", f"x{max(i - 3, 0)}"], [f"x{i + 1}"]
        )
        for i, op in enumerate(operators)
    ]
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x0", f"x{len(nodes)}")
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def thue_morse(i: int) -> str:
    return ("Sin", "Tanh")[i.bit_count() % 2]


@pytest.mark.parametrize(
    "operator",
    [lambda i: "Sin", thue_morse, lambda i: ("Sin", "Add", "Tanh", "Add", "Cos")[i * i % 5]],
    ids=["equal", "without cubes", "squares"],
)
def test_time_is_in_proportion(operator: Any) -> None:
    took = []
    for count in (1000, 4000):
        model = chain([operator(i) for i in range(count)])
        began = time.process_time()
        run_native(as_source(model), {})
        took.append(time.process_time() - began)
    assert took[1] <= 12 * took[0] + 0.5
