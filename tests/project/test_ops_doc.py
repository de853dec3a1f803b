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
