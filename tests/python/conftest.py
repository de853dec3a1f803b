"""Fixtures: the programs, the tiny model in files, and the native core replaced by a stand-in."""

from pathlib import Path

import pytest

from onnx2nn.cli import main
from programs import Run, native
from stand_in import FakeNative, make_model


@pytest.fixture
def python(capfd: pytest.CaptureFixture[str]) -> Run:
    """The Python program, in this process."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(w) for w in words])
        return code, *capfd.readouterr()

    return run


@pytest.fixture(params=["python", "native"])
def run(request: pytest.FixtureRequest) -> Run:
    """Each program in turn."""
    found: Run = request.getfixturevalue("python") if request.param == "python" else native
    return found


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> FakeNative:
    """The native core replaced by one that knows the tiny model."""
    fake = FakeNative()
    monkeypatch.setattr("onnx2nn.core.native", lambda: fake)
    return fake


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The tiny model in a file, weights inside."""
    path = tmp_path / "tiny.onnx"
    make_model(path)
    return path


@pytest.fixture
def tiny_external(tmp_path: Path) -> Path:
    """The tiny model with its weights in a second file."""
    path = tmp_path / "tiny.onnx"
    make_model(path, external=True)
    return path
