"""Runs a command that compiles and shows how far it is, by the lines that Ninja prints.

    python tools/build_progress.py pip install --verbose .

On a terminal one line that changes, elsewhere a line for each tenth; where the command fails, the end of what it said. The
exit code is the command's.
"""

import collections
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Further in are the lines of CMake's own trials; that it looks again for what is to be compiled compiles nothing.
_STEP = re.compile(r" {0,4}\[(\d+)/(\d+)\] (?!Re-checking globbed directories|Re-running CMake)")
_BAR = 24
_LINES = 60


def line(done: int, total: int, seconds: float) -> str:
    """As in `compiling [######......] 61 of 245, 2 min left`."""
    filled = _BAR * done // total
    text = f"onnx2nn: compiling [{'#' * filled}{'.' * (_BAR - filled)}] {done} of {total}"
    if seconds > 5 and 0 < done < total:
        left = seconds * (total - done) / done
        text += f", {left / 60:.0f} min left" if left >= 90 else f", {left:.0f} s left"
    return text


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Runs it; returns its exit code."""
    began = time.monotonic()
    terminal = sys.stderr.isatty()
    last: collections.deque[str] = collections.deque(maxlen=_LINES)
    tenth = -1
    with subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            last.append(text)
            found = _STEP.match(text)
            if found is None or found[2] == "0":
                continue
            done, total = int(found[1]), int(found[2])
            if terminal:
                width = shutil.get_terminal_size().columns - 1
                shown = line(done, total, time.monotonic() - began)[:width]
                print(f"\r{shown:<{width}}", end="", file=sys.stderr, flush=True)
            elif done * 10 // total != tenth:
                print(line(done, total, time.monotonic() - began), file=sys.stderr, flush=True)
            tenth = done * 10 // total
    if terminal and tenth >= 0:
        print(file=sys.stderr)
    if process.returncode != 0:
        sys.stderr.writelines(last)
    return process.returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
