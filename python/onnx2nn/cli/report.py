"""`--report`: one HTML file about what a command found."""

import contextlib
import importlib
import os
import shlex
import threading
from collections.abc import Iterator
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from onnx2nn import __version__
from onnx2nn.cli.parser import Request
from onnx2nn.core import inspection_of
from onnx2nn.errors import Error
from onnx2nn.source import as_source

if TYPE_CHECKING:
    from torch import nn

    from onnx2nn.check.result import Report
    from onnx2nn.report import Subject

__all__ = [
    "check_report",
    "commands",
    "module_of",
    "refusal_reported",
    "report_refusal",
    "write_report",
]

# What decides about the figures, as well as the program itself.
_PACKAGES = ("torch", "onnxruntime")
# Longer runs are not made once more for the report's sake. Without numbers torch first imports a
# compiler, which takes as long.
_QUICK_S = 1.0


def check_report(request: Request) -> None:
    """Raise Error where a report is asked for and could not be written."""
    path = request.values.report
    if path is None:
        return
    from onnx2nn.report import MARK
    from onnx2nn.report.write import missing

    lacking = missing()
    if lacking is not None:
        raise Error(lacking, usage=True)
    # It takes half a second, in which a check waits for its oracle.
    threading.Thread(target=importlib.import_module, args=["bokeh.plotting"], daemon=True).start()
    if not os.path.exists(path) or getattr(request.values, "force", False):
        return
    try:
        with open(path, "rb") as file:
            is_ours = MARK.encode() in file.read(4096)
    except OSError as error:
        raise Error(f"{path}: {error.strerror}", unreadable=True) from error
    if not is_ours:
        raise Error(f"{path} exists, and is no report of onnx2nn's", unreadable=True)


def commands(request: Request) -> list[str]:
    """The lines that make the same again."""
    versions = [f"onnx2nn[report]=={__version__}"]
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            # Without the build ("2.13.0+cpu"), which PyPI does not have.
            version, _, _ = metadata.version(package).partition("+")
            versions.append(f"{package}=={version}")
    return [shlex.join(["pip", "install", *versions]), shlex.join(["onnx2nn", *request.words])]


def module_of(
    model: str, options: dict[str, Any], report: "Report | None" = None
) -> "nn.Module | None":
    """The conversion as a module; None where it cannot be had.

    It is the one that was checked where that ran quickly, else one on the meta device: what has
    numbers may be run once more for the report.
    """
    from torch import jit

    from onnx2nn.loading import load

    checked = report.values if report is not None else None
    if checked is not None and checked.module is not None and checked.seconds < _QUICK_S:
        if not isinstance(checked.module, jit.ScriptModule):
            return checked.module
        with contextlib.suppress(Error):
            return load(model, **options)
    with contextlib.suppress(Error):
        return load(model, device="meta", **options)
    return None


def inspected(a: SimpleNamespace, shapes: dict[str, list[int]] | None = None) -> dict[str, Any]:
    """What the core counts of the request's model, at the sizes given."""
    options = {"convert": False, "data_roots": a.data_root, "drop_undefined_outputs": True}
    return inspection_of(as_source(a.model), input_shapes=shapes, **options)


@contextlib.contextmanager
def refusal_reported(request: Request) -> Iterator[None]:
    """Where the core refuses the model in here, write the report about that, if one is asked for."""
    try:
        yield
    except Error as error:
        if request.values.report is not None:
            report_refusal(request, error)
        raise


def report_refusal(request: Request, error: Error) -> list[str]:
    """Write the report about a model that can be read and does not convert; the files, one or none."""
    from onnx2nn.report import Subject

    a = request.values
    if error.usage or error.unreadable or not error.diagnostics:
        return []
    there = inspected(a)
    if not there["readable"]:
        return []
    stats = {k: there[k] for k in ("opsets", "producer", "weight_bytes", "op_types")}
    nodes = dict.fromkeys(("nodes_before", "nodes_after"), there["nodes"])
    ports = there["inputs"], there["outputs"]
    subject = Subject(a.model, commands(request), {**stats, **nodes}, *ports, refused=True)
    subject.diagnostics = error.diagnostics
    return write_report(request, subject)


def write_report(request: Request, subject: "Subject") -> list[str]:
    """Write the report; the files that were written, none or one. Raises Error where it cannot be."""
    from onnx2nn.report import write

    path: str = request.values.report
    shapes = {name: shape for name, _, shape in subject.arguments if shape is not None}
    subject.figures = inspected(request.values, shapes)
    try:
        write(path, subject)
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror}", unreadable=True) from error
    return [path]
