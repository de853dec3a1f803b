"""What a report is about, gathered from what the commands have at hand."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from onnx2nn.api import Converted
    from onnx2nn.check.result import Report
    from onnx2nn.errors import Diagnostic

__all__ = ["Subject"]


@dataclass
class Subject:
    """A model and what was done with it.

    stats: counts, as the core gives them for a conversion or a simplification.
    source: of the page; module: the same as nn.Module, where there is one, on the meta device where
        a run with numbers would take long.
    check: what was compared; skipped: why nothing was. refused: it does not convert, as `diagnostics` say.
    commands: what reproduces it, as somebody would type it.
    figures: what the core counts of the model at the sizes of `arguments`.
    """

    model: str
    commands: list[str]
    stats: dict[str, Any] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    diagnostics: "list[Diagnostic]" = field(default_factory=list)
    class_name: str = ""
    source: str = ""
    module: "nn.Module | None" = None
    check: "Report | None" = None
    skipped: str | None = None
    refused: bool = False
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> list[tuple[str, str, list[int] | None]]:
        """(name, dtype, shape) of each input: as it was checked, else 1 for what the file leaves open."""
        inputs = self.check.inputs if self.check is not None else []
        checked = {n: (d, s) for n, d, s in inputs}
        found = []
        for i in self.inputs:
            dims = i.get("shape")
            declared = [d if isinstance(d, int) and d > 0 else 1 for d in dims or []]
            dtype, shape = checked.get(str(i["name"]), (str(i.get("dtype")), declared))
            found.append((str(i["name"]), dtype, shape))
        return found

    @classmethod
    def of_conversion(
        cls,
        model: str,
        commands: list[str],
        converted: "Converted",
        module: "nn.Module | None" = None,
        check: "Report | None" = None,
        skipped: str | None = None,
    ) -> "Subject":
        """A conversion, checked or not."""
        return cls(
            model,
            commands,
            converted.stats,
            converted.inputs,
            converted.outputs,
            converted.files,
            converted.diagnostics,
            converted.class_name,
            converted.source,
            module,
            check,
            skipped,
        )
