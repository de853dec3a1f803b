"""Files that torch itself writes: programs of torch.export (.pt2), and of ExecuTorch for phones (.pte).

Both are made from the module that a conversion gives, by the installed torch, so that they are right for that
version of it. Dims that the ONNX file leaves open stay open, under its names: equal names are equal sizes.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx2nn.branches import as_operators
from onnx2nn.errors import Error, described
from onnx2nn.recurrent import length_kept_open
from onnx2nn.source import Source

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

__all__ = ["export", "is_name", "load_exported", "write"]

MARK = "onnx2nn"  # the record by which an archive is known as ours
_log = logging.getLogger("onnx2nn")
_LEAST = 2  # torch takes a size of 1 for one that broadcasts, and fixes it


def write(path: Path, net: "nn.Module", inputs: list[dict[str, Any]], source: Source) -> None:
    """Write the module to `path`: by torch.export for x.pt2, by ExecuTorch for x.pte.

    inputs: of the conversion, in the order of the module's arguments.
    Raises Error where torch cannot export the module, or ExecuTorch is not installed.
    """
    lowered = path.suffix.lower() == ".pte"
    # ExecuTorch takes layers apart, step by step.
    with contextlib.nullcontext() if lowered else length_kept_open():
        program = export(net, inputs, source)
    if lowered:
        data: memoryview | bytes = _executorch(program)
    else:
        import torch

        # Not to the file: where a disk is full, torch's writer ends the process.
        stream = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.export.save(program, stream, extra_files={MARK: source.name})
        except Exception as error:
            raise Error(f"{source.name}: torch.export.save: {described(error)}") from error
        data = stream.getbuffer()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Error(f"{path.name}: cannot be written: {error.strerror}", unreadable=True) from error


def export(net: "nn.Module", inputs: list[dict[str, Any]], source: Source) -> "ExportedProgram":
    """The module as a program of torch.export, its open dims by their ONNX names.

    Where torch finds that two of them depend on each other, or that one is fixed, it says so in its
    own terms and the program follows it: a warning tells.
    """
    import torch

    args = _example(net, inputs, source)
    named = _dims(inputs, args)
    loose = tuple(
        dict.fromkeys(dims, torch.export.Dim.AUTO) if dims is not None else None for dims in named
    )
    reasons = []
    for tracing in (contextlib.nullcontext(True), as_operators(net)):
        with tracing as other:
            for dims in (named, loose) if other else ():
                try:
                    with warnings.catch_warnings(), torch.no_grad():
                        warnings.simplefilter("ignore")
                        program = torch.export.export(
                            net, args, dynamic_shapes=dims if any(dims) else None, strict=False
                        )
                except Exception as error:  # torch raises what its parts do
                    reasons.append(described(error))
                    continue
                if dims is loose:
                    _log.warning("the dims are not as free as the ONNX file says: %s", reasons[-1])
                _keep_own_lines(program)
                return program
    raise Error(
        f"{source.name}: torch.export refuses the module: {reasons[-1]}\n"
        "    write the model as .py, which carries all operators"
    )


def _keep_own_lines(program: "ExportedProgram") -> None:
    """Leave of each node's stack trace what is of the page.

    The rest is paths of the machine that it was written on, and differs from one to the next.
    """
    for node in program.graph.nodes:
        trace = node.meta.pop("stack_trace", None)
        own = _OWN_FRAME.findall(trace or "")
        if own:
            node.meta["stack_trace"] = "".join(f'  File "{file}", {rest}\n' for file, rest in own)


# A frame of a page that was loaded: see onnx2nn.loading for its file name.
_OWN_FRAME = re.compile(r'  File "<onnx2nn_loaded_\d+_(.*?)>", (line \d+, in \w+\n    .*)')


def load_exported(path: Path) -> "nn.Module":
    """The module of a .pt2 file. Raises Error where torch cannot load it."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torch.export.load(str(path)).module()
    except Exception as error:
        raise Error(f"{path}: torch.export.load refuses it: {described(error)}") from error
    return module


# ---- Examples and dims ----


