"""Networks that ONNX Runtime's own tools quantised: pages about as long as those in floats, right, and trainable."""

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import onnx2nn

quantization = pytest.importorskip("onnxruntime.quantization")


class Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(width, out, 3, stride, 1), nn.ReLU())
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1)
        self.downsample = nn.Conv2d(width, out, 1, stride) if width != out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Classifier(nn.Module):
    """A small residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 16, 2), Block(16, 16))
        self.layer3 = nn.Sequential(Block(16, 24, 2), Block(24, 24))
        self.fc = nn.Linear(24, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(image)), 2)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.out = nn.Linear(32, 32)
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, 4, 8).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        y = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
        x = self.norm1(x + self.out(y.transpose(1, 2).reshape(batch, length, 32)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Tagger(nn.Module):
    """A small transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.norm = nn.LayerNorm(32)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.head = nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.embedding(ids))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


NETS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "classifier": (Classifier, "image"),
    "tagger": (Tagger, "ids"),
}
FORMS = ["QDQ", "QDQ per channel", "QOperator", "QOperator per channel", "dynamic"]
MOST = 1.5  # lines to one in floats


def drawn(net: str, seed: int, rows: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    if net == "tagger":
        return rng.integers(0, 50, (rows, 6))
    return rng.normal(size=(rows, 3, 16, 16)).astype(np.float32)


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, net: str) -> None:
        self.items = iter([{NETS[net][1]: drawn(net, seed)} for seed in range(4)])

    def get_next(self) -> Any:
        return next(self.items, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both networks in floats."""
    made = tmp_path_factory.mktemp("quantized")
    for name, (make, given) in NETS.items():
        torch.manual_seed(0)
        net = make().eval()
        for p in net.parameters():
            if p.dim() == 1:
                p.data += 0.1 * torch.randn_like(p)
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                (torch.from_numpy(drawn(name, 0)),),
                file,
                input_names=[given],
                output_names=["y"],
                dynamic_axes={given: {0: "batch"}},
                opset_version=17,
                dynamo=False,
            )
        (made / f"{name}.onnx").write_bytes(file.getvalue())
    return made


def quantized(folder: Path, net: str, form: str) -> Path:
    path = folder / f"{net}_{form.replace(' ', '_')}.onnx"
    if path.exists():
        return path
    logging.disable(logging.WARNING)
    try:
        if form == "dynamic":
            quantization.quantize_dynamic(folder / f"{net}.onnx", path)
        else:
            quantization.quantize_static(
                folder / f"{net}.onnx",
                path,
                Calibration(net),
                quant_format=quantization.QuantFormat[form.split()[0]],
                per_channel="per channel" in form,
            )
    finally:
        logging.disable(logging.NOTSET)
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_lines(folder: Path, net: str, form: str) -> None:
    plain = onnx2nn.convert(folder / f"{net}.onnx").source
    source = onnx2nn.convert(quantized(folder, net, form)).source
    assert source.count("\n") <= MOST * plain.count("\n")
    assert "int8" not in source
    for layer in ("nn.Conv2d(", "nn.Embedding(", "nn.LayerNorm(", "class Block("):
        assert (layer in source) == (layer in plain), layer


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_it_is_right_and_can_be_trained(folder: Path, net: str, form: str, tmp_path: Path) -> None:
    path = quantized(folder, net, form)
    onnx2nn.convert(path, tmp_path / "net.py")
    report = onnx2nn.verify(path, tmp_path / "net.py", nodes="always")
    assert report.ok, report
    loaded = onnx2nn.load(path)
    x = torch.from_numpy(drawn(net, 9, rows=3))
    loaded(x).square().sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())
    # A bias of the keys moves all scores of a query alike.
    still = {n for n, p in loaded.named_parameters() if not p.grad.abs().sum() > 0}  # type: ignore[union-attr]
    assert not {n for n in still if "key" not in n}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_weights_stay_integers_in_the_file(
    folder: Path, net: str, form: str, tmp_path: Path
) -> None:
    path = quantized(folder, net, form)
    onnx2nn.convert(path, tmp_path / "net.py")
    state = load_file(tmp_path / "net.safetensors")
    layers = [
        key
        for key, module in onnx2nn.load(path).named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert layers
    for key in layers:
        assert state[f"{key}.weight"].dtype in (torch.int8, torch.uint8), key


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
@pytest.mark.parametrize("net", NETS)
def test_without_rewriting_it_is_right_as_well(folder: Path, net: str, form: str) -> None:
    path = quantized(folder, net, form)
    x = torch.from_numpy(drawn(net, 9, rows=3))
    with torch.no_grad():
        y = onnx2nn.load(path)(x)
        z = onnx2nn.load(path, simplify=False)(x)
    # An activation that rounding moves over the middle of a step is one step off, and more behind it.
    assert (y - z).abs().max() <= 0.05 * (y.max() - y.min())
