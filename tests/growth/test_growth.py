"""What a model asks for is in proportion to its file, or refused: memory and processor time have a hard limit here.

The limits are far above what is needed, and far below what anything quadratic would take. The curves themselves are
`bench/growth.py`'s.
"""

import resource
import subprocess
from pathlib import Path

import pytest

from growth.models import BOMBS, GROWING

NATIVE = Path(__file__).parents[2] / "build/ci/bin/onnx2nn"
DONE = 0
REFUSED = (1, 3)  # as one that does not convert, or that is not even read to its end
MANY = 8000


def run(command: str, path: Path, megabytes: int, seconds: int) -> subprocess.CompletedProcess[str]:
    """The native program on `path`, killed where it takes more."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    out = path.with_name("out.py" if command == "convert" else "out.onnx")
    return subprocess.run(
        [NATIVE, command, path, out, "-q"],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )


@pytest.mark.skipif(not NATIVE.exists(), reason="the native program is not built")
@pytest.mark.parametrize("command", ["convert", "simplify"])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, command: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BOMBS[name]().SerializeToString())
    done = run(command, path, megabytes=768 + 8 * (path.stat().st_size >> 20), seconds=20)
    assert done.returncode in (DONE, *REFUSED), done.stderr
    if done.returncode in REFUSED:
        assert "too-large" in done.stderr
        assert "not enough memory" not in done.stderr


@pytest.mark.skipif(not NATIVE.exists(), reason="the native program is not built")
@pytest.mark.parametrize("command", ["convert", "simplify"])
@pytest.mark.parametrize("name", GROWING)
def test_many(name: str, command: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(GROWING[name](MANY).SerializeToString())
    done = run(command, path, megabytes=512, seconds=5)
    assert done.returncode in (DONE, *REFUSED), done.stderr
    assert "not enough memory" not in done.stderr
