"""What a model asks for is in proportion to its file, or refused: memory and processor time have a hard limit here.

The limits are far above what is needed, and far below what anything quadratic would take. The curves themselves are
`bench/growth.py`'s.
"""

import resource
import subprocess
from pathlib import Path

import pytest

from growth.models import BOMBS, GROWING
from programs import PROGRAM as NATIVE

DONE = 0
REFUSED = (1, 3)  # as one that does not convert, or that is not even read to its end
MANY = 8000
WRITING = {"convert": "out.py", "simplify": "out.onnx"}


def run(
    command: str, path: Path, megabytes: int, seconds: int, *words: object
) -> subprocess.CompletedProcess[str]:
    """The native program on `path` and what more it is given, killed where it takes more."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    return subprocess.run(
        [NATIVE, command, path, *map(str, words)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )


@pytest.mark.skipif(not NATIVE.exists(), reason="the native program is not built")
@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, command: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BOMBS[name]().SerializeToString())
    out = path.with_name(WRITING[command])
    done = run(command, path, 768 + 8 * (path.stat().st_size >> 20), 20, out, "-q")
    assert done.returncode in (DONE, *REFUSED), done.stderr
    if done.returncode in REFUSED:
        assert "too-large" in done.stderr
        assert "not enough memory" not in done.stderr


@pytest.mark.skipif(not NATIVE.exists(), reason="the native program is not built")
@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("name", GROWING)
def test_many(name: str, command: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(GROWING[name](MANY).SerializeToString())
    done = run(command, path, 512, 5, path.with_name(WRITING[command]), "-q")
    assert done.returncode in (DONE, *REFUSED), done.stderr
    assert "not enough memory" not in done.stderr


@pytest.mark.skipif(not NATIVE.exists(), reason="the native program is not built")
@pytest.mark.parametrize("name", GROWING)
def test_many_side_by_side(name: str, tmp_path: Path) -> None:
    path, fewer = tmp_path / "model.onnx", tmp_path / "fewer.onnx"
    path.write_bytes(GROWING[name](MANY).SerializeToString())
    fewer.write_bytes(GROWING[name](MANY - 1).SerializeToString())
    done = run("diff", path, 512, 5, fewer)
    assert done.returncode in (DONE, 1), done.stderr
    assert "\n  nodes    " in done.stdout


@pytest.mark.skipif(not NATIVE.exists(), reason="the native program is not built")
@pytest.mark.parametrize("name", ["chain", "symbols", "outputs", "weights_in_modules", "loops"])
def test_many_that_are_counted(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(GROWING[name](MANY).SerializeToString())
    done = run("inspect", path, 512, 10, "--nodes")  # it asks for a conversion as well
    assert done.returncode == DONE, done.stderr
    assert "multiply-adds" in done.stdout
