"""What needs neither torch nor numpy: models as arguments, conversion, inspection, errors."""

import inspect as _inspect
import os
import re
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

# A path, the bytes of a file, or an onnx.ModelProto (named as Any: onnx is not imported here).
Model: TypeAlias = str | os.PathLike[str] | bytes | Any
Diagnostic: TypeAlias = dict[str, Any]

# protobuf serialises nothing above this size.
_PROTOBUF_LIMIT = 2**31 - 1
# How many nodes are named that one and the same thing is wrong with.
_SHOWN_NODES = 5
# The codes of diagnostics about the file itself.
_UNREADABLE = {"bad-model", "unreadable-file"}


class Error(Exception):
    """A model that cannot be read, converted or checked; `diagnostics` says why, item by item.

    Each diagnostic is a dict with `severity`, `code`, `message`, `node`, `op_type`, `domain`,
    `opset` and `hint`; those that do not apply are empty. `unreadable` tells a file that is
    not a sound ONNX model from one that is but cannot be converted.
    """

    def __init__(
        self, message: str, diagnostics: list[Diagnostic] | None = None, unreadable: bool = False
    ) -> None:
        super().__init__(message)
        self.diagnostics = diagnostics or []
        self.unreadable = unreadable


@dataclass
class Source:
    """A model as the native core takes it: a path, or bytes."""

    data: str | bytes
    # A folder that lives as long as the model is in use, where it had to be saved first.
    folder: "tempfile.TemporaryDirectory[str] | None" = None

    @property
    def path(self) -> Path | None:
        """Where the model lies, None where it came as bytes."""
        return Path(self.data) if isinstance(self.data, str) else None

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.data if isinstance(self.data, str) else "<model>"


def as_source(model: Model) -> Source:
    """The model as a path or bytes; a ModelProto above protobuf's limit is saved aside."""
    if isinstance(model, Source):
        return model
    if isinstance(model, (bytes, bytearray, memoryview)):
        return Source(bytes(model))
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        if not os.path.isfile(path):
            what = "is not a file" if os.path.exists(path) else "does not exist"
            message = f"{path}: {what}"
            raise Error(message, [_diagnostic("unreadable-file", message)], unreadable=True)
        return Source(path)
    if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
        if model.ByteSize() < _PROTOBUF_LIMIT:
            return Source(model.SerializeToString())
        import onnx

        folder = tempfile.TemporaryDirectory(prefix="onnx2nn-")
        path = os.path.join(folder.name, "model.onnx")
        # save_model moves the tensors out of the proto that it is given, so it gets a copy.
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save_model(copy, path, save_as_external_data=True, location="model.onnx.data")
        return Source(path, folder)
    raise TypeError(
        f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__module__}."
        f"{type(model).__qualname__}"
    )


def native() -> Any:
    """The native module; imported on first use, so that `import onnx2nn` stays cheap."""
    from onnx2nn import _native

    return _native


def _diagnostic(code: str, message: str) -> Diagnostic:
    return {
        "severity": "error",
        "code": code,
        "message": message,
        "node": "",
        "op_type": "",
        "domain": "",
        "opset": 0,
        "hint": "",
    }


def _options(options: dict[str, Any]) -> dict[str, Any]:
    # What is at its default need not be known to the core.
    chosen = {
        k: v for k, v in options.items() if (v is not None and v is not False) or k == "simplify"
    }
    if "input_shapes" in chosen:
        chosen["input_shapes"] = {k: list(v) for k, v in chosen["input_shapes"].items()}
    if _custom_ops:
        chosen["custom_ops"] = [dict(op) for op in _custom_ops.values()]
    return chosen


def run_native(source: Source, options: dict[str, Any]) -> Any:
    """The native Conversion of a model; raises Error where it was refused."""
    try:
        conversion = native().convert(source.data, _options(options))
    except TypeError as error:
        if "unknown option" not in str(error):
            raise
        raise Error(f"{source.name}: {error}") from error
    if not conversion.ok:
        raise refused(source, list(conversion.diagnostics), conversion.readable)
    return conversion


