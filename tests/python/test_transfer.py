"""Weights of a model for modules that say the same by other names, and refusals for those that do not."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import onnx2nn
from exported_pairs import BOTH, drawn, export, same
from json_schema import conforms
from onnx2nn.cli import main
from onnx2nn.errors import Error
from onnx2nn.transfer.marks import Marks
from onnx2nn.transfer.weights import transfer

ROOT = Path(__file__).parents[2]


class Named(nn.Module):
    """A module whose parts are called as the caller says."""

    def __init__(self, parts: list[nn.Module], names: str) -> None:
        super().__init__()
        self._names = names.split()
        # Registered in the names' own order, which is not that of their use.
        for name, part in sorted(zip(self._names, parts, strict=True)):
            setattr(self, name, part)

    def parts(self) -> list[Any]:
        return [getattr(self, n) for n in self._names]


class Convolutions(Named):
    def __init__(self, names: str, bias: bool = False, activation: Any = torch.relu) -> None:
        a, b = (nn.Conv2d(k, 8, 3, padding=1, bias=bias) for k in (3, 8))
        super().__init__([a, nn.BatchNorm2d(8), b, nn.BatchNorm2d(8), nn.Linear(8, 5)], names)
        self.activation = activation

    def forward(self, x: Tensor) -> Any:
        c1, n1, c2, n2, out = self.parts()
        x = torch.relu(n1(c1(x)))
        return out((self.activation(n2(c2(x))) + x).mean((2, 3)))


class Recurrent(Named):
    def __init__(self, names: str, kind: Any = nn.LSTM) -> None:
        rnn = kind(6, 7, 2, batch_first=True, bidirectional=True)
        super().__init__([rnn, nn.Linear(14, 3)], names)

    def forward(self, x: Tensor) -> Any:
        rnn, out = self.parts()
        return out(rnn(x)[0])


class Attention(Named):
    """One projection of queries, keys and values, or three; the head is tied to the embedding, or not."""

    def __init__(self, names: str, joined: bool, tied: bool = True) -> None:
        head = nn.Linear(8, 11, bias=False)
        parts = [nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 8), head]
        parts += [nn.Linear(8, 24)] if joined else [nn.Linear(8, 8) for _ in range(3)]
        super().__init__(parts, names)
        if tied:
            head.weight = parts[0].weight

    def forward(self, i: Tensor) -> Any:
        embed, norm, out, head, *projections = self.parts()
        x = embed(i)
        y = norm(x)
        found = [p(y) for p in projections]
        qkv = found[0].chunk(3, -1) if len(found) == 1 else found
        q, k, v = (z.unflatten(-1, (2, 4)).transpose(1, 2) for z in qkv)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return head(x + out(y))


PICTURE, SERIES = torch.rand(1, 3, 8, 8), torch.rand(1, 5, 6)
TOKENS = torch.tensor([[1, 7, 3, 10, 0, 4]])


def test_names_are_enough_where_they_match(tmp_path: Path) -> None:
    right = drawn(Attention("e n o h q k v", False))
    path = export(right, TOKENS, tmp_path / "m.onnx", False)
    module = Attention("e n o h q k v", False)
    before = copy.deepcopy(module.state_dict())
    found = transfer(module, path)
    assert found.how == "names"
    assert found.report.ok
    same(module, found.state, right, TOKENS)
    torch.testing.assert_close(module.state_dict(), before)


@BOTH
@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_norm_becomes_the_identity(bias: bool, dynamo: bool, tmp_path: Path) -> None:
    right = drawn(Convolutions("a b c d e", bias))
    path = export(right, PICTURE, tmp_path / "m.onnx", dynamo)
    module = Convolutions("z y x w v", bias)
    found = transfer(module, path)
    assert (found.how, found.folded) == ("structure", 2)
    assert found.report.ok
    assert found.state["y.weight"].eq(1).all()
    assert found.state["y.bias"].eq(0).all() == bias
    same(module, found.state, right, PICTURE)


def test_a_norm_that_is_there_keeps_its_statistics(tmp_path: Path) -> None:
    right = drawn(Convolutions("a b c d e"))
    train = torch.onnx.TrainingMode.PRESERVE
    path = export(right, PICTURE, tmp_path / "m.onnx", False, training=train)
    found = transfer(Convolutions("z y x w v"), path)
    assert (found.how, found.folded) == ("structure", 0)
    for ours, theirs in zip("zyxwv", "abcde", strict=True):
        for key, value in right.get_submodule(theirs).state_dict().items():
            assert torch.equal(found.state[f"{ours}.{key}"], value) or "num_batches" in key


@BOTH
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_come_back_in_torchs_order(kind: Any, dynamo: bool, tmp_path: Path) -> None:
    right = drawn(Recurrent("r o", kind))
    path = export(right, SERIES, tmp_path / "m.onnx", dynamo)
    module = Recurrent("cell last", kind)
    state = transfer(module, path).state
    for ours, theirs in ("cell", "r"), ("last", "o"):
        for key, value in right.get_submodule(theirs).state_dict().items():
            torch.testing.assert_close(state[f"{ours}.{key}"], value)


@BOTH
@pytest.mark.parametrize("joined", [False, True])
def test_projections_and_tied_weights(joined: bool, dynamo: bool, tmp_path: Path) -> None:
    right = drawn(Attention("e n o h p" if joined else "e n o h q k v", joined))
    path = export(right, TOKENS, tmp_path / "m.onnx", dynamo)
    names = "tokens norm mix head all" if joined else "tokens norm mix head third second first"
    module = Attention(names, joined)
    state = onnx2nn.weights_for(module, path)
    same(module, state, right, TOKENS)
    assert state["head.weight"] is state["tokens.weight"]


def test_zeros_that_the_model_no_longer_adds(tmp_path: Path) -> None:
    right = drawn(Attention("e n o h q k v", False))
    nn.init.zeros_(right.q.bias)
    nn.init.zeros_(right.o.bias)
    path = export(right, TOKENS, tmp_path / "m.onnx", False)
    state = transfer(Attention("t m p h a b c", False), path).state
    assert state["a.bias"].eq(0).all()
    assert torch.equal(state["c.weight"], right.v.weight)
    assert torch.equal(state["b.bias"], right.k.bias)


def test_what_no_output_depends_on_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = drawn(Recurrent("r o"))
    path = export(right, SERIES, tmp_path / "m.onnx", False)
    module = Recurrent("cell last")
    module.spare = nn.Linear(2, 2)
    state = onnx2nn.weights_for(module, path)
    assert torch.equal(state["spare.weight"], module.spare.weight)
    assert "no output depends on spare.bias, spare.weight" in caplog.text


def test_a_module_that_does_something_else_is_refused(tmp_path: Path) -> None:
    right = drawn(Convolutions("a b c d e"))
    path = export(right, PICTURE, tmp_path / "m.onnx", False)
    with pytest.raises(Error, match=r"the module answers otherwise|where the model has relu"):
        onnx2nn.weights_for(Convolutions("z y x w v", activation=torch.tanh), path)
    with pytest.raises(Error, match="does not take the model's inputs"):
        onnx2nn.weights_for(Recurrent("r o"), path)


def test_weights_without_a_counterpart_are_named(tmp_path: Path) -> None:
    class Longer(Recurrent):
        def forward(self, x: Tensor) -> Any:
            return self.more(super().forward(x))

    path = export(drawn(Recurrent("r o")), SERIES, tmp_path / "m.onnx", False)
    module = Longer("cell last")
    module.more = nn.Linear(3, 3)
    with pytest.raises(Error, match=r"no counterpart for .*more\.weight"):
        onnx2nn.weights_for(module, path)


def test_ties_that_the_model_does_not_have_are_named(tmp_path: Path) -> None:
    right = drawn(Attention("e n o h q k v", False, tied=False))
    path = export(right, TOKENS, tmp_path / "m.onnx", False)
    with pytest.raises(Error, match=r"ties what is not equal in the model: .*\.weight"):
        onnx2nn.weights_for(Attention("t n o h q k v", False), path)


def test_marks_are_told_from_numbers_that_people_write() -> None:
    module = nn.Linear(100, 90)
    marks = Marks(module)
    marks.put(marked := copy.deepcopy(module))
    assert marked.weight.unique().numel() == 9000
    assert not marks.take(torch.tensor([0.0, 1.0, 0.5, -2.0, 100.0, 2.0**-10]), torch.ones(6))
    values = torch.randn(90, 100)
    turned = marked.weight.t()[40:].flip(0)
    assert marks.take(turned, values.t()[40:].flip(0))
    assert marks.found() == {}
    assert marks.take(marked.weight[:, :40], values[:, :40])
    assert torch.equal(marks.found()["weight"], values)
    assert not marks.unequal
    assert marks.take(marked.weight[:1, :40], values[1:2, :40])
    assert marks.unequal == {"weight"}


def test_the_command_writes_what_the_class_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(6, 3))\n"
    Path("mine_to_fill.py").write_text(source)
    right = drawn(nn.Sequential(nn.Linear(6, 3)))
    export(right, SERIES, tmp_path / "m.onnx", False)
    words = ["transfer", "m.onnx", "mine_to_fill:make"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert conforms(found, json.loads((ROOT / "docs/json.schema.json").read_text())) == []
    state = load_file("make.safetensors")
    assert torch.equal(state["0.weight"], next(right.parameters()))
    assert main(words) == 0  # ours to replace
    Path("make.safetensors").write_bytes(b"somebody's")
    assert main(words) == 3
    assert main([*words[:2], "mine_to_fill:nothing"]) == 2
    assert main([*words, "-o", "x.txt"]) == 2
