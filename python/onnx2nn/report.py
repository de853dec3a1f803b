"""What people see: plain text by default, rich tables where something was compared."""

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from onnx2nn.api import Diagnostic, diagnostic_text, grouped

if TYPE_CHECKING:
    from onnx2nn.check.verification import Report

# How long a run may be silent before it shows what it is doing.
_PATIENCE_S = 2.0
_NARROW = 64  # columns
_COLOURS = {"error": "31", "warning": "33", "note": "36"}


def human_bytes(count: float) -> str:
    """A size as people write it, in powers of 1024."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def paint(stream: Any, text: str, code: str) -> str:
    """The text in a colour, on a terminal that wants it."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{code}m{text}\033[0m"


def printable(text: str) -> str:
    """Text from a model without what could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def print_diagnostics(model: str, diagnostics: list[Diagnostic], quiet: bool = False) -> None:
    """Diagnostics on stderr, errors first; `quiet` leaves only the errors."""
    order = {"error": 0, "warning": 1, "note": 2}
    shown = sorted(diagnostics, key=lambda d: order.get(d.get("severity", "error"), 0))
    for group in grouped(shown):
        severity = group[0].get("severity", "error")
        if quiet and severity != "error":
            continue
        head, _, rest = printable(diagnostic_text(model, *group)).partition("\n")
        head = head.replace(
            f"{severity}[", paint(sys.stderr, severity, _COLOURS.get(severity, "31")) + "[", 1
        )
        print(head + ("\n" + rest if rest else ""), file=sys.stderr)


class Stages:
    """Shows the stage that a run is in, once it has taken over two seconds, on a terminal only."""

    def __init__(self, total: int, quiet: bool) -> None:
        self._total = total
        self._done = 0
        self._stage = ""
        self._progress: Any = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        if not quiet and sys.stderr.isatty():
            self._timer = threading.Timer(_PATIENCE_S, self._show)
            self._timer.daemon = True
        self.started = time.perf_counter()

    def __enter__(self) -> "Stages":
        if self._timer:
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._progress:
                self._progress.stop()
                self._progress = None

    def __call__(self, stage: str) -> None:
        """Enter the next stage."""
        with self._lock:
            self._done, self._stage = self._done + 1, stage
            if self._progress:
                self._progress.update(self._task, completed=self._done - 1, description=stage)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        progress = Progress(
            BarColumn(20),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with self._lock:
            if self._timer is None:
                return
            self._progress = progress
            self._task = progress.add_task(
                self._stage, total=self._total, completed=max(0, self._done - 1)
            )
            progress.start()


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.2e}"


def _shape(shape: Any) -> str:
    return "" if shape is None else "[" + ", ".join(map(str, shape)) + "]"


def inputs_text(inputs: list[tuple[str, str, list[int] | None]]) -> str:
    """Names, types and shapes in one line."""
    return ", ".join(f"{n} {d}{_shape(s)}" for n, d, s in inputs)


def print_report(report: "Report", title: str, quiet: bool = False, per_node: bool = False) -> None:
    """What `verify` found, as a table that fits the terminal."""
    out = sys.stdout
    if report.skipped is not None:
        print(f"{paint(out, 'not checked', '33')}: {printable(report.skipped)}")
        return
    if quiet and report.ok:
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, no_color=None if out.isatty() else True)
    compared = per_node and report.nodes
    rows = report.nodes if compared else report.outputs
    if rows:
        table = Table(title=None, show_edge=False, pad_edge=False, box=None, header_style="bold")
        table.add_column("value" if compared else "output", overflow="fold", ratio=None)
        table.add_column("type", overflow="fold")
        # A narrow terminal has room for one number beside the name and the type.
        narrow = console.width < _NARROW
        columns = ["max rel"] if narrow else ["mse", "max abs", "max rel"]
        with_argmax = not narrow and any(c.argmax is not None for c in rows)
        for column in columns + (["argmax"] if with_argmax else []):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("")
        for c in rows:
            cells = [escape(printable(c.name)), escape(f"{c.dtype}{_shape(c.shape)}")]
            numbers = [c.max_rel] if narrow else [c.mse, c.max_abs, c.max_rel]
            cells += [_number(x) for x in numbers]
            if with_argmax:
                cells.append("" if c.argmax is None else f"{c.argmax:.1%}")
            cells.append(
                f"[red]WRONG[/]: {escape(c.reason or '')}"
                if not c.ok
                else "[yellow]random[/]"
                if c.random
                else "[green]ok[/]"
            )
            table.add_row(*cells)
        console.print(table)
    if report.error:
        console.print(f"[red]failed[/]: {escape(printable(report.error))}")
    first = report.first_difference
    if first is not None:
        name = printable(first.node) or "(unnamed)"
        console.print(
            f"[red]first difference[/]: node {first.index}, {escape(name)} "
            f"({escape(printable(first.op_type))}), output {escape(printable(first.output))}"
        )
        for n, d, s in first.inputs:
            console.print(f"    input {escape(printable(n))}: {escape(d + _shape(s))}")
        reason = first.error or (first.comparison.reason if first.comparison else None)
        if reason:
            console.print(f"    {escape(printable(reason))}")
    if not quiet:
        for note in report.notes:
            console.print(f"note: {escape(printable(note))}", style="dim")
    verdict = "[green]right[/]" if report.ok else "[red]WRONG[/]"
    given = escape(printable(inputs_text(report.inputs)))
    console.print(
        f"{escape(title)}: {verdict}, against {report.oracle} "
        f"on {given or 'no inputs'} ({report.seconds:.1f} s)"
    )


def print_simplified(stats: dict[str, Any]) -> None:
    """Operators before and after by type, and what the rules did, where anything changed."""
    before, after = stats.get("op_types_before", {}), stats.get("op_types_after", {})
    changed = [t for t in sorted({*before, *after}) if before.get(t, 0) != after.get(t, 0)]
    rules = dict(stats.get("rules", {}))
    if not changed and not rules:
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, no_color=None if sys.stdout.isatty() else True)
    table = Table(show_edge=False, pad_edge=False, box=None, header_style="bold")
    table.add_column("operator", overflow="fold")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for op_type in changed:
        n, m = before.get(op_type, 0), after.get(op_type, 0)
        table.add_row(escape(printable(op_type)), str(n), str(m))
    if changed:
        console.print(table)
    if rules:
        done = sorted(rules.items(), key=lambda kv: (-int(kv[1]), kv[0]))
        console.print("rules: " + ", ".join(f"{name} {n}" for name, n in done))


def _print_columns(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table without lines, in the terminal's width; the last column folds first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, no_color=None if sys.stdout.isatty() else True)
    table = Table(show_edge=False, pad_edge=False, box=None, header_style="bold")
    for k, title in enumerate(header):
        table.add_column(title, overflow="fold", no_wrap=k == 0 and len(header) == 2)
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(table)


def print_rules(rules: dict[str, str]) -> None:
    """The rules of the simplifier and what they do."""
    _print_columns(("rule", "what it does"), list(rules.items()))


def print_misses(misses: list[tuple[str, str, str]], asked: list[str]) -> None:
    """Nodes that a rule left alone though they look like what it is about, and why."""
    if not misses:
        print(f"{', '.join(map(printable, asked))}: no node was left that looks like it")
        return
    _print_columns(("rule", "node", "why not"), [(str(r), str(n), str(w)) for r, n, w in misses])