def refused(source: Source, diagnostics: list[Diagnostic], readable: bool = True) -> Error:
    """The Error for a model that the core refused, with every reason in its text."""
    errors = [d for d in diagnostics if d.get("severity") == "error"] or diagnostics
    lines = [diagnostic_text(source.name, *group) for group in grouped(errors)]
    unreadable = not readable or any(d.get("code") in _UNREADABLE for d in errors)
    return Error("\n".join(lines) or f"{source.name}: cannot be converted", diagnostics, unreadable)


def grouped(diagnostics: list[Diagnostic]) -> list[list[Diagnostic]]:
    """Diagnostics that say the same of several nodes together, in order of their first."""
    groups: dict[tuple[Any, ...], list[Diagnostic]] = {}
    for d in diagnostics:
        said = tuple(
            d.get(k) for k in ("severity", "code", "message", "op_type", "domain", "opset")
        )
        groups.setdefault(said, []).append(d)
    return list(groups.values())


def diagnostic_text(model: str, *same: Diagnostic) -> str:
    """One diagnostic as people read it: what is wrong, where, and what to do.

    `same`: those that say the same, of several nodes.
    """
    d = same[0]
    head = f"{model}: {d.get('severity', 'error')}[{d.get('code', '')}]: {d.get('message', '')}"
    lines = [head]
    if d.get("node") or d.get("op_type"):
        domain = d.get("domain") or "ai.onnx"
        opset = f", opset {d['opset']}" if d.get("opset") else ""
        names = [str(x.get("node") or "(unnamed)") for x in same]
        lines.append(f"  node    {names[0]}   ({domain}::{d['op_type']}{opset})")
        lines += [f"          {name}" for name in names[1:_SHOWN_NODES]]
        if len(names) > _SHOWN_NODES:
            lines.append(f"          and {len(names) - _SHOWN_NODES} more")
    if d.get("inputs") and len(same) == 1:
        first, *rest = str(d["inputs"]).split("\n")
        lines += [f"  inputs  {first}", *[f"          {line}" for line in rest]]
    if d.get("hint"):
        lines.append(f"  hint    {d['hint']}")
    return "\n".join(lines)


def parse_shape(text: str) -> tuple[str, list[int]]:
    """(name, dims) of `name:1,3,224,224`; the name is empty where the text is only dims."""
    name, _, dims = text.rpartition(":")
    if not re.fullmatch(r"(\d+([,x]\d+)*)?", dims, re.ASCII):
        raise Error(f"input shape: {text!r} is not like name:1,3,224,224")
    return name, [int(d) for d in re.split("[,x]", dims) if d]


@dataclass
class Converted:
    """What `convert` did: the files it wrote, the source, warnings and counts."""

    source: str
    class_name: str
    files: list[str]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    diagnostics: list[Diagnostic]
    stats: dict[str, Any]


def output_paths(out: str | os.PathLike[str]) -> tuple[str, str]:
    """(source, weights) for an output: x.py has x.safetensors beside it, x.pth has x.py."""
    path = Path(out)
    suffix = path.suffix.lower()
    if suffix == ".py":
        return str(path), str(path.with_suffix(".safetensors"))
    if suffix in (".pth", ".safetensors"):
        return str(path.with_suffix(".py")), str(path)
    if suffix in (".pt", ".pt2"):
        raise Error(
            f"{out}: {suffix} files cannot be written yet; write a .py (weights in .safetensors) "
            f"or a .pth (a state_dict, with a .py beside it)"
        )
    raise Error(f"{out}: the output's name ends in .py, .pth or .safetensors")


