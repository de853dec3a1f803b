"""Turn an ONNX model into readable, verified PyTorch source.

    net = onnx2nn.load("model.onnx")             # an nn.Module, weights mapped from the file
    onnx2nn.convert("model.onnx", "net.py")      # source, with net.safetensors beside it
    onnx2nn.verify("model.onnx", "net.py").ok    # compared with ONNX Runtime

Importing this package imports neither torch nor numpy: each function brings in what it needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx2nn.api import Converted, convert, inspect
    from onnx2nn.check.verification import Report, verify
    from onnx2nn.custom_ops import register_op
    from onnx2nn.errors import Error
    from onnx2nn.language_models import transformers
    from onnx2nn.loading import load
    from onnx2nn.reexport import export_onnx
    from onnx2nn.simplification import simplify
    from onnx2nn.transfer.weights import weights_for

__version__ = "0.1.0"
__all__ = [
    "Converted",
    "Error",
    "Report",
    "__version__",
    "convert",
    "export_onnx",
    "inspect",
    "load",
    "register_op",
    "simplify",
    "transformers",
    "verify",
    "weights_for",
]

# No submodule may be called as one of these: importing it would put the module in the way.
_HOME = {
    "Converted": "api",
    "Error": "errors",
    "Report": "check.verification",
    "convert": "api",
    "export_onnx": "reexport",
    "inspect": "api",
    "load": "loading",
    "register_op": "custom_ops",
    "simplify": "simplification",
    "transformers": "language_models",
    "verify": "check.verification",
    "weights_for": "transfer.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'onnx2nn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"onnx2nn.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
