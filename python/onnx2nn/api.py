"""What needs neither torch nor numpy: models as arguments, conversion, inspection, errors."""

import contextlib
import inspect as _inspect
import operator
import os
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any, Protocol, TypeAlias

__all__ = [
    "Axes",
    "Converted",
    "Diagnostic",
    "Error",
    "InputShapes",
    "Model",
    "ModelProto",
    "convert",
    "inspect",
    "register_op",
]


class ModelProto(Protocol):
    """What is used of an onnx.ModelProto: onnx itself is not imported here."""

    @property
    def graph(self) -> Any: ...
    def ByteSize(self) -> int: ...  # noqa: N802
    def SerializeToString(self) -> bytes: ...  # noqa: N802


# Dims by input name: numbers, or None, -1 or a name for a dim that stays open.
InputShapes: TypeAlias = Mapping[str, Sequence[int | str | None]]
# Axes by input name.
Axes: TypeAlias = Mapping[str, int | Sequence[int]]
Diagnostic: TypeAlias = dict[str, Any]

# protobuf serialises nothing above this size.
_PROTOBUF_LIMIT = 2**31 - 1
# How many nodes are named that one and the same thing is wrong with.
_SHOWN_NODES = 5
# The codes of diagnostics about files themselves.
_UNREADABLE = {"bad-model", "unreadable-file", "io", "would-overwrite"}
# The codes of what was asked for and cannot be done.
_USAGE = {"bad-option", "input-shape"}


class Error(Exception):
    """A model that cannot be read, converted or checked; `diagnostics` says why, item by item.

    Each diagnostic is a dict with `severity`, `code`, `message`, `node`, `op_type`, `domain`,
    `opset` and `hint`; those that do not apply are empty. `unreadable` tells a file that is
    not a sound ONNX model, or cannot be read or written, from one that cannot be converted.
    `usage` tells that an option does not fit.
    """

    def __init__(
        self,
        message: str,
        diagnostics: list[Diagnostic] | None = None,
        unreadable: bool = False,
        usage: bool = False,
    ) -> None:
        super().__init__(message)
        self.diagnostics = diagnostics or []
        self.unreadable = unreadable
        self.usage = usage


@dataclass
class Source:
    """A model as the native core takes it: a path, or bytes."""

    data: str | bytes
    # A folder that lives as long as the model is in use, where it had to be saved first.
    folder: "tempfile.TemporaryDirectory[str] | None" = None
    # Where others than the core cannot read it as it is: bytes for them, and the folder that the
    # external data lies in. See `onnx2nn.check.readable`.
    readable: tuple[bytes, str] | None = None

    @property
    def path(self) -> Path | None:
        """Where the model lies, None where it came as bytes."""
        return Path(self.data) if isinstance(self.data, str) else None

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.data if isinstance(self.data, str) else "<model>"


_BY_TORCH = (".pt2", ".pte")  # files that torch itself writes

# A path, the bytes of a file, or an onnx.ModelProto.
Model: TypeAlias = str | os.PathLike[str] | bytes | ModelProto | Source


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
        return _proto_source(model)
    raise TypeError(
        f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__module__}."
        f"{type(model).__qualname__}"
    )


def _proto_source(model: ModelProto) -> Source:
    from onnx2nn import pieces

    if pieces.least_size(model) <= _PROTOBUF_LIMIT:
        # The error's type depends on protobuf's version and implementation.
        with contextlib.suppress(Exception):
            data = model.SerializeToString()
            if len(data) <= _PROTOBUF_LIMIT:
                return Source(data)
    folder = tempfile.TemporaryDirectory(prefix="onnx2nn-")
    path = os.path.join(folder.name, "model.onnx")
    try:
        pieces.save(model, path)
    except OSError as error:
        raise Error(
            f"the model is too large for one message, and cannot be saved aside in "
            f"{tempfile.gettempdir()}: {error.strerror}; TMPDIR names another folder"
        ) from error
    except Exception as error:
        raise Error(f"the model cannot be serialised: {error}") from error
    return Source(path, folder)


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


def core_options(**options: Any) -> dict[str, Any]:
    """The options of `convert` or `simplify_unchecked` as the core takes them.

    Those at their default are left out. Raises TypeError for values that are no such option's.
    """
    chosen: dict[str, Any] = {}
    for name, value in options.items():
        if name in _FORMS:
            in_core = _FORMS[name](value) if value else None
        else:
            # Only simplification is on where nothing is said.
            in_core = None if value is False and name != "simplify" else value
        if in_core is not None:
            chosen[name] = in_core
    return chosen


