"""What a check found."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx2nn.check.compare import Comparison, Random
from onnx2nn.errors import printable

if TYPE_CHECKING:
    from torch import nn

    from onnx2nn.check.oracle import Reference, Runtime

__all__ = ["Answer", "Difference", "Report", "Values", "describe"]


@dataclass
class Difference:
    """The first node whose output is wrong: what it is, and what it was given."""

    node: str
    op_type: str
    output: str
    inputs: list[tuple[str, str, list[int] | None]]
    comparison: Comparison | None
    index: int = 0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "node": self.node,
            "op_type": self.op_type,
            "output": self.output,
            "inputs": [{"name": n, "dtype": d, "shape": s} for n, d, s in self.inputs],
            "index": self.index,
            "error": self.error,
            "comparison": self.comparison.to_dict() if self.comparison else None,
        }


@dataclass
class Values:
    """What went in, and the outputs of both sides, by the model's names and in its order.

    module: what was compared, None where that was another ONNX file; its run took `seconds`.
    """

    oracle: str
    feed: dict[str, Any]
    names: list[str]
    want: list[Any]
    got: list[Any]
    module: "nn.Module | None" = None
    seconds: float = 0.0


@dataclass(repr=False)
class Report:
    """What `verify` found. `ok` is True where all that was compared is right, None where nothing was.

    `skipped` says why nothing was compared, `died` that the oracle's process ended over it; `error` what the converted module raised;
    `nodes` holds a Comparison for each intermediate value where they were asked for, `kinds` the
    operators that make them, and `values` the outputs of both sides where they were to be kept.
    """

    ok: bool | None
    oracle: str | None = None
    inputs: list[tuple[str, str, list[int] | None]] = field(default_factory=list)
    outputs: list[Comparison] = field(default_factory=list)
    nodes: list[Comparison] = field(default_factory=list)
    first_difference: Difference | None = None
    skipped: str | None = None
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    died: bool = False
    kinds: dict[str, str] = field(default_factory=dict)
    values: Values | None = None

    def __bool__(self) -> bool:
        return bool(self.ok)

    def __repr__(self) -> str:
        if self.skipped is not None:
            return f"<Report: NOT CHECKED, {printable(self.skipped)}>"
        wrong = [c.name for c in self.outputs if not c.ok]
        what = f"{len(self.outputs)} outputs" if self.ok else ", ".join(wrong) or self.error or ""
        verdict = "right" if self.ok else "WRONG"
        return f"<Report: {verdict}, {printable(what)}, against {self.oracle}>"

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        from onnx2nn.report.notebook import of_check

        return of_check(self)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        first = self.first_difference
        return {
            "ok": self.ok,
            "oracle": self.oracle,
            "skipped": self.skipped,
            "error": self.error,
            "inputs": [{"name": n, "dtype": d, "shape": s} for n, d, s in self.inputs],
            "outputs": [c.to_dict() for c in self.outputs],
            "first_difference": first.to_dict() if first else None,
            "nodes": [c.to_dict() for c in self.nodes],
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Answer:
    """What the oracle says: for which inputs, and the outputs in the model's order.

    drawn: what random operators drew for them, by the values' names.
    """

    oracle: "Runtime | Reference"
    feed: dict[str, Any]
    outputs: list[Any]
    seconds: float
    drawn: dict[str, Any] = field(default_factory=dict)


def describe(name: str, value: Any) -> tuple[str, str, list[int] | None]:
    """(name, type, shape) of a value, for people."""
    if isinstance(value, Random):
        value = value.value
    if isinstance(value, np.ndarray):
        return name, "string" if value.dtype.kind in "OUST" else value.dtype.name, list(value.shape)
    if isinstance(value, (list, tuple)):
        return name, f"sequence of {len(value)}", None
    return name, type(value).__name__, None
