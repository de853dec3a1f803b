"""`onnx2nn inspect`: what is in models and what would not convert; the core says it all."""

from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.output import print_answer
from onnx2nn.cli.parser import Request

__all__ = ["run"]


def run(request: Request) -> ExitCode:
    """Show what is in the model, or in several."""
    return print_answer(request)
