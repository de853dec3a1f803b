"""Sizes that were opened: two batches of the model's own size, side by side, against both answers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from onnx2nn.check.compare import Bar, Random, compare
from onnx2nn.check.inputs import candidates, wanted_inputs
from onnx2nn.check.oracle import OracleDied
from onnx2nn.check.result import Answer, Report, describe
from onnx2nn.core import Axes, core_axes
from onnx2nn.errors import first_line

__all__ = ["check_freed"]


def check_freed(
    proto: Any,
    answer: Answer,
    run: Callable[[dict[str, Any]], list[Any]],
    report: Report,
    batch: bool,
    axes: Axes | None,
    bar: Bar | None = None,
) -> None:
    """Run what was opened at another size; a difference makes the report wrong.

    run: the outputs of what is checked, in the model's order. For a batch, the model itself answers for
    each half. Of another dim nobody knows the answer: it is only said that it runs.
    """
    try:
        if batch:
            _check_batch(proto, answer, run, report, bar)
        if axes and report.ok:
            _check_axes(answer, run, report, axes)
    except OracleDied:
        raise
    except Exception as error:  # whatever it raises is a finding
        report.ok = False
        report.error = f"at another size than the file's: {first_line(error)}"


def _check_batch(
    proto: Any,
    answer: Answer,
    run: Callable[[dict[str, Any]], list[Any]],
    report: Report,
    bar: Bar | None,
) -> None:
    first = answer.feed
    fixed = [w for w in wanted_inputs(proto) if w.dims and isinstance(w.dims[0], int)]
    fixed = [w for w in fixed if isinstance(first.get(w.name), np.ndarray)]
    names = [w.name for w in fixed if w.dims and w.dims[0] == (fixed[0].dims or [0])[0]]
    if not names or any(isinstance(y, Random) for y in answer.outputs):
        report.notes.append("checked at the file's own batch only")
        return
    shapes = {n: list(v.shape) for n, v in first.items() if isinstance(v, np.ndarray)}
    kept = {n: v for n, v in first.items() if n not in names}
    second = next(candidates(proto, 1, kept, {n: shapes[n] for n in names}))
    others = answer.oracle.run(second)
    feed = {n: np.concatenate([v, second[n]]) if n in names else v for n, v in first.items()}
    found = run(feed)
    size = int(first[names[0]].shape[0])
    for output, x, y, got in zip(proto.graph.output, answer.outputs, others, found, strict=True):
        c = compare(output.name, _joined(x, y, got), got, answer.oracle.check_dtype, bar=bar)
        if not c.ok:
            report.ok, report.outputs = False, [c]
            report.inputs = [describe(n, v) for n, v in feed.items()]
            report.error = f"right with a batch of {size}, wrong with one of {2 * size}"
            return
    report.notes.append(f"right with a batch of {2 * size} too, where the file has {size}")


def _joined(x: Any, y: Any, got: Any) -> Any:
    """Two answers as one: side by side along the axis that is twice as long in what was found."""
    if not isinstance(x, np.ndarray) or not isinstance(got, np.ndarray) or got.ndim != x.ndim:
        return x
    axes = [k for k in range(x.ndim) if got.shape[k] == 2 * x.shape[k]]
    return np.concatenate([x, y], axes[0]) if axes else x


def _check_axes(
    answer: Answer, run: Callable[[dict[str, Any]], list[Any]], report: Report, axes: Axes
) -> None:
    feed = dict(answer.feed)
    for name, opened in core_axes(axes).items():
        for axis in opened:
            # The elements over again, so that what are places stay places.
            feed[name] = np.concatenate([feed[name]] * 2, axis)
    run(feed)
    sizes = ", ".join(f"{n} of {list(feed[n].shape)}" for n in axes)
    report.notes.append(f"runs on {sizes} too; the file says no right answer for that")
