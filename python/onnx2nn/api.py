"""Conversion and inspection; neither torch nor numpy is needed."""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

from onnx2nn import core
from onnx2nn.core import (
    USAGE,
    Axes,
    InputShapes,
    conversion_of,
    core_options,
    inspection_of,
    refused,
)
from onnx2nn.errors import Diagnostic, Error, diagnostic, printable
from onnx2nn.log import step
from onnx2nn.source import Model, Source, as_source

__all__ = [
    "Converted",
    "check_outputs",
    "compiled",
    "convert",
    "inspect",
    "make_folder_of",
    "simplify_unchecked",
]

_BY_TORCH = (".pt2", ".pte")  # files that torch itself writes


def compiled(source: str, filename: str) -> CodeType:
    """The emitted source as code; an Error where Python refuses it, which is a fault of ours."""
    try:
        return compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        message = f"Python cannot compile the source that was made: {error}"
        line = getattr(error, "lineno", None)
        found = diagnostic("internal", message)
        if line is not None:
            # Each line says which node it came from.
            texts = source.splitlines()[:line]
            found["node"] = next(
                (t.partition("  # ")[2] for t in reversed(texts) if "  # " in t), ""
            )
        raise Error(f"{filename}: {message}", [found]) from error


def _output_paths(source: Source, out: str | os.PathLike[str]) -> tuple[str, str]:
    """(source, weights) of a conversion to `out`."""
    try:
        one, two = core.native().output_paths(source.name, out)
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
    found = core.native().check_outputs(os.fspath(source.path or ""), files, force)
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
        where = ", ".join(map(printable, self.files)) or "in memory"
        nodes, weights = self.stats.get("nodes_after"), self.stats.get("weight_bytes")
        return f"<Converted {self.class_name}: {nodes} nodes, {weights} bytes of weights, {where}>"

    def _repr_html_(self) -> str | None:
        """As a notebook shows it."""
        from onnx2nn.report.notebook import of_conversion

        return of_conversion(self)

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
    max_shard_size: int | str | None = None,
    tp_plan: bool = False,
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
    max_shard_size: bytes, or a text such as "500MB" or "2GiB", above which safetensors are several
        files `x-00001-of-0000N.safetensors` and `x.safetensors.index.json`; else 5GB.
    tp_plan: write a function `tp_plan()` too: a plan for torch's parallelize_module.
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
        "max_shard_size": max_shard_size,
        "tp_plan": tp_plan,
        "force": force,
        "data_roots": data_roots,
        "drop_undefined_outputs": drop_undefined_outputs,
        "weights_name": os.path.basename(paths[1]) if paths else None,
    }
    conversion = conversion_of(source, **options)
    if not conversion.ok:
        raise refused(source, list(conversion.diagnostics), conversion.readable)
    filename = paths[0] if paths else f"{conversion.class_name}.py"
    try:
        compiled(conversion.source, filename)
    except Error:
        # Once more, with the nodes' names in it: the error then tells which one it is.
        named = conversion_of(source, **options | {"comments_origin": True})
        compiled(named.source, filename)
        raise
    files: list[str] = []
    if paths is not None:
        if progress is not None:
            progress("write", int(conversion.stats["weight_bytes"]))
        make_folder_of(paths[0])
        with step(f"write {paths[0]}"):
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
    found = core.native().check_outputs(original, [path], force)
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
            found = core.native().publish_file(made, path, original, force)
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
    nodes: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
) -> dict[str, Any]:
    """What is in a model and what would not convert, and why; nothing is written.

    nodes: lists each node as well. The other options are those of `convert`.
    Returns what `onnx2nn inspect --json` prints about the model (docs/json.md): `convertible` and
    `diagnostics`; `inputs`, `outputs`, `opsets` and what else the file says of itself; `parameters`,
    `multiply_adds`, `activation_bytes` and `peak_activation_bytes`, each a number, an expression over
    the model's open sizes, or None where it is not known; the same by operator (`operators`) and
    by block (`blocks`); `unused_inputs`, `unused_initializers` and `external_files`.
    Raises Error where the model cannot be read. Where its external data alone cannot be, that is
    among the diagnostics, `external_files` says what is wrong, and the rest is there.
    """
    source = as_source(model)
    found = inspection_of(
        source,
        simplify=simplify,
        input_shapes=input_shapes,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        allow_unknown=allow_unknown,
        nodes=nodes,
        data_roots=data_roots,
        drop_undefined_outputs=drop_undefined_outputs,
    )
    readable = found.pop("readable")
    if not readable or any(d.get("code") in USAGE for d in found["diagnostics"]):
        raise refused(source, found["diagnostics"], readable)
    return found


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
    with step(f"simplify {source.name}"):
        result = dict(
            core.native().simplify(source.data, None if out is None else os.fspath(out), options)
        )
    if not result.get("ok", True):
        diagnostics = list(result.get("diagnostics", []))
        raise refused(source, diagnostics, result.get("readable", True))
    if result.get("staged") is None:
        result.pop("staged", None)
    return result
