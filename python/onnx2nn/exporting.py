"""Files that torch itself writes: programs of torch.export (.pt2), and of ExecuTorch for phones (.pte).

Both are made from the module that a conversion gives, by the installed torch, so that they are right for that
version of it. Dims that the ONNX file leaves open stay open, under its names: equal names are equal sizes.
"""

import contextlib
import functools
import io
import itertools
import logging
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx2nn.branches import as_operators
from onnx2nn.errors import Error, described
from onnx2nn.partition import xnnpack_partitioner
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
    program = export(net, inputs, source, keep_lengths=not lowered)
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


def export(
    net: "nn.Module", inputs: list[dict[str, Any]], source: Source, *, keep_lengths: bool
) -> "ExportedProgram":
    """The module as a program of torch.export, its open dims by their ONNX names.

    keep_lengths: whether the lengths of LSTMs and GRUs stay open, for which the program calls the layers whole.
    Where torch finds that two of them depend on each other, or that one is fixed, it says so in its
    own terms and the program follows it: a warning tells.
    """
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    args = _example(net, inputs, source)
    attempts = _attempts(inputs, args)
    reasons: list[str] = []
    hopeless = set()
    for narrow, way in itertools.product((False, True), _ways(net, keep_lengths)):
        with way.tracing(net) as may:
            for attempt in attempts:
                if not may or way in hopeless or attempt.is_narrow != narrow:
                    continue
                try:
                    program = _traced(net, args, attempt)
                except GuardOnDataDependentSymNode as error:  # which other dims do not change
                    hopeless.add(way)
                    reasons.append(described(error))
                except Exception as error:  # torch raises what its parts do
                    reasons.append(described(error))
                else:
                    if narrow:
                        _log.warning(
                            "the dims are not as free as the ONNX file says: %s", reasons[-1]
                        )
                    _keep_own_lines(program)
                    _say_in_words_of_files(program)
                    return program
    raise Error(
        f"{source.name}: torch.export refuses the module: {reasons[-1]}\n"
        "    write the model as .py, which carries all operators"
    )


@dataclass(frozen=True)
class _Way:
    """How Python's own code is followed."""

    rewritten: bool  # branches and loops as operators
    keep_lengths: bool

    @contextlib.contextmanager
    def tracing(self, net: "nn.Module") -> Iterator[bool]:
        """What it takes while torch traces; gives whether there is anything that it is for."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_no_empty_generators())
            if self.keep_lengths:
                stack.enter_context(length_kept_open())
            yield stack.enter_context(as_operators(net)) if self.rewritten else True


def _ways(net: "nn.Module", keep_lengths: bool) -> list[_Way]:
    from torch import nn

    ways = [_Way(False, keep_lengths), _Way(True, keep_lengths)]
    if keep_lengths and any(isinstance(m, nn.RNNBase) for m in net.modules()):
        ways.append(_Way(True, False))  # torch keeps no lengths of layers inside of branches
    return ways


@dataclass(frozen=True)
class _Attempt:
    """Dims to export with."""

    dims: tuple[Any, ...]  # torch.export's dynamic_shapes
    deferred: bool = False  # what sizes must be is checked at run time, and rules none out before
    is_narrow: bool = False  # fewer sizes than the ONNX file says


def _attempts(inputs: list[dict[str, Any]], args: tuple[Any, ...]) -> list[_Attempt]:
    """From dims that are as free as the file says to those that torch's trace leaves open."""
    from torch.export import Dim

    named = _dims(inputs, args)
    if not any(named):
        return [_Attempt(named)]
    loose = (dict.fromkeys(axes, Dim.AUTO) if axes else None for axes in named)
    return [
        _Attempt(named),
        _Attempt(named, deferred=True),
        _Attempt(_dims(inputs, args, _STRIDE), deferred=True, is_narrow=True),
        _Attempt(tuple(loose), is_narrow=True),
    ]


_STRIDE = 32  # of most networks that bring maps of several scales together


def _traced(net: "nn.Module", args: tuple[Any, ...], attempt: _Attempt) -> "ExportedProgram":
    import torch
    from torch.fx.experimental import _config

    config: Any = _config  # untyped
    # As torch.onnx.export does it: no size is taken for another than 0 or 1 because the example's is.
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        config.patch(backed_size_oblivious=attempt.deferred),
    ):
        warnings.simplefilter("ignore")
        return torch.export.export(
            net,
            args,
            dynamic_shapes=attempt.dims if any(attempt.dims) else None,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=attempt.deferred,
        )


@contextlib.contextmanager
def _no_empty_generators() -> Iterator[None]:
    """While inside, generator=None is left out: torch's overloads that take one know no open sizes.

    Not by a mode of torch's, which does not survive where torch refuses a branch.
    """
    import torch

    def leaving_out(draw: Any) -> Any:
        @functools.wraps(draw)
        def call(*args: Any, generator: Any = None, **kwargs: Any) -> Any:
            if generator is not None:
                kwargs["generator"] = generator
            return draw(*args, **kwargs)

        return call

    own = {name: getattr(torch, name) for name in ("rand", "randn")}
    for name, draw in own.items():
        setattr(torch, name, leaving_out(draw))
    try:
        yield
    finally:
        for name, draw in own.items():
            setattr(torch, name, draw)


