"""What people see, and what programs read (`--json`).

Nothing is wrapped unless a terminal shows it: paths and names stay whole in pipes and files. Tables
fit a terminal where rich is installed, which is optional.
"""

import json
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.parser import Request
from onnx2nn.errors import Diagnostic, diagnostic_text, grouped, printable
from onnx2nn.hub import HUB, fetch

if TYPE_CHECKING:
    from rich.console import Console

    from onnx2nn.check.verification import Report

__all__ = [
    "console_on",
    "human_bytes",
    "paint",
    "print_answer",
    "print_diagnostics",
    "print_json",
    "print_misses",
    "print_not_checked",
    "print_report",
    "print_rules",
    "print_simplified",
    "print_table",
    "printable",
    "result",
    "verdict",
]

_NARROW = 64  # columns
_COLOURS = {"error": "31", "warning": "33", "note": "36"}
_RED, _GREEN, _YELLOW, _DIM = "31", "32", "33", "2"


# ---- Text ----


def human_bytes(count: float) -> str:
    """A size as people write it, in powers of 1024."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def paint(stream: Any, text: str, code: str) -> str:
    """The text in a colour, on a terminal that wants it."""
    return f"\033[{code}m{text}\033[0m" if _wants_colour(stream) else text


def _wants_colour(stream: Any) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console_on(stream: Any) -> "Console | None":
    """The terminal behind a stream; None where there is none, or no rich."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(
        file=stream,
        force_terminal=True,
        color_system="auto" if _wants_colour(stream) else None,
        highlight=False,
    )


def printable_lines(text: str) -> str:
    """Text that may have several lines; those after the first are indented."""
    return "\n    ".join(map(printable, text.split("\n")))


# ---- For programs ----


def result(request: Request, code: ExitCode, **more: Any) -> dict[str, Any]:
    """The object that --json prints; docs/json.md says what is in it."""
    check = more.get("check") or {}
    return {
        "command": request.command,
        "model": request.model,
        "ok": {ExitCode.DONE: True, ExitCode.NOT_CHECKED: None}.get(code, False),
        "checked": bool(check) and check.get("skipped") is None,
        "exit_code": int(code),
        "error": None,
        "diagnostics": [],
        **more,
    }


def print_json(value: dict[str, Any]) -> None:
    """One object, in ASCII, whatever text a model or a path holds."""
    print(json.dumps(_unicode(value), indent=2, allow_nan=False))


def _unicode(value: Any) -> Any:
    """The value with U+FFFD for the bytes of paths that are no UTF-8."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, dict):
        return {_unicode(k): _unicode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unicode(v) for v in value]
    return value


def print_answer(request: Request) -> ExitCode:
    """Print what the core says to a command that needs nothing of Python's."""
    from onnx2nn import _native

    words = [fetch(w) if w.startswith(HUB) else w for w in request.words]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    code, out, errors = _native.answer([os.fsencode(w) for w in words], width)
    print(out, end="")
    sys.stdout.flush()
    print(errors, end="", file=sys.stderr)
    return ExitCode(code)


def verdict(skipped: str | None, report: "Report | None") -> ExitCode:
    """The exit code that a check comes to."""
    if skipped is not None or report is None:
        return ExitCode.NOT_CHECKED
    return ExitCode.DONE if report.ok else ExitCode.WRONG


# ---- For people ----


def print_diagnostics(model: str, diagnostics: list[Diagnostic], quiet: bool = False) -> None:
    """Diagnostics on stderr, errors first; `quiet` leaves only the errors."""
    order = {"error": 0, "warning": 1, "note": 2}
    shown = sorted(diagnostics, key=lambda d: order.get(d.get("severity", "error"), 0))
    for group in grouped(shown):
        severity = group[0].get("severity", "error")
        if quiet and severity != "error":
            continue
        head, _, rest = diagnostic_text(model, *group).partition("\n")
        head = head.replace(
            f"{severity}[", paint(sys.stderr, severity, _COLOURS.get(severity, _RED)) + "[", 1
        )
        print(head + ("\n" + rest if rest else ""), file=sys.stderr)


def print_not_checked(
    why: str, request: Request, tried: bool, died: bool, asked: bool = True
) -> None:
    """That nothing was compared, why, and, where it was asked for, what to do.

    tried: the oracle was there, and other inputs may be what it takes; or it `died` over these.
    """
    if not asked:
        if not request.values.quiet:
            print(f"not checked: {printable_lines(why)}")
        return
    print(f"{paint(sys.stdout, 'NOT CHECKED', _YELLOW)}: {printable_lines(why)}")
    hints = []
    if died:
        hints.append("allow it more (--oracle-timeout S, --oracle-memory SIZE)")
    elif tried:
        hints.append(
            "give inputs that the model takes (--input FILE, --test-input-shape NAME:DIMS)"
        )
    if request.command != "verify":
        hints.append("do without a check: --no-check")
    if hints:
        print(f"    {', or '.join(hints)}")


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.2e}"


def _shape(shape: Any) -> str:
    return "" if shape is None else "[" + ", ".join(map(str, shape)) + "]"