def convert(model: Model, out: str | os.PathLike[str] | None = None, **options: Any) -> Converted:
    """Convert a model to PyTorch source and, where `out` is given, write source and weights.

    model: a path, bytes or an onnx.ModelProto.
    out: `x.py` (weights go to `x.safetensors`) or `x.pth` (a state_dict, source in `x.py`).
    options: `simplify`, `input_shapes`, `class_name`, `allow_unknown`, `fuse`.
    Raises Error, with all diagnostics, where the model cannot be read or converted.
    Nothing is checked here: `verify(model, out)` does.
    """
    source = as_source(model)
    paths = output_paths(out) if out is not None else None
    if paths is not None:
        options.setdefault("weights_name", os.path.basename(paths[1]))
    conversion = run_native(source, options)
    files: list[str] = []
    if paths is not None:
        files = [str(f) for f in conversion.write(*paths)]
        if not files:
            raise refused(Source(paths[0]), list(conversion.diagnostics))
    return Converted(
        conversion.source,
        conversion.class_name,
        files,
        list(conversion.inputs),
        list(conversion.outputs),
        list(conversion.diagnostics),
        dict(conversion.stats),
    )


def inspect(model: Model) -> dict[str, Any]:
    """What is in a model and what would not convert, and why; nothing is written.

    Returns `convertible`, `producer`, `ir_version`, `opsets`, `nodes`, `nodes_after`,
    `weight_bytes`, `inputs`, `outputs`, `op_types` (counts by operator) and `diagnostics`.
    Raises Error where the model cannot be read.
    """
    source = as_source(model)
    conversion = native().convert(source.data, _options({}))
    diagnostics = list(conversion.diagnostics)
    if not conversion.readable:
        raise refused(source, diagnostics, readable=False)
    stats = conversion.stats
    return {
        "convertible": conversion.ok,
        "producer": stats.get("producer", ""),
        "ir_version": stats.get("ir_version", 0),
        "opsets": dict(stats.get("opsets", {})),
        "nodes": stats["nodes_before"],
        "nodes_after": stats["nodes_after"],
        "weight_bytes": stats["weight_bytes"],
        "inputs": list(conversion.inputs),
        "outputs": list(conversion.outputs),
        "op_types": dict(stats.get("op_types", {})),
        "diagnostics": diagnostics,
    }


def simplify_unchecked(
    model: Model, out: str | os.PathLike[str] | None = None, **options: Any
) -> dict[str, Any]:
    """Simplify a model and write it to `out`, or to the result's `model`, without checking it.

    options: `input_shapes`, `disabled` and `only` (rules), `stop_after`, `opset`, `external_data`.
    Returns counts of nodes, operators and bytes before and after, what each rule did, and the files.
    """
    source = as_source(model)
    target = None if out is None else os.fspath(out)
    chosen = {k: v for k, v in options.items() if v is not None}
    try:
        result = dict(native().simplify(source.data, target, chosen))
    except TypeError as error:
        if "unknown option" not in str(error):
            raise
        raise Error(f"{source.name}: {error}") from error
    if not result.get("ok", True):
        diagnostics = list(result.get("diagnostics", []))
        raise refused(source, diagnostics, result.get("readable", True))
    return result


_custom_ops: dict[tuple[str, str], dict[str, str]] = {}


def register_op(domain: str, op_type: str, function: Callable[..., Any] | str) -> None:
    """Supply torch code for an operator that onnx2nn does not know.

    domain, op_type: as the model's nodes have them; "" is ai.onnx.
    function: called with the node's inputs (None for one that is missing) and then its attributes
    as keywords; returns the output, or a tuple of them. Its source is copied into the emitted file,
    so it may use `torch`, `F` (torch.nn.functional) and `math` and nothing else from outside. The
    source may also be given as a string that holds one `def`.
    """
    code = function if isinstance(function, str) else _inspect.getsource(function)
    code = textwrap.dedent(code)
    match = re.search(r"^def (\w+)\(", code, re.MULTILINE)
    if match is None:
        raise ValueError("register_op needs a plain function: its source must hold a `def`")
    compile(code, f"<{domain}::{op_type}>", "exec")
    _custom_ops[(domain, op_type)] = {
        "domain": domain,
        "op_type": op_type,
        "name": match.group(1),
        "source": code,
    }
