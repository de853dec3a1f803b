"""Pages of networks in floats are torch alone: nothing is copied in from the runtime."""

import ast
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import onnx2nn

from . import nets
from .test_structure import CASES, EXPORTERS, made
from .test_structure import export as export_bytes

NETS: dict[str, tuple[type[nn.Module], int]] = {
    "mobilenet": (nets.MobileNetV2, 64),
    "shufflenet": (nets.ShuffleNetV2, 64),
    "resnet50_v2": (nets.ResNet50V2, 64),
    "yolo_v5s": (nets.YoloV5s, 64),
}
# A folder that bench/zoo.py made.
ZOO = os.environ.get("ONNX2NN_ZOO", "")


def functions(source: str) -> list[str]:
    """The functions that a page has beside its classes and `load`."""
    found = [n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    return [name for name in found if name != "load"]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("case", CASES)
def test_small_networks(case: str, exporter: str) -> None:
    assert functions(onnx2nn.convert(made(case, exporter)[1]).source) == []


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETS)
def test_networks(name: str, exporter: str) -> None:
    make, size = NETS[name]
    net = nets.seeded(make()).eval()
    model = export_bytes(net, (torch.randn(2, 3, size, size),), exporter)
    assert functions(onnx2nn.convert(model).source) == []


@pytest.mark.skipif(not ZOO, reason="ONNX2NN_ZOO names no folder")
def test_zoo() -> None:
    files = sorted(Path(ZOO).glob("*.onnx"))
    assert files
    copied = {f.name: functions(onnx2nn.convert(f).source) for f in files}
    assert {name: found for name, found in copied.items() if found} == {}
