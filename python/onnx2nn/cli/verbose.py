"""What `--verbose` and ONNX2NN_LOG show: the lines of the logger `onnx2nn` on stderr; versions."""

import contextlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from onnx2nn.cli.output import printable

__all__ = ["logging_shown", "versions"]

_LEVELS = ("debug", "info", "warning", "error", "critical")
# What a report of a fault should name, whether it is installed or not.
_PACKAGES = ("torch", "onnxruntime", "onnx", "numpy", "safetensors")


@contextlib.contextmanager
def logging_shown(verbose: bool) -> Iterator[None]:
    """Show the lines of the logger from level ONNX2NN_LOG, or all of them, while a command runs."""
    asked = os.environ.get("ONNX2NN_LOG", "").lower()
    level = "debug" if verbose else asked if asked in _LEVELS else ""
    if not level:
        yield
        return
    logger = logging.getLogger("onnx2nn")
    before = logger.level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def versions() -> str:
    """What a report of a fault needs besides the version, a line each; nothing is imported for it."""
    rows = [("python", f"{platform.python_version()} ({platform.python_implementation()})")]
    rows += [(name, _version(name)) for name in _PACKAGES]
    rows.append(("program", str(_program() or "not installed")))
    rows.append(("system", platform.platform()))
    rows.append(("processor", f"{_processor()}, {os.cpu_count()} cores"))
    return "".join(f"{name:<14}{printable(value)}\n" for name, value in rows)


def _program() -> Path | None:
    """The program that needs no Python, which a wheel brings."""
    found = [Path(__file__).parents[1] / name for name in ("onnx2nn", "onnx2nn.exe")]
    return next((path for path in found if path.is_file()), None)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
