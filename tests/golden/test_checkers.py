"""Pages are clean under type checkers at their defaults: the goldens, and those of the gallery."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGES = sorted(p.with_suffix(".py") for p in HERE.glob("*.onnx"))
PAGES += sorted((HERE.parents[1] / "docs" / "gallery").glob("*.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies, away from the project's own settings."""
    made = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        (made / page.name).write_text(page.read_text())
    assert len(list(made.iterdir())) == len(PAGES) > 8
    return made


@pytest.mark.slow
def test_mypy(folder: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache"), "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_pyright(folder: Path) -> None:
    """basedpyright brings its own JavaScript; "standard" is what pyright checks by default."""
    settings = folder / "pyrightconfig.json"
    settings.write_text(json.dumps({"typeCheckingMode": "standard"}))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout
