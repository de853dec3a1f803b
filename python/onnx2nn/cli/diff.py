"""`onnx2nn diff`: what differs between two models; the core says it all."""

from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.output import print_answer
from onnx2nn.cli.parser import Request

__all__ = ["run"]


def run(request: Request) -> ExitCode:
    """Show what differs; WRONG where anything does."""
    return print_answer(request)
