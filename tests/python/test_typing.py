"""What a type checker says of the public functions, and what they say of wrong values."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import onnx2nn
from onnx2nn import _native
from stand_in import make_model

ROOT = Path(__file__).parents[2]

SNIPPET = """\
import onnx2nn
from pathlib import Path

net = onnx2nn.load("m.onnx", device="meta")
net = onnx2nn.load(Path("m.onnx"), input_shapes={"x": [1, None, "seq", -1]})
net = onnx2nn.load(b"", simplify=False)
done: onnx2nn.Converted = onnx2nn.convert("m.onnx", "net.py", force=True)
report: onnx2nn.Report = onnx2nn.verify("m.onnx", net, nodes="always", atol=1e-3)
model, ok = onnx2nn.simplify("m.onnx", check_n=1)
onnx2nn.load(42)  # wrong
onnx2nn.load("m.onnx", simplfy=True)  # wrong
onnx2nn.load("m.onnx", simplify="yes")  # wrong
onnx2nn.convert("m.onnx", 3)  # wrong
onnx2nn.convert("m.onnx", options={})  # wrong
onnx2nn.verify("m.onnx", nodes="sometimes")  # wrong
onnx2nn.verify(42)  # wrong
onnx2nn.simplify(42)  # wrong
onnx2nn.inspect("m.onnx", fuse=True)  # wrong
"""


@pytest.mark.slow
def test_a_type_checker_finds_wrong_calls(tmp_path: Path) -> None:
    path = tmp_path / "calls.py"
    path.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--no-error-summary", str(path)], capture_output=True, text=True, cwd=ROOT
    )
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    wrong = {k for k, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout


def test_public_functions_name_their_options() -> None:
    for name in ("convert", "inspect", "load", "simplify", "verify", "weights_for"):
        for p in inspect.signature(getattr(onnx2nn, name)).parameters.values():
            assert p.kind is not p.VAR_KEYWORD, name
            assert p.annotation is not p.empty, (name, p.name)


def test_modules_say_what_is_public() -> None:
    for path in (ROOT / "python/onnx2nn").rglob("*.py"):
        if path.name == "__main__.py" or "runtime" in path.parts:
            continue
        assert "\n__all__ = [" in path.read_text() or path.stat().st_size < 200, path


@pytest.mark.parametrize(
    "options, said",
    [
        ({"simplify": "yes"}, 'simplify: "yes" is not a boolean'),
        ({"fuse": 1}, "fuse: 1 is not a boolean"),
        ({"class_name": 3}, "class_name: 3 is not a text"),
        ({"input_shapes": [1, 2]}, "input_shapes: .* is not a dict"),
        ({"data_roots": "folder"}, "data_roots: 'folder' is one folder"),
        ({"data_roots": [3]}, "3|int"),
        ({"dtype": torch.int8}, "dtype: torch.int8 is not a floating"),
        ({"dtype": "float16"}, "dtype: 'float16' is not a floating"),
        ({"simplfy": True}, "simplfy"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        onnx2nn.load(make_model(), **options)


def test_the_native_functions_take_no_odd_paths(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_model().SerializeToString()
    for odd in ({}, 3, [], object()):
        with pytest.raises(TypeError):
            _native.simplify(data, odd, {})  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _native.convert(odd, {})  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _native.convert(data, {}).write(odd, "x.safetensors")  # type: ignore[arg-type]
    for key, value in (("stop_after", -1), ("opset", "new"), ("only", "fuse-pad"), ("force", 1)):
        with pytest.raises(TypeError, match=key):
            _native.simplify(data, None, {key: value})
    assert not list(tmp_path.iterdir())


def test_results_are_shown_in_one_line(tmp_path: Path) -> None:
    done = onnx2nn.convert(make_model(), tmp_path / "net.py")
    assert isinstance(done, onnx2nn.Converted)
    assert repr(done).startswith("<Converted ")
    assert "net.py" in repr(done)
    right = onnx2nn.verify(make_model())
    assert isinstance(right, onnx2nn.Report)
    assert repr(right) == "<Report: right, 1 outputs, against ONNX Runtime>" or right.ok
    skipped = onnx2nn.verify(make_model(), input_shapes={"x": [1, 9]})
    assert skipped.ok is None
    assert not skipped
    assert repr(skipped).startswith("<Report: NOT CHECKED, ")
    for shown in (repr(done), repr(right), repr(skipped)):
        assert "\n" not in shown
