"""The command line: exit codes, files, JSON, the original tool's flags."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from onnx2nn.cli import main


@pytest.fixture(autouse=True)
def _in_folder(core: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def run_json(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    code, out, _ = run(capsys, *args, "--json")
    result: dict[str, Any] = json.loads(out)
    assert result["exit_code"] == code
    return result


def test_a_bare_model_is_converted_and_checked(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, tiny)
    assert (code, err) == (0, "")
    assert Path("tiny.py").exists()
    assert Path("tiny.safetensors").exists()
    assert "ONNX Runtime" in out
    assert "right" in out
    assert "from tiny import load" in out
    assert "net(torch.randn(1, 4))" in out
    assert "\033" not in out


def test_no_verify_says_so(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "convert", tiny, "-o", "a.py", "--no-verify")
    assert code == 0
    assert "not checked" in out
    assert run(capsys, "convert", tiny, "-o", "a.py", "--no-check", "-q") == (0, "", "")


def test_json(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, tiny, "--input_shape", "x:6,4")
    assert result["check"]["ok"] is True
    assert result["check"]["inputs"][0]["shape"] == [6, 4]
    assert result["files"] == ["tiny.py", "tiny.safetensors"]
    assert run_json(capsys, "inspect", tiny)["op_types"]["Gemm"] == 2
    assert "does not exist" in run_json(capsys, "none.onnx")["error"]


def test_the_original_flags(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = run(
        capsys,
        *("--onnx_path", tiny, "--pytorch_path", "p.pth", "--simplify_path", "s.onnx"),
        *("--input_shape", "x:2,4"),
    )
    assert code == 0
    assert all(Path(f).exists() for f in ("p.pth", "p.py", "s.onnx"))
    assert run(capsys, "--onnx_path", tiny, "--simplify_path", "t.onnx", "-q")[0] == 0
    assert Path("t.onnx").exists()
    assert not Path("tiny.py").exists()


def test_a_shape_without_a_name(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "verify", tiny, "--input_shape", "3,4")
    assert result["check"]["inputs"][0]["shape"] == [3, 4]


def test_verify_names_the_first_wrong_node(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, tiny)
    weights = load_file("tiny.safetensors")
    weights["fc1.bias"][0] += 5
    save_file(weights, "tiny.safetensors")
    code, out, _ = run(capsys, "verify", tiny, "tiny.py")
    assert code == 1
    assert "first difference" in out
    assert "gemm1" in out
    result = run_json(capsys, "verify", tiny, "tiny.py")
    assert result["check"]["first_difference"]["node"] == "gemm1"


def test_npz(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("in.npz", x=np.ones((7, 4), np.float32))
    assert run_json(capsys, tiny, "--input", "in.npz")["check"]["inputs"][0]["shape"] == [7, 4]
    assert run(capsys, tiny, "--input", "none.npz")[0] == 3


def test_exit_codes(tiny: Path, capsys: pytest.CaptureFixture[str], core: Any) -> None:
    fault = {"severity": "error", "code": "internal", "message": "report it"}
    core.convert = lambda *_: SimpleNamespace(ok=False, readable=True, diagnostics=[fault])
    assert run(capsys, tiny)[0] == 70

    def broken(*_: Any) -> None:
        raise RuntimeError("a promise was broken")

    core.convert = broken
    code, _, err = run(capsys, tiny)
    assert code == 70
    assert "please report it" in err


def test_an_unknown_operator_is_shown_without_control_characters(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    model = onnx.load(str(tiny))
    model.graph.initializer[2].name = "other"
    onnx.save(model, "unknown.onnx")
    code, _, err = run(capsys, "unknown.onnx")
    assert code == 1
    assert "error[unknown-operator]" in err
    assert "custom::Magic" in err
    assert "\033" not in err
    assert not list(Path().glob("unknown.p*"))


def test_a_wrong_simplification_writes_nothing(
    tiny: Path, capsys: pytest.CaptureFixture[str], core: Any
) -> None:
    assert run(capsys, "simplify", tiny, "s.onnx")[0] == 0
    before = Path("s.onnx").read_bytes()
    core.break_simplify = True
    code, out, _ = run(capsys, "simplify", tiny, "s.onnx")
    assert code == 1
    assert "WRONG" in out
    assert Path("s.onnx").read_bytes() == before
    assert sorted(p.name for p in Path().iterdir()) == ["s.onnx", "tiny.onnx"]
    assert run(capsys, "simplify", tiny, "t.onnx", "--no-check")[0] == 0


def test_a_narrow_terminal_shows_one_number(
    core: object, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width, shown in ((80, True), (50, False)):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["verify", str(tiny)]) == 0
        out = capsys.readouterr().out
        assert "max rel" in out
        assert ("max abs" in out) == shown
