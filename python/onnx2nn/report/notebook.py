"""What a notebook shows of a conversion and of a check."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx2nn.api import Converted
    from onnx2nn.check.result import Report

__all__ = ["of_check", "of_conversion"]

_MOST_SOURCE = 20_000  # characters


def of_check(report: "Report") -> str | None:
    """Verdict and outputs; None where Jinja is not installed, so that `repr` is shown."""
    return _rendered(report=report, converted=None)


def of_conversion(converted: "Converted") -> str | None:
    """Figures and source; None where Jinja is not installed, so that `repr` is shown."""
    source = converted.source
    return _rendered(
        report=None,
        converted=converted,
        source=source[:_MOST_SOURCE],
        source_left_out=max(0, len(source) - _MOST_SOURCE),
    )


def _rendered(**values: Any) -> str | None:
    try:
        from onnx2nn.report.write import environment
    except ImportError:
        return None
    return str(environment().get_template("notebook.html.jinja").render(**values))