def _feeds(source: Source) -> Iterator[dict[str, Any]]:
    """Inputs that the model may take; open dims first at sizes that torch does not fix."""
    from onnx2nn.check.inputs import candidates, wanted_inputs
    from onnx2nn.check.oracle import read_proto

    try:
        proto = read_proto(source)
    except ImportError as error:
        raise Error(f"{source.name}: exporting draws inputs by onnx: pip install onnx") from error
    open_dims: dict[str, int] = {}
    shapes: dict[str, list[Any]] = {}
    for wanted in wanted_inputs(proto):
        dims = []
        for d in wanted.dims or []:
            if isinstance(d, str):
                dims.append(open_dims.setdefault(d, _LEAST + len(open_dims)) if d else None)
            else:
                dims.append(d)
        if wanted.dims:
            shapes[wanted.name] = dims
    for sizes in (shapes, None):
        yield from candidates(proto, 0, None, sizes)


def _example(net: "nn.Module", inputs: list[dict[str, Any]], source: Source) -> tuple[Any, ...]:
    """Arguments that the module takes."""
    import torch

    from onnx2nn.tensors import to_torch

    last = "no inputs could be drawn"
    for tried, feed in enumerate(_feeds(source)):
        if tried == _MOST_FEEDS:
            break
        args = tuple(to_torch(feed[str(i["name"])]) for i in inputs)
        try:
            with torch.no_grad():
                net(*args)
        except Exception as error:
            last = described(error)
        else:
            return args
    raise Error(f"{source.name}: no example inputs were found to export the module with: {last}")


_MOST_FEEDS = 24


def is_name(dim: str) -> bool:
    """Whether an open dim is a plain name, no sum or product of others and not unknown."""
    return re.fullmatch(r"[^\W\d]\w*", dim) is not None


def _dims(inputs: list[dict[str, Any]], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """For each argument the axes that stay open: torch.export's dynamic_shapes."""
    import torch
    from torch.export import Dim

    known: dict[str, Any] = {}
    taken: set[str] = set()

    def dim(name: str) -> Any:
        if not is_name(name):
            return Dim.AUTO  # a sum or product of others, or unknown
        if name not in known:
            text = re.sub(r"[^0-9A-Za-z_]", "_", name)
            while text in taken:
                text += "_"
            taken.add(text)
            known[name] = Dim(text)
        return known[name]

    out: list[Any] = []
    for i, value in zip(inputs, args, strict=True):
        if not isinstance(value, torch.Tensor):
            out.append(None)
            continue
        shape = i.get("shape") or ["?"] * value.dim()
        axes = {
            axis: dim(str(d)) for axis, d in enumerate(shape) if not str(d).lstrip("-").isdigit()
        }
        out.append(axes or None)
    return tuple(out)


# ---- ExecuTorch ----


def _executorch(program: "ExportedProgram") -> bytes:
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise Error(
            "a .pte file is written by ExecuTorch, which is not installed: pip install executorch"
        ) from error
    reasons = []
    for lay_out in (False, True):
        if lay_out and not _lay_out_attention(program):
            break
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                edge = to_edge_transform_and_lower(
                    program,
                    partitioner=[XnnpackPartitioner()],
                    constant_methods={"written_by_onnx2nn": True},
                )
                return bytes(edge.to_executorch().buffer)
        except Exception as error:
            reasons.append(described(error))
    raise Error(f"ExecuTorch refuses the program: {reasons[-1]}")


def _lay_out_attention(program: "ExportedProgram") -> bool:
    """Copy what attention gives to the usual layout. Returns whether there is any.

    ExecuTorch takes reshapes apart by the strides of torch's kernel, and attention after that, into
    operators whose strides are others: reshapes that joined axes without a copy are views no more.
    """
    import torch

    aten, graph = torch.ops.aten, program.graph
    found = [n for n in graph.nodes if n.target is aten.scaled_dot_product_attention.default]
    for node in found:
        users = list(node.users)
        with graph.inserting_after(node):
            laid_out = graph.call_function(
                aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
            )
        laid_out.meta["val"] = node.meta["val"].contiguous()
        for user in users:
            user.replace_input_with(node, laid_out)
    program.graph_module.recompile()
    return bool(found)
