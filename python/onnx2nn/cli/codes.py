"""What a process ends with; the same numbers as in src/cli/options.h."""

from enum import IntEnum

from onnx2nn.errors import Error

__all__ = ["ExitCode", "code_of"]


class ExitCode(IntEnum):
    """Exit codes of both programs."""

    DONE = 0
    WRONG = 1  # wrong, not convertible, or different
    USAGE = 2  # the command line itself
    UNREADABLE = 3  # a file that cannot be read or written
    NOT_CHECKED = 4  # done, but the check that was asked for could not be made
    INTERNAL = 70  # our own fault
    INTERRUPTED = 130


def code_of(error: Error) -> ExitCode:
    """The exit code for a model that was refused, or options that were."""
    codes = {d.get("code") for d in error.diagnostics}
    if "internal" in codes:
        return ExitCode.INTERNAL
    if "cancelled" in codes:
        return ExitCode.INTERRUPTED
    if error.usage:
        return ExitCode.USAGE
    return ExitCode.UNREADABLE if error.unreadable else ExitCode.WRONG
