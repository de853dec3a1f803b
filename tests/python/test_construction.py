"""Modules that are built on the meta device, equal ones as copies of one."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from onnx2nn.construction import on_meta, repeats_copied

built: list[str] = []


class Layer(nn.Module):
    def __init__(self, size: int = 3, *, scale: float | bool = 1.0) -> None:
        super().__init__()
        built.append("Layer")
        self.scale = scale
        self.up = nn.Linear(size, 4)
        self.norm = nn.BatchNorm1d(4)
        self.again = nn.Sequential(self.up, nn.ReLU())
        self.tied = nn.Parameter(torch.empty(2), requires_grad=False)
        self.also = self.tied
        self.register_buffer("steps", torch.arange(3), persistent=False)
        self.table: torch.Tensor | None
        self.register_buffer("table", torch.empty(2, dtype=torch.int8))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        built.append("Recurrent")
        self.lstm = nn.LSTM(2, 3)


class Net(nn.Module):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(5))


def construct(make: Callable[[], nn.Module]) -> Any:
    built.clear()
    with on_meta(), repeats_copied([Layer, Recurrent]):
        return Net(make)


def state(module: nn.Module) -> dict[str, Any]:
    """What a module has, its tensors by what can be compared."""
    out: dict[str, Any] = {}
    for name, child in module.named_modules():
        for key, value in vars(child).items():
            if key in ("_parameters", "_buffers"):
                tensors = {k: (type(t), t.dtype, t.shape, t.device) for k, t in value.items()}
                grads = {k: t.requires_grad for k, t in value.items()}
                out[f"{name}:{key}"] = tensors, grads
            elif key == "_modules":
                out[f"{name}:{key}"] = [(k, type(m)) for k, m in value.items()]
            else:
                out[f"{name}:{key}"] = type(value), value
    return out


def test_the_third_of_equal_layers_is_a_copy() -> None:
    net = construct(Layer)
    assert built == ["Layer", "Layer"]
    first, *others = net.layers
    for layer in others:
        assert state(layer) == state(first)
        assert layer.tied is layer.also
        assert layer.up is layer.again[0]
        assert layer.steps.tolist() == [0, 1, 2]
    # None of them has anything of another's.
    for kind in (net.parameters, net.buffers, net.modules):
        assert len({id(x) for x in kind()}) == len(list(kind()))
    assert len(list(net.parameters())) == 5 * 5
    assert net.layers[3].steps.data_ptr() != net.layers[4].steps.data_ptr()
    assert net.layers[2]._forward_hooks is not net.layers[3]._forward_hooks


def test_arguments_that_are_equal_and_not_the_same_are_told_apart() -> None:
    scales = iter([1, True, 1.0, 1, True, 1.0, 1, True, 1.0])
    net = construct(lambda: nn.ModuleList([Layer(scale=next(scales))]))
    assert [repr(layer[0].scale) for layer in net.layers] == ["1", "True", "1.0", "1", "True"]


def test_what_was_changed_after_the_constructor_is_not_copied() -> None:
    weights: list[nn.Parameter] = []

    def make() -> nn.Module:
        layer = Layer()
        if weights:
            layer.up.weight = weights[0]
        else:
            weights.append(layer.up.weight)
            layer.norm = nn.Identity()  # type: ignore[assignment]
        return layer

    net = construct(make)
    assert all(layer.up.weight is weights[0] for layer in net.layers)
    with on_meta(), repeats_copied([Layer]):
        layers = [Layer(), Layer()]
        layers[1].up.weight = layers[0].up.weight
        third = Layer()
    assert third.up.weight is not layers[0].up.weight


def test_modules_with_state_of_their_own_are_built_each() -> None:
    net = construct(Recurrent)
    assert built == ["Recurrent"] * 5
    assert net.layers[4].lstm._flat_weights[0] is net.layers[4].lstm.weight_ih_l0


def test_constructors_are_what_they_were() -> None:
    before = Layer.__init__
    construct(Layer)
    assert Layer.__init__ is before
    with pytest.raises(TypeError), on_meta(), repeats_copied([Layer]):
        Layer(no="such")  # type: ignore[call-arg]
    assert Layer.__init__ is before


def test_nothing_is_initialised() -> None:
    before = torch.get_rng_state()
    with on_meta():
        layers = [nn.Linear(2, 3), nn.Conv2d(2, 3, 1), nn.Embedding(2, 3), nn.LSTM(2, 3)]
    assert all(p.is_meta for layer in layers for p in layer.parameters())
    assert torch.get_rng_state().equal(before)


def test_layers_on_meta_import_no_compiler() -> None:
    code = (
        "import sys, torch; from torch import nn; from onnx2nn.construction import unfilled_on_meta\n"
        "with unfilled_on_meta(), torch.device('meta'): e = nn.Embedding(2, 3)\n"
        "assert e.weight.is_meta and 'torch._dynamo' not in sys.modules\n"
        "with unfilled_on_meta(): assert nn.Embedding(2, 3).weight.std() > 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