def inputs_text(inputs: list[tuple[str, str, list[int] | None]]) -> str:
    """Names, types and shapes in one line."""
    return ", ".join(f"{n} {d}{_shape(s)}" for n, d, s in inputs)


def print_report(report: "Report", title: str, quiet: bool = False, per_node: bool = False) -> None:
    """What `verify` found."""
    if quiet and report.ok:
        return
    out = sys.stdout
    compared = per_node and report.nodes
    rows = report.nodes if compared else report.outputs
    if rows:
        # A narrow terminal has room for one number beside the name and the type.
        narrow = out.isatty() and shutil.get_terminal_size().columns < _NARROW
        numbers = ["max rel"] if narrow else ["mse", "max abs", "max rel"]
        with_argmax = not narrow and any(c.argmax is not None for c in rows)
        header = ["value" if compared else "output", "type", *numbers]
        header += ["argmax", ""] if with_argmax else [""]
        table = []
        for c in rows:
            found = [c.max_rel] if narrow else [c.mse, c.max_abs, c.max_rel]
            row = [c.name, f"{c.dtype}{_shape(c.shape)}", *map(_number, found)]
            if with_argmax:
                row.append("" if c.argmax is None else f"{c.argmax:.1%}")
            right = "random" if c.random else "rounding" if c.rounding else "ok"
            row.append(right if c.ok else f"WRONG: {c.reason}")
            table.append(row)
        print_table(header, table, right=range(2, len(header) - 1))
    if report.error:
        print(f"{paint(out, 'failed', _RED)}: {printable_lines(report.error)}")
    first = report.first_difference
    if first is not None:
        print(
            f"{paint(out, 'first difference', _RED)}: node {first.index}, "
            f"{printable(first.node) or '(unnamed)'} ({printable(first.op_type)}), "
            f"output {printable(first.output)}"
        )
        for n, d, s in first.inputs:
            print(f"    input {printable(n)}: {d}{_shape(s)}")
        reason = first.error or (first.comparison.reason if first.comparison else None)
        if reason:
            print(f"    {printable_lines(reason)}")
    if not quiet:
        for note in report.notes:
            print(paint(out, f"note: {printable_lines(note)}", _DIM))
    word = paint(out, "right", _GREEN) if report.ok else paint(out, "WRONG", _RED)
    given = printable(inputs_text(report.inputs))
    print(
        f"{printable(title)}: {word}, against {report.oracle} "
        f"on {given or 'no inputs'} ({report.seconds:.1f} s)"
    )


def print_simplified(stats: dict[str, Any]) -> None:
    """Operators before and after by type, and what the rules did, where anything changed."""
    before, after = stats.get("op_types_before", {}), stats.get("op_types_after", {})
    changed = [t for t in sorted({*before, *after}) if before.get(t, 0) != after.get(t, 0)]
    if changed:
        rows = [[t, str(before.get(t, 0)), str(after.get(t, 0))] for t in changed]
        print_table(["operator", "before", "after"], rows, right=range(1, 3))
    rules = sorted(stats.get("rules", {}).items(), key=lambda kv: (-int(kv[1]), kv[0]))
    if rules:
        print("rules: " + ", ".join(f"{name} {n}" for name, n in rules))


def print_rules(rules: dict[str, str]) -> None:
    """The rules of the simplifier and what they do."""
    print_table(["rule", "what it does"], [list(r) for r in rules.items()])


def print_misses(misses: list[tuple[str, str, str]], asked: list[str]) -> None:
    """Nodes that a rule left alone though they look like what it is about, and why."""
    if not misses:
        print(f"{', '.join(map(printable, asked))}: no node was left that looks like it")
        return
    print_table(["rule", "node", "why not"], [list(map(str, m)) for m in misses])


# Styles for the first word of a table's last column.
_VERDICTS = {
    "WRONG": "red",
    "random": "yellow",
    "rounding": "green",
    "ok": "green",
    "right": "green",
    "refused": "red",
    "unreadable": "red",
    "failed": "red",
    "NOT CHECKED": "yellow",
}


def print_table(header: list[str], rows: list[list[str]], right: range = range(0)) -> None:
    """Columns without lines, fitted to the terminal if there is one. right: those of numbers."""
    rows = [[printable(c) for c in row] for row in rows]
    console = console_on(sys.stdout)
    if console is None:
        widths = [max(map(len, column)) for column in zip(header, *rows)]
        for row in [header, *rows]:
            sides = [">" if k in right else "<" for k in range(len(header))]
            cells = [f"{c:{side}{w}}" for c, side, w in zip(row, sides, widths)]
            print("  ".join(cells).rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for k, title in enumerate(header):
        table.add_column(
            Text(title, "bold"),
            justify="right" if k in right else "left",
            no_wrap=k in right,
            overflow="fold",
        )
    for *cells, last in rows:
        word, _, _ = last.partition(":")
        verdict = Text(last)
        verdict.stylize(_VERDICTS.get(word, ""), 0, len(word))
        table.add_row(*map(Text, cells), verdict)
    console.print(table)
