"""`export_onnx`: a module that came from an ONNX model as ONNX again, by torch's own exporter."""

import contextlib
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx2nn.api import simplify_unchecked
from onnx2nn.core import native, refused, run_native
from onnx2nn.errors import Error, described
from onnx2nn.exporting import export, is_name
from onnx2nn.source import Model, as_source

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export_onnx"]

_EXTERNAL_BYTES = 2**31 - 2**26  # protobuf's limit, less what a graph takes


def export_onnx(
    net: "nn.Module",
    model: Model,
    out: str | os.PathLike[str],
    *,
    opset: int | None = None,
    force: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
) -> list[str]:
    """Write a module that came from an ONNX model as ONNX again, by torch.onnx.export(dynamo=True).

    net: what `load` gave of the model, or the written source's `load()`, trained further or not.
    model: the ONNX model that it came from, a path, bytes or an onnx.ModelProto: the file gets the
        names of its inputs and outputs, and dims that it leaves open stay open under its names.
    out: `x.onnx`; weights of more than 2 GB go to `x.onnx.data` beside it. Their names are the
        module's state_dict keys.
    opset: of the written file; torch's default where it is not given.
    force: replace files that onnx2nn did not write.
    data_roots: folders below which external data may lie, besides the model's own.
    Returns the files. Raises Error where torch cannot export the module, where onnxscript is not
    installed, or where a file is in the way that onnx2nn did not write.
    """
    import torch

    if find_spec("onnxscript") is None:
        raise Error(
            "torch.onnx.export needs onnxscript, which is not installed: pip install onnxscript"
        )
    source = as_source(model)
    found = native().check_outputs(os.fspath(source.path or ""), [out], force)
    if found:
        raise refused(source, found)
    interface = run_native(source, {"data_roots": data_roots})
    rules = [*native().simplify_rules()]
    inputs = list(interface.inputs)
    program = export(net, inputs, source)
    large = sum(t.nbytes for t in net.state_dict().values()) > _EXTERNAL_BYTES
    with tempfile.TemporaryDirectory(prefix="onnx2nn-") as folder:
        made = Path(folder, "again.onnx")
        try:
            with _quiet(), torch.no_grad():
                again = torch.onnx.export(
                    program,
                    (),
                    dynamo=True,
                    verbose=False,
                    opset_version=opset,
                    input_names=[str(i["name"]) for i in inputs],
                    output_names=[str(o["name"]) for o in interface.outputs],
                    dynamic_shapes=_dim_names(inputs),
                    custom_translation_table=_translations(),
                )
                assert again is not None  # it is where dynamo is on
                _give_out_inputs(again.model)
                _forget_paths(again.model)
                again.save(made, external_data=large)
        except Exception as error:  # torch raises what its parts do
            raise Error(f"{source.name}: torch.onnx.export: {_cause(error)}") from error
        result = simplify_unchecked(made, out, disabled=rules, external_data=large, force=force)
    return [str(f) for f in result["files"]]


def _dim_names(inputs: list[dict[str, Any]]) -> tuple[dict[int, str] | None, ...]:
    """For each input the names of its open dims by axis, as torch.onnx.export takes them."""
    return tuple(
        {axis: str(d) for axis, d in enumerate(i.get("shape") or []) if is_name(str(d))} or None
        for i in inputs
    )


def _translations() -> dict[Any, Callable[..., Any]]:
    """What torch's exporter has no ONNX for and emitted source calls."""
    import torch
    from onnxscript import opset18

    op: Any = opset18  # whose functions are typed as ONNX's operators: no Python numbers

    def stable_sort(x: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
        # TopK puts the lowest index first among equal values, as a stable sort does.
        del stable
        length = op.Reshape(op.Shape(x, start=dim, end=dim + 1 or None), [1])
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: stable_sort}


def _give_out_inputs(model: Any) -> None:
    """An output under an input's name is that input (onnx_ir); torch copies it to a second value."""
    inputs = {i.name: i for i in model.graph.inputs}
    for k, output in enumerate(model.graph.outputs):
        if output.name in inputs:
            model.graph.outputs[k] = inputs[output.name]
            node = output.producer()
            if node is not None and all(
                not y.uses() and not y.is_graph_output() for y in node.outputs
            ):
                model.graph.remove(node, safe=True)


def _cause(error: BaseException) -> str:
    """What went wrong first: the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return described(error)


def _forget_paths(model: Any) -> None:
    """Leave out of a model's metadata (onnx_ir) what tells of this machine, and count no modules."""
    for node in model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        node.metadata_props.pop("pkg.torch.onnx.fx_node", None)
        for key, text in node.metadata_props.items():
            node.metadata_props[key] = re.sub(r"\bonnx2nn_(loaded|written)_\d+_", "", text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's words on what is none of the user's: torchvision, names of dims."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
