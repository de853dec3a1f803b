"""Written sources as modules, for tests that run them as their users do."""

import importlib.util
from pathlib import Path
from typing import Any

import onnx2nn

__all__ = ["imported", "written"]


def imported(path: Path) -> Any:
    """The module of a file, which is not left among those that are imported."""
    spec = importlib.util.spec_from_file_location(f"page_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(model: bytes, folder: Path) -> Any:
    """The network of the source that is written for a model."""
    onnx2nn.convert(model, folder / "net.py")
    return imported(folder / "net.py").load()
