"""What a long run is doing, on a terminal."""

import os
import re
import sys
import threading
import time
from types import TracebackType

from onnx2nn.cli.output import human_bytes

__all__ = ["Stages"]

# How long a run may be silent before it shows what it is doing.
_PATIENCE_S = 2.0
_REDRAW_S = 0.25
_BAR = 20  # columns


class Stages:
    """Shows the stage that a run is in, once it has taken over two seconds, on a terminal only.

    While a stage has a number of bytes to write, it shows how many are written and the time left.
    """

    def __init__(self, total: int, quiet: bool) -> None:
        self._total = total
        self._done = 0
        self._stage = ""
        self._bytes: int | None = None  # that this stage is to write
        self._written = 0  # by this process, when the stage began
        self._began = self._started = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if not quiet and sys.stderr.isatty():
            self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> "Stages":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def __call__(self, stage: str, to_write: int | None = None) -> None:
        """Enter the next stage; to_write: how many bytes it is to write, where that is known."""
        self._began, self._written = time.monotonic(), _bytes_written()
        self._done, self._stage, self._bytes = self._done + 1, stage, to_write

    def _draw(self) -> None:
        if self._over.wait(_PATIENCE_S):
            return
        while not self._over.wait(_REDRAW_S):
            sys.stderr.write("\r\033[K" + self.line()[: _columns() - 1])
            sys.stderr.flush()
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()

    def line(self) -> str:
        """How far the run is: a bar, the stage, bytes and seconds."""
        now = time.monotonic()
        if not self._bytes:
            return (
                f"{_bar((self._done - 1) / self._total)} {self._stage}, {now - self._started:.0f} s"
            )
        written = min(_bytes_written() - self._written, self._bytes)
        line = (
            f"{_bar(written / self._bytes)} {self._stage}, "
            f"{human_bytes(written)} of {human_bytes(self._bytes)}"
        )
        if written > 0:
            line += f", {(now - self._began) * (self._bytes - written) / written:.0f} s left"
        return line


def _bar(share: float) -> str:
    full = int(_BAR * max(0.0, min(1.0, share)))
    return "[" + "#" * full + "-" * (_BAR - full) + "]"


def _bytes_written() -> int:
    """Bytes that this process has written so far, by the kernel's count; 0 where it keeps none."""
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            found = re.search(r"^wchar: (\d+)", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _columns() -> int:
    return os.get_terminal_size(sys.stderr.fileno()).columns
