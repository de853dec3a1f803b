"""The files of a conversion, loaded afresh, and modules run on ONNX values."""

import ast
import contextlib
import importlib.util
import inspect
import itertools
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnx2nn.check.turns import in_turn
from onnx2nn.errors import Error, described, first_line

if TYPE_CHECKING:
    from torch import nn

__all__ = ["call_module", "emitted_line", "is_program", "load_written", "run_module", "seeded"]

_counter = itertools.count(1)


def load_written(target: str | os.PathLike[str]) -> "nn.Module":
    """The module in the files of a conversion, executed in a namespace of its own.

    target: `x.py`, with x.safetensors (or its index) or x.pth beside it; `x.pth`; `x.pt`, an archive of
        TorchScript; or `x.pt2`, a program of torch.export.
    Raises Error where a file is missing or cannot be loaded.
    """
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix == ".pt":
        return _load_torchscript(path)
    if suffix == ".pt2":
        from onnx2nn.exporting import load_exported

        if not path.is_file():
            raise Error(f"{path}: does not exist", unreadable=True)
        return load_exported(path)
    if suffix not in (".py", ".pth", ".safetensors"):
        raise Error(f"{target}: not a .py, .pth, .pt, .pt2 or .onnx file", usage=True)
    code = path.with_suffix(".py")
    if not code.is_file():
        raise Error(f"{code}: does not exist; it holds the source", unreadable=True)
    from onnx2nn.construction import unfilled_on_meta
    from onnx2nn.loading import keep_while_alive

    name = f"onnx2nn_written_{next(_counter)}"
    module = _import_file(name, code)
    try:
        # Without an argument it takes the weights that it was written with.
        with unfilled_on_meta():
            net = module.load() if suffix == ".py" else _load_weights(module, path)
    except Exception as error:
        raise Error(f"{code}: cannot be loaded: {described(error)}") from error
    from torch import nn

    if not isinstance(net, nn.Module):
        raise Error(f"{code}: its load() gave a {type(net).__name__}, not a module")
    if type(net).__module__ == name:
        keep_while_alive(name, str(code), type(net))
    else:
        del sys.modules[name]
    return net.eval()


def _load_torchscript(path: Path) -> "nn.Module":
    import torch

    if not path.is_file():
        raise Error(f"{path}: does not exist", unreadable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls the format old
            net: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise Error(f"{path}: torch.jit.load refuses it: {first_line(error)}") from error
    return net.eval()


def _import_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # What was just written must be read, whatever a cache of the same second says.
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise Error(f"{path}: cannot be executed: {described(error)}") from error
    finally:
        sys.dont_write_bytecode = keep
    return module


def _load_weights(module: ModuleType, weights: Path) -> Any:
    """A written module with the weights of another file than its own."""
    default = Path(inspect.signature(module.load).parameters["weights"].default)
    if default.suffix == weights.suffix:
        return module.load(weights)
    if default.name == f"{weights.name}.index.json":
        return module.load(weights.with_name(default.name))
    import torch
    from torch import nn

    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, nn.Module) and c.__module__ == module.__name__
    ]
    with torch.device("meta"):
        net = classes[-1]()
    if weights.suffix == ".pth":
        state = torch.load(weights, weights_only=True, mmap=True)
    else:
        from safetensors.torch import load_file

        state = load_file(weights)
    net.load_state_dict(state, assign=True)
    return net


def _classes(source: str) -> str:
    """The text between the imports and `load`."""
    first, last = source.find("\nfrom "), source.rfind("\ndef load(")
    return source[first:last] if 0 <= first < last else source


def is_program(source: str, other: str) -> bool:
    """Whether two emitted sources are one program, whatever their comments, names of class and weights."""

    if _classes(source) == _classes(other):
        return True

    def bare(text: str) -> str:
        tree = ast.parse(text)
        tree.body = [
            n
            for n in tree.body
            if not (isinstance(n, ast.FunctionDef) and n.name == "load")
            and not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
        ]
        for n in tree.body:
            if isinstance(n, ast.ClassDef):
                n.name = "Model"
        return ast.dump(tree)

    try:
        return bare(source) == bare(other)
    except (SyntaxError, ValueError, RecursionError):
        return False


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """A context, of one thread at a time, in which torch draws the same numbers each time; its generator
    is left alone."""
    import torch

    with in_turn(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def call_module(net: "nn.Module", feed: dict[str, Any]) -> Any:
    """What a converted module gives for inputs by ONNX name."""
    import torch

    from onnx2nn.tensors import to_torch

    with torch.no_grad():
        return net(*[to_torch(v) for v in feed.values()])


def run_module(net: "nn.Module", feed: dict[str, Any], proto: Any) -> list[Any]:
    """A converted module's outputs, as numpy, for inputs by ONNX name."""
    from onnx2nn.tensors import as_outputs, to_numpy

    outputs = as_outputs(call_module(net, feed), len(proto.graph.output))
    return [
        to_numpy(y, _declared(o))
        for y, o in itertools.zip_longest(outputs, proto.graph.output[: len(outputs)])
    ]


def _declared(value_info: Any) -> str | None:
    from onnx2nn.check.roles import tensor_type
    from onnx2nn.tensors import DTYPE_NAMES

    tensor = tensor_type(value_info.type) if value_info is not None else None
    return DTYPE_NAMES.get(tensor.elem_type) if tensor is not None else None


def emitted_line(error: BaseException) -> str:
    """Where in emitted source an exception came from."""
    prefixes = ("onnx2nn_loaded_", "onnx2nn_written_")
    # A copy, made at once: modules that are collected meanwhile leave sys.modules.
    modules = sys.modules.copy()
    files = {m.__file__ for name, m in modules.items() if name.startswith(prefixes)}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return f" (line {frame.lineno}: {frame.line})"
    return ""
