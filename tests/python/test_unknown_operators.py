"""Operators that the converter does not know: the list, the stubs, and functions of one's own."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import parser

import onnx2nn
from onnx2nn.cli import main

# Unknown operators in a row, beside known ones, and in the body of a node that cannot be reached.
MODEL = """
<ir_version: 9, opset_import: ["" : 18, "my" : 1, "other" : 2]>
graph (float[N, 4] x) => (float[N, 4] y, float[N, 4] z)
{
  a = my.First <scale: float = 3.0, mode: string = "up", sizes: ints = [1, 2]> (x)
  b, , d = my.Second <outputs: int = 7> (a, , x)
  e = Add (b, d)
  s = ReduceMax <keepdims = 0> (e)
  flag = Cast <to = 9> (s)
  y = If (flag) <
    then_branch = yes () => (float[N, 4] t) { t = other.Inner (e) },
    else_branch = no () => (float[N, 4] u) { u = Relu (e) }
  >
  z = Sigmoid (x)
}
"""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    monkeypatch.setattr("onnx2nn.custom_ops.known_ops", {})
    return parser.parse_model(MODEL)


def test_all_are_listed_at_once(model: onnx.ModelProto) -> None:
    with pytest.raises(onnx2nn.Error) as e:
        onnx2nn.convert(model)
    found = [(d["code"], d["op_type"]) for d in e.value.diagnostics]
    assert found == [("unsupported-operator", t) for t in ("First", "Second", "Inner")]
    assert "register_op" in e.value.diagnostics[0]["hint"]


def test_a_stub_raises_and_the_rest_runs(
    model: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    target = tmp_path / "with_stubs.py"
    assert main([str(tmp_path / "m.onnx"), "--allow-unknown", "-o", str(target)]) == 4
    out, err = capsys.readouterr()
    assert "the source holds stubs for unknown operators" in out + err
    assert all(name in err for name in ("my::First", "my::Second", "other::Inner"))
    source = target.read_text()
    assert '"my::First", x, outputs=1, scale=3.0, mode="up", sizes=[1, 2]' in source
    assert '"my::Second", a, None, x, outputs=3' in source

    monkeypatch.syspath_prepend(str(tmp_path))
    module = import_module("with_stubs")
    monkeypatch.delitem(sys.modules, "with_stubs")
    x = torch.randn(3, 4)
    with pytest.raises(NotImplementedError, match="my::First"):
        module.load()(x)

    def mine(name: str, /, *values: Any, outputs: int, **attributes: Any) -> Any:
        if name == "my::Second":
            return values[0], None, values[2]
        return values[0] * attributes.get("scale", -1.0)

    monkeypatch.setattr(module, "unknown_operator", mine)
    y, z = module.load()(x)
    total = 4 * x
    torch.testing.assert_close(y, -total if total.max() != 0 else F.relu(total))
    torch.testing.assert_close(z, torch.sigmoid(x))


def first(x, scale, mode, sizes):  # type: ignore[no-untyped-def]
    assert mode == "up"
    return x * scale + sum(sizes)


def second(a, b, c, outputs):  # type: ignore[no-untyped-def]
    assert b is None
    return a + outputs, None, c


def inner(x):  # type: ignore[no-untyped-def]
    return F.softmax(x, -1) * math.pi  # type: ignore[name-defined]  # noqa: F821


def test_functions_of_ones_own(model: onnx.ModelProto) -> None:
    onnx2nn.register_op("my", "First", first)
    onnx2nn.register_op("my", "Second", second)
    onnx2nn.register_op("other", "Inner", inner)
    x = torch.randn(3, 4)
    for simplify in (True, False):
        y, z = onnx2nn.load(model, simplify=simplify)(x)
        total = x * 3 + 3 + 7 + x
        torch.testing.assert_close(y, torch.softmax(total, -1) * torch.pi)
        torch.testing.assert_close(z, torch.sigmoid(x))


def test_what_is_not_supplied_is_still_listed(model: onnx.ModelProto) -> None:
    onnx2nn.register_op("my", "Second", second)
    with pytest.raises(onnx2nn.Error) as e:
        onnx2nn.convert(model)
    assert [d["op_type"] for d in e.value.diagnostics] == ["First", "Inner"]


@pytest.mark.parametrize("name", ["second", "max_pool", "torch", "Model"])
def test_each_function_has_a_name_of_its_own(model: onnx.ModelProto, name: str) -> None:
    """Two under one name would both be the later one."""
    onnx2nn.register_op("my", "First", first)
    onnx2nn.register_op("my", "Second", second)
    onnx2nn.register_op("other", "Inner", f"def {name}(x):\n    return x\n")
    with pytest.raises(onnx2nn.Error, match=f'other::Inner is called "{name}"'):
        onnx2nn.convert(model)


def test_one_function_for_two_operators(model: onnx.ModelProto) -> None:
    def twice(x, *_, **attributes):  # type: ignore[no-untyped-def]
        return (x * 2, None, x) if "outputs" in attributes else x * 2

    for domain, op_type in (("my", "First"), ("my", "Second"), ("other", "Inner")):
        onnx2nn.register_op(domain, op_type, twice)
    converted = onnx2nn.convert(model)
    assert converted.source.count("def twice(") == 1
    y, _ = onnx2nn.load(model)(torch.ones(1, 4))
    assert y.tolist() == [[12.0] * 4]


def test_a_registered_function_takes_the_place_of_a_known_operator(
    model: onnx.ModelProto,
) -> None:
    onnx2nn.register_op("", "Sigmoid", "def halves(x):\n    return x / 2\n")
    converted = onnx2nn.convert(model, allow_unknown=True)
    assert "halves(x)" in converted.source
