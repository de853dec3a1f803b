"""The operator table, and the page that is made from it."""

import subprocess
import sys
from pathlib import Path

import pytest

from onnx2nn import _native

ROOT = Path(__file__).resolve().parents[2]


def test_page_is_current() -> None:
    tool = ROOT / "tools" / "gen_ops_doc.py"
    result = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


SOURCE = """
def widen(x, by: list[int]):
    return x.expand(by)

class Model(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("b", torch.empty(2))

    def forward(self, x, i):
        if i > 0:
            x = F.relu(self.conv(x)) + self.b
        n = x.shape[0] * 2
        return widen(x[i].reshape(n, -1), i.tolist())
"""


def test_names_of_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from op_facts import names_in

    calls = {"nn.Conv2d", "F.relu", "+", ">", "widen", "[]", ".reshape"}
    assert names_in(SOURCE, nested=False) == calls
    assert names_in(SOURCE, nested=True) == {"if", "widen"}
    kept = SOURCE[: SOURCE.index("        if")] + "        return x"
    assert names_in(kept.replace("nn.Conv2d", "int"), nested=False) == {"a buffer"}


def test_no_operator_twice() -> None:
    names = [(op["domain"], op["type"]) for op in _native.op_table()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("op", _native.op_table(), ids=lambda op: f"{op['domain']}.{op['type']}")
def test_row_is_whole(op: dict) -> None:
    assert op["infers"]
    assert op["lowers"]
    opsets = op["changed_at"]
    assert opsets, "where did it appear?"
    assert opsets == sorted(set(opsets))
    assert opsets[0] >= 1
    assert op["domain"] != "ai.onnx", 'the default domain is ""'
