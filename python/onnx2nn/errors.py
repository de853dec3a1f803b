"""Errors, and the diagnostics that they carry, as text."""

import re
from typing import Any, TypeAlias

__all__ = [
    "Diagnostic",
    "Error",
    "counted",
    "described",
    "diagnostic",
    "diagnostic_text",
    "first_line",
    "grouped",
    "in_order",
    "printable",
]

Diagnostic: TypeAlias = dict[str, Any]
# How many nodes are named that one and the same thing is wrong with.
_SHOWN_NODES = 5


class Error(Exception):
    """A model that cannot be read, converted or checked; `diagnostics` says why, item by item.

    Each diagnostic is a dict with `severity`, `code`, `message`, `node`, `op_type`, `domain`,
    `opset` and `hint`; those that do not apply are empty. `unreadable` tells a file that is
    not a sound ONNX model, or cannot be read or written, from one that cannot be converted.
    `usage` tells that an option does not fit.
    """

    def __init__(
        self,
        message: str,
        diagnostics: list[Diagnostic] | None = None,
        unreadable: bool = False,
        usage: bool = False,
    ) -> None:
        super().__init__(message)
        self.diagnostics = diagnostics or []
        self.unreadable = unreadable
        self.usage = usage


def first_line(error: BaseException) -> str:
    """An exception's first line, short enough to print."""
    text = str(error).strip().split("\n")[0]
    return text[:300] or type(error).__name__


def described(error: BaseException) -> str:
    """An exception's type and first line."""
    return f"{type(error).__name__}: {first_line(error)}"


def diagnostic(code: str, message: str) -> Diagnostic:
    """An error that is about no node."""
    return {
        "severity": "error",
        "code": code,
        "message": message,
        "node": "",
        "op_type": "",
        "domain": "",
        "opset": 0,
        "hint": "",
    }


def grouped(diagnostics: list[Diagnostic]) -> list[list[Diagnostic]]:
    """Diagnostics that say the same of several nodes together, in order of their first."""
    groups: dict[tuple[Any, ...], list[Diagnostic]] = {}
    for d in diagnostics:
        said = tuple(
            d.get(k) for k in ("severity", "code", "message", "op_type", "domain", "opset")
        )
        groups.setdefault(said, []).append(d)
    return list(groups.values())


def printable(text: str) -> str:
    """One line without anything that could steer a terminal: the core's rule, for both programs."""
    from onnx2nn import _native

    try:
        data = text.encode("utf-8", "surrogateescape")  # what a file's name may hold
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return _native.printable(data)


# What turns the direction in which the characters around it are shown.
_TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def in_order(text: str) -> str:
    """Text for a page, whose characters are shown in the order that they have."""
    return _TURNS.sub(lambda turn: f"\\u{ord(turn[0]):04x}", text)


def counted(count: int, thing: str) -> str:
    """So many things: "1 node" or "2,000 nodes"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def diagnostic_text(model: str, *same: Diagnostic) -> str:
    """One diagnostic as people read it: what is wrong, where, and what to do.

    `same`: those that say the same, of several nodes. What comes from the model is escaped.
    """
    d = same[0]
    message, *more = map(printable, str(d.get("message", "")).split("\n"))
    lines = [f"{printable(model)}: {d.get('severity', 'error')}[{d.get('code', '')}]: {message}"]
    lines += [f"    {line}" for line in more]
    if d.get("node") or d.get("op_type"):
        op_type = printable(f"{d.get('domain') or 'ai.onnx'}::{d['op_type']}")
        opset = f", opset {d['opset']}" if d.get("opset") else ""
        names = [printable(str(x.get("node") or "(unnamed)")) for x in same[:_SHOWN_NODES]]
        lines.append(f"  node    {names[0]}   ({op_type}{opset})")
        lines += [f"          {name}" for name in names[1:]]
        if len(same) > _SHOWN_NODES:
            lines.append(f"          and {len(same) - _SHOWN_NODES} more")
    if d.get("inputs") and len(same) == 1:
        first, *rest = map(printable, str(d["inputs"]).split("\n"))
        lines += [f"  inputs  {first}", *[f"          {line}" for line in rest]]
    if d.get("hint"):
        lines.append(f"  hint    {printable(str(d['hint']))}")
    return "\n".join(lines)
