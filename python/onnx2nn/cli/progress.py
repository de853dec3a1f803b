"""What a long run is doing, on a terminal."""

import re
import sys
import threading
from typing import TYPE_CHECKING

from onnx2nn.cli.output import console_on

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Stages"]

# How long a run may be silent before it shows what it is doing.
_PATIENCE_S = 2.0
_REDRAW_S = 0.1
_BAR = 20  # columns


class Stages:
    """Shows the stage that a run is in, once it has taken over two seconds, on a terminal only.

    While a stage has a number of bytes to write, it shows how many are written and the time left.
    Without rich it only names the stages.
    """

    def __init__(self, total: int, quiet: bool) -> None:
        self._total = total
        # How many stages there were, the last, the bytes that it is to write, and those that this
        # process had written before.
        self._now: tuple[int, str, int | None, int] = (0, "", None, 0)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if not quiet and sys.stderr.isatty():
            self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> "Stages":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def __call__(self, stage: str, to_write: int | None = None) -> None:
        """Enter the next stage; to_write: how many bytes it is to write, where that is known."""
        self._now = self._now[0] + 1, stage, to_write, _bytes_written()

    def _show(self) -> None:
        if self._over.wait(_PATIENCE_S):
            return
        console = console_on(sys.stderr)
        if console is None:
            self._name()
        else:
            self._draw(console)

    def _draw(self, console: "Console") -> None:
        from rich import progress as rich

        stage = rich.BarColumn(_BAR), rich.TextColumn("{task.description}", markup=False)
        elapsed = [rich.TimeElapsedColumn()]
        left = [
            rich.DownloadColumn(binary_units=True),
            rich.TimeRemainingColumn(),
            rich.TextColumn("left"),
        ]
        with rich.Progress(
            *stage,
            *elapsed,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # nothing goes there meanwhile
        ) as progress:
            task, shown = progress.add_task("", visible=False), 0
            while not self._over.wait(_REDRAW_S):
                count, name, size, before = self._now
                if shown != count:
                    shown = count
                    progress.columns = *stage, *(left if size else elapsed)
                    progress.reset(task, total=size or self._total, description=name, visible=True)
                done = min(_bytes_written() - before, size) if size else count - 1
                progress.update(task, completed=done, refresh=True)

    def _name(self) -> None:
        shown = 0
        while not self._over.wait(_REDRAW_S):
            count, name, _, _ = self._now
            if shown != count:
                shown = count
                print(f"{name} ...", file=sys.stderr)


def _bytes_written() -> int:
    """Bytes that this process has written so far, by the kernel's count; 0 where it keeps none."""
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            found = re.search(r"^wchar: (\d+)", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