def _keep_own_lines(program: "ExportedProgram") -> None:
    """Leave of each node's stack trace what is of the page.

    The rest is paths of the machine that it was written on, and differs from one to the next.
    """
    for node in program.graph.nodes:
        trace = node.meta.pop("stack_trace", None)
        own = _OWN_FRAME.findall(trace or "")
        if own:
            node.meta["stack_trace"] = "".join(f'  File "{file}", {rest}\n' for file, rest in own)


def _say_in_words_of_files(program: "ExportedProgram") -> None:
    """Cut numbers that are not negative to whole ones by trunc: torch.export.save knows no floor."""
    import torch

    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if node.target is math.floor and _is_never_negative(node.args[0].meta["val"]):
                node.target = math.trunc
                module.recompile()


def _is_never_negative(value: Any) -> bool:
    """Whether a number of a program is 0 at least, whatever the sizes are."""
    lower = value.node.shape_env.bound_sympy(value.node.expr).lower
    return bool(lower >= 0)


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
    declared = {w.name: w.dims for w in wanted_inputs(proto) if w.dims}
    for sizes in (_all_different(declared), _same_by_axis(declared), None):
        yield from candidates(proto, 0, None, sizes)


def _all_different(declared: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Sizes by input, one for each name; a dim without a name is like no other."""
    sizes: dict[Any, int] = {}
    return {
        name: [
            sizes.setdefault(d or (name, axis), _LEAST + len(sizes)) if isinstance(d, str) else d
            for axis, d in enumerate(dims)
        ]
        for name, dims in declared.items()
    }


def _same_by_axis(declared: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """For inputs that belong together though each calls its batch and length by names of its own."""
    return {
        name: [_LEAST + axis if isinstance(d, str) else d for axis, d in enumerate(dims)]
        for name, dims in declared.items()
    }


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


def is_name(dim: int | str | None) -> bool:
    """Whether a dim is a plain name: no number, no sum or product of others, and not unknown."""
    return isinstance(dim, str) and re.fullmatch(r"[^\W\d]\w*", dim) is not None


def _dims(inputs: list[dict[str, Any]], args: tuple[Any, ...], stride: int = 1) -> tuple[Any, ...]:
    """For each argument the axes that stay open: torch.export's dynamic_shapes.

    stride: dims whose example is a multiple of it are multiples of it.
    """
    import torch
    from torch.export import Dim

    known: dict[str, Any] = {}
    taken: set[str] = set()

    def dim(name: str | None, size: int) -> Any:
        if name is None or not is_name(name):
            return Dim.AUTO  # a sum or product of others, or unknown
        if name not in known:
            text = re.sub(r"[^0-9A-Za-z_]", "_", name)
            while text in taken:
                text += "_"
            taken.add(text)
            many = stride > 1 and size % stride == 0
            known[name] = stride * Dim(f"_{text}") if many else Dim(text)
        return known[name]

    out: list[Any] = []
    for i, value in zip(inputs, args, strict=True):
        if not isinstance(value, torch.Tensor):
            out.append(None)
            continue
        shape = i.get("shape") or [None] * value.dim()
        axes = {
            axis: dim(d, value.shape[axis])
            for axis, d in enumerate(shape)
            if not str(d).lstrip("-").isdigit()
        }
        out.append(axes or None)
    return tuple(out)


# ---- ExecuTorch ----


def _executorch(program: "ExportedProgram") -> bytes:
    try:
        from executorch.exir import to_edge_transform_and_lower

        partitioner = xnnpack_partitioner()
    except ImportError as error:
        raise Error(
            "a .pte file is written by ExecuTorch, which is not installed: pip install executorch"
        ) from error
    program = _with_planes(program)
    reasons = []
    for lay_out in (False, True):
        if lay_out and not _lay_out_attention(program):
            break
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                edge = to_edge_transform_and_lower(
                    program,
                    partitioner=[partitioner],
                    constant_methods={"written_by_onnx2nn": True},
                )
                return bytes(edge.to_executorch().buffer)
        except Exception as error:
            reasons.append(described(error))
    raise Error(f"ExecuTorch refuses the program: {reasons[-1]}")


def _with_planes(program: "ExportedProgram") -> "ExportedProgram":
    """The program with convolutions of planes for those of volumes, of which ExecuTorch has no kernel."""
    import torch

    conv3d = torch.ops.aten.conv3d.default
    if all(n.target is not conv3d for n in program.graph.nodes):
        return program
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    from onnx2nn.convolutions import by_planes

    # XNNPACK takes weights that are constants: planes of a weight are made so.
    folded: ExportedProgram = constant_prop_pass(program.run_decompositions({conv3d: by_planes}))
    for name, value in folded.constants.items():
        if isinstance(value, torch.Tensor):
            folded.constants[name] = value.detach()  # it was computed from parameters
    return folded


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