def core_shapes(shapes: InputShapes) -> dict[str, list[int | str]]:
    """Shapes as the core takes them: -1 for a dim that stays as it is. TypeError where they are none."""
    if not isinstance(shapes, Mapping):
        raise TypeError(f"input_shapes: {shapes!r} is not a dict of dims by input name")
    out: dict[str, list[int | str]] = {}
    for name, dims in shapes.items():
        if not isinstance(name, str) or isinstance(dims, str) or not isinstance(dims, Iterable):
            raise TypeError(f"input_shapes: {name!r}: {dims!r} is not a list of dims")
        out[name] = [
            -1 if d is None else d if isinstance(d, str) else _whole("input_shapes", d)
            for d in dims
        ]
    return out


def core_axes(axes: Axes) -> list[tuple[str, int]]:
    """Axes as the core takes them. TypeError where they are none."""
    if not isinstance(axes, Mapping):
        raise TypeError(f"dynamic: {axes!r} is not a dict of axes by input name")
    return [
        (name, _whole("dynamic", axis))
        for name, given in axes.items()
        for axis in (given if isinstance(given, (list, tuple)) else [given])
    ]


def _whole(option: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{option}: {value!r} is not a whole number") from None


def _core_roots(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    if isinstance(paths, (str, bytes)):
        raise TypeError(f"data_roots: {paths!r} is one folder; give a list of folders")
    return [os.fspath(p) for p in paths]


# What options are to the core that takes other forms of them.
_FORMS: dict[str, Callable[[Any], Any]] = {
    "input_shapes": core_shapes,
    "dynamic": core_axes,
    "data_roots": _core_roots,
}


def _conversion(source: Source, **options: Any) -> Any:
    """The native Conversion of a model, whether it was refused or not."""
    known = [dict(op) for op in _custom_ops.values()]
    return native().convert(source.data, core_options(**options, custom_ops=known))


def run_native(source: Source, options: dict[str, Any]) -> Any:
    """The native Conversion of a model; `options` are those of `core_options`.

    Raises Error where the model was refused.
    """
    conversion = _conversion(source, **options)
    if not conversion.ok:
        raise refused(source, list(conversion.diagnostics), conversion.readable)
    return conversion


def compiled(source: str, filename: str) -> CodeType:
    """The emitted source as code; an Error where Python refuses it, which is a fault of ours."""
    try:
        return compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        message = f"Python cannot compile the source that was made: {error}"
        line = getattr(error, "lineno", None)
        found = _diagnostic("internal", message)
        if line is not None:
            # Each line says which node it came from.
            texts = source.splitlines()[:line]
            found["node"] = next(
                (t.partition("  # ")[2] for t in reversed(texts) if "  # " in t), ""
            )
        raise Error(f"{filename}: {message}", [found]) from error


def refused(source: Source, diagnostics: list[Diagnostic], readable: bool = True) -> Error:
    """The Error for a model that the core refused, with every reason in its text."""
    errors = [d for d in diagnostics if d.get("severity") == "error"] or diagnostics
    lines = [diagnostic_text(source.name, *group) for group in grouped(errors)]
    return Error(
        "\n".join(lines) or f"{source.name}: cannot be converted",
        diagnostics,
        unreadable=not readable or any(d.get("code") in _UNREADABLE for d in errors),
        usage=any(d.get("code") in _USAGE for d in errors),
    )


def _output_paths(source: Source, out: str | os.PathLike[str]) -> tuple[str, str]:
    """(source, weights) of a conversion to `out`."""
    try:
        one, two = native().output_paths(source.name, out)
    except ValueError as error:
        raise Error(str(error), usage=True) from error
    was_asked_for = Path(out).name in {Path(one).name, Path(two).name}
    return (one, two) if was_asked_for else _hiding_no_module((one, two))


def check_outputs(
    model: Model, out: str | os.PathLike[str], others: Sequence[str], *, force: bool = False
) -> None:
    """Raise Error where converting to `out` and writing `others` would replace what it must not."""
    source = as_source(model)
    files = [*_output_paths(source, out), *others]
    found = native().check_outputs(os.fspath(source.path or ""), files, force)
    if found:
        raise refused(source, found)


def _hiding_no_module(paths: tuple[str, str]) -> tuple[str, str]:
    """The paths of a source and its weights, named anew where `import` finds another module so."""
    source = Path(paths[0])
    try:
        spec = find_spec(source.stem)
    except (ImportError, ValueError):
        return paths
    if spec is None or (spec.origin and Path(spec.origin).resolve() == source.resolve()):
        return paths
    found = [Path(p) for p in paths]
    one, two = (str(p.with_name(f"{p.stem}_model{p.suffix}")) for p in found)
    return one, two


def grouped(diagnostics: list[Diagnostic]) -> list[list[Diagnostic]]:
    """Diagnostics that say the same of several nodes together, in order of their first."""
    groups: dict[tuple[Any, ...], list[Diagnostic]] = {}
    for d in diagnostics:
        said = tuple(
            d.get(k) for k in ("severity", "code", "message", "op_type", "domain", "opset")
        )
        groups.setdefault(said, []).append(d)
    return list(groups.values())


def printable(text: str) -> str:
    """One line without anything that could steer a terminal: the core's rule, for both programs."""
    from onnx2nn import _native

    try:
        data = text.encode("utf-8", "surrogateescape")  # what a file's name may hold
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return _native.printable(data)


def diagnostic_text(model: str, *same: Diagnostic) -> str:
    """One diagnostic as people read it: what is wrong, where, and what to do.

    `same`: those that say the same, of several nodes. What comes from the model is escaped.
    """
    d = same[0]
    message, *more = map(printable, str(d.get("message", "")).split("\n"))
    lines = [f"{printable(model)}: {d.get('severity', 'error')}[{d.get('code', '')}]: {message}"]
    lines += [f"    {line}" for line in more]
    if d.get("node") or d.get("op_type"):
        op_type = printable(f"{d.get('domain') or 'ai.onnx'}::{d['op_type']}")
        opset = f", opset {d['opset']}" if d.get("opset") else ""
        names = [printable(str(x.get("node") or "(unnamed)")) for x in same[:_SHOWN_NODES]]
        lines.append(f"  node    {names[0]}   ({op_type}{opset})")
        lines += [f"          {name}" for name in names[1:]]
        if len(same) > _SHOWN_NODES:
            lines.append(f"          and {len(same) - _SHOWN_NODES} more")
    if d.get("inputs") and len(same) == 1:
        first, *rest = map(printable, str(d["inputs"]).split("\n"))
        lines += [f"  inputs  {first}", *[f"          {line}" for line in rest]]
    if d.get("hint"):
        lines.append(f"  hint    {printable(str(d['hint']))}")
    return "\n".join(lines)


@dataclass(repr=False)
class Converted:
    """What `convert` did: the files it wrote, the source, warnings and counts."""

    source: str
    class_name: str
    files: list[str]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    diagnostics: list[Diagnostic]
    stats: dict[str, Any]

    def __repr__(self) -> str:
        where = ", ".join(self.files) or "in memory"
        nodes, weights = self.stats.get("nodes_after"), self.stats.get("weight_bytes")
        return f"<Converted {self.class_name}: {nodes} nodes, {weights} bytes of weights, {where}>"

    @property
    def unknown_operators(self) -> bool:
        """Whether the source holds stubs for operators that are not known."""
        return any(
            d.get("code", "").startswith("un") and d.get("op_type") for d in self.diagnostics
        )


def convert(
    model: Model,
    out: str | os.PathLike[str] | None = None,
    *,
    simplify: bool = True,
    input_shapes: InputShapes | None = None,
    dynamic_batch: bool = False,
    dynamic: Axes | None = None,
    class_name: str | None = None,
    allow_unknown: bool = False,
    fuse: bool = False,
    flat: bool = False,
    comments_origin: bool = False,
    force: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> Converted:
    """Convert a model to PyTorch source and, where `out` is given, write source and weights.

    model: a path, bytes or an onnx.ModelProto.
    out: `x.py` (weights go to `x.safetensors`), `x.pth` (a state_dict, source in `x.py`), `x.pt`
        (TorchScript, for torch.jit.load), `x.pt2` (torch.export), `x.pte` (ExecuTorch), or a
        folder. Missing folders are made.
    simplify: False converts the graph as it is.
    input_shapes: dims by input name that overrule the model's; None, -1 or a name leaves one open.
    dynamic_batch: open the first dims of inputs, where the file fixes them but the graph takes any.
    dynamic: open these axes, by input name.
    class_name: of the emitted class.
    allow_unknown: write a stub that raises for each operator that is not known.
    fuse: fold batch normalisation into weights, for inference.
    flat: write one class with all statements, and not one for each of the author's modules.
    comments_origin: name the ONNX node behind each line.
    force: replace files that onnx2nn did not write.
    data_roots: folders below which external data may lie, besides the model's own.
    drop_undefined_outputs: leave out graph outputs that nothing defines.
    progress: called with what is done next and how many bytes of weights that writes.
    Raises Error, with all diagnostics, where the model cannot be read or converted, or where a file
    is in the way that onnx2nn did not write.
    Nothing is checked here: `verify(model, out)` does.
    """
    source = as_source(model)
    paths = None if out is None else _output_paths(source, out)
    options: dict[str, Any] = {
        "simplify": simplify,
        "input_shapes": input_shapes,
        "dynamic_batch": dynamic_batch,
        "dynamic": dynamic,
        "class_name": class_name,
        "allow_unknown": allow_unknown,
        "fuse": fuse,
        "flat": flat,
        "comments_origin": comments_origin,
        "force": force,
        "data_roots": data_roots,
        "drop_undefined_outputs": drop_undefined_outputs,
        "weights_name": os.path.basename(paths[1]) if paths else None,
    }
    conversion = _conversion(source, **options)
    if not conversion.ok:
        raise refused(source, list(conversion.diagnostics), conversion.readable)
    filename = paths[0] if paths else f"{conversion.class_name}.py"
    try:
        compiled(conversion.source, filename)
    except Error:
        # Once more, with the nodes' names in it: the error then tells which one it is.
        named = _conversion(source, **options | {"comments_origin": True})
        compiled(named.source, filename)
        raise
    files: list[str] = []
    if paths is not None:
        if progress is not None:
            progress("write", int(conversion.stats["weight_bytes"]))
        make_folder_of(paths[0])
        if Path(paths[0]).suffix.lower() in _BY_TORCH:
            files = [_write_by_torch(source, conversion, paths[0], force)]
        else:
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


def _write_by_torch(source: Source, conversion: Any, path: str, force: bool) -> str:
    """Export the module of a conversion to a file of torch's, under the rules for all outputs."""
    original = os.fspath(source.path or "")
    found = native().check_outputs(original, [path], force)
    if not found:
        try:
            from onnx2nn import exporting
            from onnx2nn.loading import build
        except ImportError as error:
            raise Error(
                f"{path}: {Path(path).suffix} files are written by torch, which is not installed: "
                "pip install 'onnx2nn[torch]'"
            ) from error
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or None) as folder:
            made = Path(folder, Path(path).name)
            exporting.write(made, build(conversion), list(conversion.inputs), source)
            found = native().publish_file(made, path, original, force)
    if found:
        raise refused(source, found)
    return path


def make_folder_of(path: str) -> None:
    """Make the folder that a file is to lie in."""
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder or ".", exist_ok=True)
    except OSError as error:
        raise Error(f"{folder}: cannot be made: {error.strerror}", unreadable=True) from error


def inspect(
    model: Model,
    *,
    simplify: bool = True,
    input_shapes: InputShapes | None = None,
    dynamic_batch: bool = False,
    dynamic: Axes | None = None,
    allow_unknown: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
) -> dict[str, Any]:
    """What is in a model and what would not convert, and why; nothing is written.

    The options are those of `convert`.
    Returns `convertible`, `producer`, `ir_version`, `opsets`, `nodes`, `nodes_after`,
    `weight_bytes`, `inputs`, `outputs`, `op_types` (counts by operator) and `diagnostics`.
    Raises Error where the model cannot be read.
    """
    source = as_source(model)
    conversion = _conversion(
        source,
        simplify=simplify,
        input_shapes=input_shapes,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        allow_unknown=allow_unknown,
        data_roots=data_roots,
        drop_undefined_outputs=drop_undefined_outputs,
    )
    diagnostics = list(conversion.diagnostics)
    if not conversion.readable or any(d.get("code") in _USAGE for d in diagnostics):
        raise refused(source, diagnostics, conversion.readable)
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
    model: Model,
    out: str | os.PathLike[str] | None = None,
    *,
    input_shapes: InputShapes | None = None,
    dynamic_batch: bool = False,
    dynamic: Axes | None = None,
    disabled: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    why_not: Sequence[str] | None = None,
    stop_after: int | None = None,
    max_constant: int | None = None,
    opset: int | None = None,
    external_data: bool = False,
    staging: str | os.PathLike[str] | None = None,
    force: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
) -> dict[str, Any]:
    """Simplify a model and write it to `out`, or to the result's `model`, without checking it.

    disabled, only, why_not: rules to do without, to use alone, and to say of why they did nothing.
    stop_after: rewrites after which it stops. max_constant: bytes of the largest folded constant.
    staging: a folder to write to until the result's `staged.publish()`.
    The others are those of `convert`.
    Returns counts of nodes, operators and bytes before and after, what each rule did, and the files.
    """
    source = as_source(model)
    options = core_options(
        input_shapes=input_shapes,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        disabled=disabled,
        only=only,
        why_not=why_not,
        stop_after=stop_after,
        max_constant=max_constant,
        opset=opset,
        external_data=external_data,
        staging=staging,
        force=force,
        data_roots=data_roots,
        drop_undefined_outputs=drop_undefined_outputs,
    )
    result = dict(native().simplify(source.data, None if out is None else os.fspath(out), options))
    if not result.get("ok", True):
        diagnostics = list(result.get("diagnostics", []))
        raise refused(source, diagnostics, result.get("readable", True))
    if result.get("staged") is None:
        result.pop("staged", None)
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
