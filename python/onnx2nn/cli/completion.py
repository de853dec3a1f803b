"""`onnx2nn completion`: what a shell needs to know, from the table of options."""

from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.parser import Request

__all__ = ["run"]


def run(request: Request) -> ExitCode:
    """Print the script."""
    from onnx2nn import _native

    print(_native.completion(request.values.shell), end="")
    return ExitCode.DONE
