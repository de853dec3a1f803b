"""What a run says about itself: `--verbose`, ONNX2NN_LOG, the logger, `--version --verbose`."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import onnx2nn
from onnx2nn.cli import main
from stand_in import make_model


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONNX2NN_LOG", raising=False)
    make_model(Path("m.onnx"))


def lines(text: str) -> list[str]:
    """Steps that were shown, without the time of day."""
    return re.findall(r"^\d\d:\d\d:\d\d\.\d{3} (.*)$", text, re.MULTILINE)


def test_verbose_shows_steps_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "m.onnx", "--verbose"]) == 0
    shown = lines(capsys.readouterr().err)
    for what in ("ask for the right answer", "convert m.onnx", "check node by node"):
        assert what in shown
        assert any(re.fullmatch(rf"{what}: \d+\.\d{{3}} s", line) for line in shown), what


def test_the_environment_asks_for_it_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX2NN_LOG", "debug")
    assert main(["m.onnx", "--no-check", "-q"]) == 0
    shown = lines(capsys.readouterr().err)
    assert any(re.fullmatch(r"write m\.py: .* s", line) for line in shown)
    monkeypatch.setenv("ONNX2NN_LOG", "info")
    assert main(["m.onnx", "--no-check", "-q"]) == 0
    assert not lines(capsys.readouterr().err)
    monkeypatch.setenv("ONNX2NN_LOG", "nonsense")
    assert main(["m.onnx", "--no-check", "-q"]) == 0


def test_the_command_line_leaves_no_handler() -> None:
    logger = logging.getLogger("onnx2nn")
    before = list(logger.handlers), logger.level
    main(["m.onnx", "--no-check", "-q", "-v"])
    assert (list(logger.handlers), logger.level) == before


def test_the_library_logs_and_installs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "onnx2nn"):
        onnx2nn.convert("m.onnx", "net.py")
    said = [r.getMessage() for r in caplog.records if r.name == "onnx2nn"]
    assert "convert m.onnx" in said
    assert not logging.getLogger("onnx2nn").handlers


def test_names_of_a_model_are_printable(caplog: pytest.LogCaptureFixture) -> None:
    Path("m.onnx").rename("a\n\x1b[31mb.onnx")
    with caplog.at_level(logging.DEBUG, "onnx2nn"):
        onnx2nn.inspect("a\n\x1b[31mb.onnx")
    assert all("\n" not in r.getMessage() and "\x1b" not in r.getMessage() for r in caplog.records)


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"onnx2nn {onnx2nn.__version__}\n"
    assert main(["--version", "--verbose"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"onnx2nn {onnx2nn.__version__}"
    named = dict(line.split(maxsplit=1) for line in rest)
    assert set(named) == {
        *("core", "python", "torch", "onnxruntime", "onnx", "numpy", "safetensors"),
        *("program", "system", "processor"),
    }


def test_versions_need_no_package() -> None:
    """As where torch is missing: nothing is found in the folders of packages."""
    code = (
        "import sys; from importlib import metadata; from onnx2nn.cli import main\n"
        "def version(name): raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = version; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "sys.exit(main(['--version', '--verbose']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(r"^torch +not installed$", done.stdout, re.MULTILINE)
