"""What is shown of a build that compiles."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "tools" / "build_progress.py"
NINJA = """\
[0/2] Re-checking globbed directories...
[1/2] Re-running CMake...
  -- Build files have been written to: build
  [0/4] Re-checking globbed directories...
  [1/4] Building CXX object a.o
  [2/4] Building CXX object b.o
  [4/4] Linking CXX executable it
"""


def shown(text: str, code: int) -> tuple[int, list[str]]:
    """The exit code of a build that says `text`, and the lines that are shown of it."""
    build = [sys.executable, "-c", f"print({text!r}, end=''); raise SystemExit({code})"]
    done = subprocess.run([sys.executable, PROGRAM, *build], capture_output=True, text=True)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_what_compiles_is_counted() -> None:
    code, lines = shown(NINJA, 0)
    assert code == 0
    assert [line.partition("] ")[2] for line in lines] == ["1 of 4", "2 of 4", "4 of 4"]
    assert lines[1] == "onnx2nn: compiling [############............] 2 of 4"


def test_what_failed_is_told() -> None:
    code, lines = shown(NINJA + "a.cpp:1: no\n", 3)
    assert code == 3
    assert lines[-1] == "a.cpp:1: no"
