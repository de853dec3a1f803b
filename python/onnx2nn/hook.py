"""Checks several models of a repository: `python -m onnx2nn.hook verify [OPTIONS] MODEL...`.

The pre-commit hooks (.pre-commit-hooks.yaml) and the GitHub Action (action.yml) run this. The command is `verify`,
which compares each model's conversion with ONNX Runtime, or `inspect`, which says what would not convert. Options are
those of the command. A line a model says how it went; the exit code is that of the worst.
"""

import contextlib
import io
import os
import sys
from collections.abc import Sequence

from onnx2nn.cli import main as onnx2nn
from onnx2nn.cli.codes import ExitCode
from onnx2nn.errors import printable

__all__ = ["main"]

_COMMANDS = ("verify", "inspect")
_POINTER = b"version https://git-lfs"
# The worst last: what is wrong, and then our own fault, hides all else.
_ORDER = (
    *(ExitCode.DONE, ExitCode.NOT_CHECKED, ExitCode.UNREADABLE, ExitCode.WRONG),
    *(ExitCode.USAGE, ExitCode.INTERNAL, ExitCode.INTERRUPTED),
)
_WORDS = {
    ExitCode.DONE: "right",
    ExitCode.WRONG: "wrong",
    ExitCode.USAGE: "not asked for rightly",
    ExitCode.UNREADABLE: "not readable",
    ExitCode.NOT_CHECKED: "not checked",
    ExitCode.INTERNAL: "our fault",
    ExitCode.INTERRUPTED: "interrupted",
}
_INSPECTED = {ExitCode.DONE: "would convert", ExitCode.WRONG: "would not convert"}


def main(argv: Sequence[str] | None = None) -> int:
    """Check the models that are named; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in _COMMANDS:
        print(f"usage: python -m onnx2nn.hook {'|'.join(_COMMANDS)} [OPTIONS] MODEL...")
        return int(ExitCode.USAGE)
    command, *rest = words
    first = next((i for i, word in enumerate(rest) if word.endswith(".onnx")), len(rest))
    options, models = rest[:first], rest[first:]
    worst = ExitCode.DONE
    for model in models:
        code, text = _check(command, model, options)
        word = (_INSPECTED if command == "inspect" else {}).get(code, _WORDS[code])
        print(f"{printable(model)}: {word}")
        if code is not ExitCode.DONE:
            _tell(model, text)
        worst = max(worst, code, key=_ORDER.index)
    return int(worst)


def _check(command: str, model: str, options: list[str]) -> tuple[ExitCode, str]:
    """The exit code of the command, and what it printed."""
    with contextlib.suppress(OSError), open(model, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            text = "it is a pointer of Git LFS: git lfs pull, or `lfs: true` of actions/checkout"
            return ExitCode.UNREADABLE, text
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = ExitCode(onnx2nn([command, *options, "--quiet", "--", model]))
    return code, said.getvalue().strip()


def _tell(model: str, text: str) -> None:
    """Show what was said of a model that is not right, on GitHub beside the file."""
    print("\n".join(f"    {line}" for line in text.splitlines()), flush=True)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        # Only these mean anything there, and a model's own text must not add commands.
        for mark, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
            text = text.replace(mark, code)
        name = printable(model)
        for mark, code in (("%", "%25"), (":", "%3A"), (",", "%2C")):
            name = name.replace(mark, code)
        print(f"::error file={name}::{text}")


if __name__ == "__main__":
    sys.exit(main())
