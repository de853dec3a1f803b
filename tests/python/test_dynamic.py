"""Sizes that an exporter fixed: opened where the graph takes any, and refused by name where not."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

import onnx2nn
from onnx2nn.cli import ExitCode, main
from onnx2nn.errors import Error

Export = Callable[[nn.Module, Tensor], str]


@pytest.fixture(params=["torchscript", "dynamo"])
def export(request: pytest.FixtureRequest, tmp_path: Path) -> Export:
    def run(module: nn.Module, x: Tensor) -> str:
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        path = str(tmp_path / "m.onnx")
        dynamo = request.param == "dynamo"
        options: dict[str, Any] = {"verbose": False} if dynamo else {"opset_version": 17}
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(module.eval(), (x,), path, dynamo=dynamo, **options)
        return path

    return run


class Picture(nn.Module):
    """A token of its own before those of the picture, as a ViT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 5, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], 1) + self.places
        return self.head(self.layer(y)[:, 0])


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x)[0])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x)[0]


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "make, shape", [(Picture, (3, 8, 8)), (Series, (6, 4)), (plain, (3, 8, 8))]
)
def test_a_batch_is_opened(
    make: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, export: Export
) -> None:
    module = make()
    path = export(module, torch.randn(batch, *shape))
    x = torch.randn(7, *shape)
    with torch.no_grad():
        want = module(x)
        for simplify in (True, False):
            net = onnx2nn.load(path, dynamic_batch=True, simplify=simplify)
            torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-5)
    report = onnx2nn.verify(path, dynamic_batch=True)
    assert report.ok
    assert f"right with a batch of {2 * batch} too, where the file has {batch}" in report.notes
    small, right = onnx2nn.simplify(path, dynamic_batch=True)
    assert right
    for value in (*small.graph.input, *small.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_batch_that_is_not_first(export: Export) -> None:
    module = Attention()
    path = export(module, torch.randn(5, 1, 8))
    [name] = [i.name for i in onnx.load(path).graph.input]
    net = onnx2nn.load(path, dynamic={name: 1})
    x = torch.randn(5, 3, 8)
    with torch.no_grad():
        torch.testing.assert_close(net(x), module(x), rtol=1e-4, atol=1e-5)
    report = onnx2nn.verify(path, dynamic={name: [1]})
    assert report.ok
    assert any("runs on" in note for note in report.notes)


def model(text: str) -> bytes:
    text = f'<ir_version: 8, opset_import: ["" : 17]> {text}'
    return bytes(onnx.parser.parse_model(text).SerializeToString())


@pytest.mark.parametrize(
    "text, node, why",
    [
        ("i = Constant <value_int = 0> () [n] y = Gather (x, i)", "n", "takes the dim apart"),
        (
            "s = Constant <value_ints = [-1]> () h = Reshape (x, s) [n] y = MatMul (h, w)",
            "n",
            "sums",
        ),
        ("[n] y = Concat <axis = 1> (x, different)", "n", "another row for each of 2"),
        ("[n] y = Add (x, different)", "n", "another row for each of 2"),
        ("[n] y = Add (x, same)", "", ""),
        ("[n] y = Concat <axis = 1> (x, same)", "", ""),
        (
            "a = Constant <value_ints = [0]> () b = Constant <value_ints = [1]> ()"
            "[n] y = Slice (x, a, b, a)",
            "n",
            "rows 0 to 1 of the batch",
        ),
    ],
)
def test_what_fixes_a_batch_is_named(text: str, node: str, why: str) -> None:
    data = model(
        f"""g (float[2,3] x) => (float[?,?] y) <float[6,2] w = {{1,2,3,4,5,6,7,8,9,10,11,12}},
        float[2,3] different = {{1,2,3,4,5,6}}, float[2,3] same = {{1,2,3,1,2,3}}> {{ {text} }}"""
    )
    if not node:
        assert onnx2nn.verify(data, dynamic_batch=True).ok
        return
    with pytest.raises(Error, match=why) as caught:
        onnx2nn.convert(data, dynamic_batch=True)
    [found] = [d for d in caught.value.diagnostics if d["severity"] == "error"]
    assert (found["code"], found["node"]) == ("fixed-dim", "n")
    assert "dynamic axis" in found["hint"]


def test_what_mixes_rows_is_found_by_running() -> None:
    data = model("g (float[2,3] x) => (float[?,?] y) { y = Softmax <axis = 0> (x) }")
    report = onnx2nn.verify(data, dynamic_batch=True)
    assert report.ok is False
    assert report.error == "right with a batch of 2, wrong with one of 4"


def test_the_commands_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = model(
        """g (float[1,3,4] x) => (float[1,12] y) {
        s = Constant <value_ints = [1, 12]> () y = Reshape (x, s) }"""
    )
    Path("m.onnx").write_bytes(data)
    assert main(["m.onnx", "--dynamic-batch"]) == 0
    assert main(["verify", "m.onnx", "--dynamic-batch"]) == 0
    assert main(["simplify", "m.onnx", "s.onnx", "--dynamic", "x:0"]) == 0
    assert main(["m.onnx", "--dynamic", "z:0"]) == ExitCode.USAGE
    assert main(["m.onnx", "--dynamic", "x:3"]) == ExitCode.USAGE
    net = onnx2nn.load(data, dynamic={"x": 0})
    assert net(torch.zeros(5, 3, 4)).shape == (5, 12)
    with pytest.raises(Error, match="--dynamic-batch"):
        onnx2nn.convert(data, input_shapes={"x": [5, 3, 4]})
