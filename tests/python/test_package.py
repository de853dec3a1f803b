"""The package's surface: lazy imports, models as arguments, errors."""

import subprocess
import sys
from pathlib import Path

import pytest

import onnx2nn
from onnx2nn._native import output_paths
from onnx2nn.errors import diagnostic_text
from onnx2nn.source import as_source
from stand_in import make_model


def test_import_is_lazy() -> None:
    code = (
        "import sys, onnx2nn, onnx2nn.cli; dir(onnx2nn)\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    path = str(Path(onnx2nn.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=path)


def test_every_public_name_resolves() -> None:
    for name in onnx2nn.__all__:
        assert getattr(onnx2nn, name) is not None
    with pytest.raises(AttributeError):
        onnx2nn.nothing  # noqa: B018


def test_functions_stay_functions_after_their_modules_are_imported() -> None:
    import onnx2nn.backend
    import onnx2nn.check.verification

    assert callable(onnx2nn.load)
    assert callable(onnx2nn.verify)
    assert callable(onnx2nn.inspect)


def test_models_as_arguments(tiny: Path) -> None:
    assert as_source(tiny).data == str(tiny)
    assert as_source(str(tiny)).path == tiny
    assert as_source(tiny.read_bytes()).data == tiny.read_bytes()
    assert isinstance(as_source(make_model()).data, bytes)
    with pytest.raises(onnx2nn.Error, match="does not exist") as e:
        as_source("nowhere.onnx")
    assert e.value.unreadable
    assert e.value.diagnostics[0]["severity"] == "error"
    with pytest.raises(TypeError):
        as_source(3)


def test_output_paths() -> None:
    assert output_paths("m.onnx", "a/x.py") == ("a/x.py", "a/x.safetensors")
    assert output_paths("m.onnx", "x.pth") == ("x.py", "x.pth")
    assert output_paths("m.onnx", "x.pt") == ("x.pt", "x.pt")
    assert output_paths("a/m.onnx", "") == ("m.py", "m.safetensors")
    assert output_paths("m.onnx", "new/") == ("new/m.py", "new/m.safetensors")
    for wrong in ("x.pkl", "x.txt", "x"):
        with pytest.raises(ValueError):
            output_paths("m.onnx", wrong)
        with pytest.raises(onnx2nn.Error) as e:
            onnx2nn.convert(make_model(), wrong)
        assert e.value.usage


def test_a_refused_model_lists_its_diagnostics(core: object) -> None:
    model = make_model()
    model.graph.initializer[2].name = "other"
    with pytest.raises(onnx2nn.Error, match="Magic is not known") as e:
        onnx2nn.convert(model)
    assert not e.value.unreadable
    assert e.value.diagnostics[0]["op_type"] == "Magic"
    assert "hint    onnx2nn.register_op" in diagnostic_text("m.onnx", e.value.diagnostics[0])


def test_a_model_that_cannot_be_read(core: object) -> None:
    with pytest.raises(onnx2nn.Error) as e:
        onnx2nn.load(b"\xff\xff\xff")
    assert e.value.unreadable


def test_register_op_passes_its_source_on(core: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx2nn.custom_ops.known_ops", {})

    def twice(x, scale=2.0):  # type: ignore[no-untyped-def]
        return x * scale

    onnx2nn.register_op("custom", "Twice", twice)
    onnx2nn.load(make_model())
    (op,) = core.options[-1]["custom_ops"]  # type: ignore[attr-defined]
    assert op["name"] == "twice"
    assert op["source"].startswith("def twice(")
    with pytest.raises(ValueError):
        onnx2nn.register_op("custom", "Bad", "x = 1")
