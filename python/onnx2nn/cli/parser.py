"""What was asked for: the native core reads the command line, for this program and its own."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

__all__ = ["Request", "parse"]


@dataclass
class Request:
    """A command and its values, or text to print, or an error.

    `values` has one attribute for each option of the command, named and typed as the table in
    src/cli/options.cpp says.
    """

    command: str | None
    values: SimpleNamespace
    text: str | None  # help or the version
    error: str
    usage: str
    json: bool
    words: list[str]
    model: str | None  # as it was given, where `values.model` is a path that was fetched


def parse(words: Sequence[str]) -> Request:
    """The request that these words, without the program's name, make."""
    from onnx2nn import _native

    columns = shutil.get_terminal_size().columns
    found = _native.parse_command_line([os.fsencode(w) for w in words], columns)
    return Request(
        found["command"],
        SimpleNamespace(**found["values"]),
        found["text"],
        found["error"],
        found["usage"],
        found["json"],
        list(words),
        found["values"].get("model"),
    )
