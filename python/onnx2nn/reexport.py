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

from onnx2nn import pnnx_forms, recurrent, zip_maps
from onnx2nn.api import simplify_unchecked
from onnx2nn.convolutions import as_products
from onnx2nn.core import native, refused, run_native
from onnx2nn.errors import Error, described, printable
from onnx2nn.exporting import export, is_name
from onnx2nn.source import Model, Source, as_source

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

__all__ = ["export_onnx"]

# torch writes pooling to one element as that and a copy by strides, which NCNN and others do not know. All
# else stays as the exporter has it.
_RULES = ["gather-by-strides"]
_EXTERNAL_BYTES = 2**31 - 2**26  # protobuf's limit, less what a graph takes


def export_onnx(
    net: "nn.Module",
    model: Model,
    out: str | os.PathLike[str],
    *,
    opset: int | None = None,
    for_pnnx: bool = False,
    force: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
) -> list[str]:
    """Write a module that came from an ONNX model as ONNX again, by torch.onnx.export(dynamo=True).

    net: what `load` gave of the model, or the written source's `load()`, trained further or not.
    model: the ONNX model that it came from, a path, bytes or an onnx.ModelProto: the file gets the
        names of its inputs and outputs, and dims that it leaves open stay open under its names.
    out: `x.onnx`; weights of more than 2 GB go to `x.onnx.data` beside it. Their names are the
        module's state_dict keys.
    opset: of the written file, 18 or more; torch's default where it is not given.
    for_pnnx: write reductions as pnnx reads them, in opset 17, for NCNN.
    force: replace files that onnx2nn did not write.
    data_roots: folders below which external data may lie, besides the model's own.
    Returns the files. Raises Error where torch cannot export the module, in that opset, where onnxscript
    is not installed, or where a file is in the way that onnx2nn did not write.
    """
    import torch

    if opset is not None and (for_pnnx or opset < pnnx_forms.BEFORE):
        given = f"opset={opset}" + (" with for_pnnx" if for_pnnx else "")
        raise Error(
            f"{given}: torch writes opset {pnnx_forms.BEFORE} and later ones, and for_pnnx brings what it"
            f" writes to {pnnx_forms.OPSET}"
        )
    if find_spec("onnxscript") is None:
        raise Error(
            "torch.onnx.export needs onnxscript, which is not installed: pip install onnxscript"
        )
    source = as_source(model)
    found = native().check_outputs(os.fspath(source.path or ""), [out], force)
    if found:
        raise refused(source, found)
    interface = run_native(source, {"data_roots": data_roots})
    inputs = list(interface.inputs)
    for place, values in ("input", inputs), ("output", interface.outputs):
        for v in values:
            may_be_map = place == "output" and v["kind"] == "sequence" and zip_maps.has_maps(net)
            if v["kind"] != "tensor" and not may_be_map:
                raise _no_tensor(source, place, v)
    of_layers = recurrent.translations()
    with zip_maps.rows_of_maps(net) as labels:
        program = export(net, inputs, source, keep_lengths=bool(of_layers))
    maps = _names_of_rows(source, interface.outputs, program, len(labels))
    if of_layers:
        recurrent.as_operators(program)
    _say_in_known_words(program)
    large = sum(t.nbytes for t in net.state_dict().values()) > _EXTERNAL_BYTES
    with tempfile.TemporaryDirectory(prefix="onnx2nn-") as folder:
        made = Path(folder, "again.onnx")
        try:
            with _quiet(), _calls_of_one_version(), torch.no_grad():
                again = torch.onnx.export(
                    program,
                    (),
                    dynamo=True,
                    verbose=False,
                    opset_version=pnnx_forms.BEFORE if for_pnnx else opset,
                    input_names=[str(i["name"]) for i in inputs],
                    output_names=[maps.get(o["name"], o["name"]) for o in interface.outputs],
                    dynamic_shapes=_dim_names(inputs, program),
                    custom_translation_table=_translations() | of_layers,
                )
                assert again is not None  # it is where dynamo is on
                _give_out_inputs(again.model)
                _leave_names_to_outputs(again.model, maps)
                _fix_numbers(again.model)
                _look_rows_up(again.model)
                _forget_paths(again.model)
                if for_pnnx:
                    pnnx_forms.as_pnnx_reads(again.model)
                again.save(made, external_data=large)
            if maps:
                zip_maps.put_behind(made, {rows: name for name, rows in maps.items()}, *labels)
        except Exception as error:  # torch raises what its parts do
            raise Error(f"{source.name}: torch.onnx.export: {_cause(error)}") from error
        result = simplify_unchecked(made, out, only=_RULES, external_data=large, force=force)
    return [str(f) for f in result["files"]]


def _no_tensor(source: Source, place: str, value: dict[str, Any]) -> Error:
    return Error(
        f"{source.name}: torch.onnx.export takes apart what is no tensor, as the {place}"
        f" {printable(str(value['name']))}, a {value['kind']}, is"
    )


def _names_of_rows(
    source: Source, outputs: Iterable[dict[str, Any]], program: "ExportedProgram", sets: int
) -> dict[str, str]:
    """What rows of scores are called, by the name of the output that is maps of them.

    sets: of labels, as many as the program has seen. Raises Error for sequences of another kind.
    """
    spec = program.call_spec.out_spec
    parts = [spec] if spec is None or spec.is_leaf() else spec.children()
    maps = {}
    for output, part in zip(outputs, parts, strict=True):
        if output["kind"] == "tensor":
            continue
        if sets != 1 or part is None or not part.is_leaf():
            raise _no_tensor(source, "output", output)
        maps[str(output["name"])] = f"{output['name']}_rows"
    return maps


def _dim_names(
    inputs: list[dict[str, Any]], program: "ExportedProgram"
) -> tuple[dict[int, str] | None, ...]:
    """For each input the names of its open dims by axis, as torch.onnx.export takes them.

    A dim that torch has fixed, such as the length of an LSTM that it unrolled, is open no more.
    """
    import torch

    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    kept = [values[name] for name in program.graph_signature.user_inputs]
    return tuple(
        {
            axis: d
            for axis, d in enumerate(i.get("shape") or [])
            # A symbol that torch has found to be one number is that number as text.
            if is_name(d) and not str(value.shape[axis]).isdigit()
        }
        or None
        if isinstance(value, torch.Tensor)
        else None
        for i, value in zip(inputs, kept, strict=True)
    )


def _translations() -> dict[Any, Callable[..., Any]]:
    """What torch's exporter has no ONNX for and emitted source calls."""
    import onnx
    import torch
    from onnxscript import ir, opset18, values

    kinds = ir.DataType
    unsigned = (kinds.UINT8, kinds.UINT16, kinds.UINT32, kinds.UINT64)
    op: Any = opset18  # whose functions are typed as ONNX's operators: no Python numbers

    def stable_sort(x: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
        # TopK puts the lowest index first among equal values, as a stable sort does.
        del stable
        length = op.Reshape(op.Shape(x, start=dim, end=dim + 1 or None), [1])
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    def power_of_two(by: Any, like: Any) -> Any:
        return op.CastLike(op.Pow(op.CastLike(op.Constant(value_int=2), by), by), like)

    def left_shift(x: Any, by: Any) -> Any:
        if x.dtype in unsigned:
            return op.BitShift(x, by, direction="LEFT")
        return op.Mul(x, power_of_two(by, x))

    def right_shift(x: Any, by: Any) -> Any:
        if x.dtype in unsigned:
            return op.BitShift(x, by, direction="RIGHT")
        # Of signed numbers what is shifted out is cut off below, while Div rounds towards zero.
        step = power_of_two(by, x)
        return op.Div(op.Sub(x, op.Mod(x, step)), step)

    def search_sorted(
        edges: Any, x: Any, out_int32: bool = False, right: bool = False, **others: Any
    ) -> Any:
        # How many are before: those that are less, or no greater, where the right side is meant.
        if others.get("side") == "right" or others.get("sorter") is not None:
            raise NotImplementedError("searchsorted with a side by name, or with a sorter")
        if len(edges.shape) > 1:
            edges = op.Unsqueeze(edges, [-2])
        x = op.Unsqueeze(x, [-1])
        before = op.LessOrEqual(edges, x) if right else op.Less(edges, x)
        kind = kinds.INT32 if out_int32 else kinds.INT64
        return op.ReduceSum(op.Cast(before, to=kind), [-1], keepdims=0)

    def inverse(x: Any) -> Any:
        # ONNX has none; ONNX Runtime's own is where such modules come from.
        floats = ["tensor(float)", "tensor(double)", "tensor(float16)"]
        schema = onnx.defs.OpSchema(
            "Inverse",
            "com.microsoft",
            1,
            inputs=[onnx.defs.OpSchema.FormalParameter("X", "T")],
            outputs=[onnx.defs.OpSchema.FormalParameter("Y", "T")],
            type_constraints=[("T", floats, "")],
        )
        y = values.Op(values.Opset("com.microsoft", 1), "Inverse", schema)(x)
        y.dtype, y.shape = x.dtype, x.shape
        return y

    aten = torch.ops.aten
    return {
        aten.linalg_inv.default: inverse,
        aten.searchsorted.Tensor: search_sorted,
        aten.sort.stable: stable_sort,
        aten.__lshift__.Tensor: left_shift,
        aten.__rshift__.Tensor: right_shift,
    }


def _say_in_known_words(program: "ExportedProgram") -> None:
    """Write calls that torch's exporter has no ONNX for as ones that it has."""
    import torch

    for module in program.graph_module.modules():  # its own, and those of branches and loops
        if isinstance(module, torch.fx.GraphModule):
            _say_in_known_words_of(module.graph)
            module.recompile()


def _say_in_known_words_of(graph: Any) -> None:
    import torch

    aten = torch.ops.aten
    small = (torch.uint8, torch.int8, torch.int16)
    plain = {aten.randn.generator: aten.randn.default, aten.rand.generator: aten.rand.default}

    def kind(node: Any) -> Any:
        return node.meta.get("val") if isinstance(node, torch.fx.Node) else None

    def before(node: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        with graph.inserting_before(node):
            return graph.call_function(function, args, kwargs)

    convolutions = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
    for node in list(graph.nodes):
        if node.target in convolutions and kind(node).dtype == torch.float64:
            as_products(graph, node)
        elif node.target is aten.index.Tensor:
            # GatherND and the like take indices of 64 bits.
            node.args = (
                node.args[0],
                [
                    before(node, aten.to.dtype, i, torch.int64)
                    if getattr(kind(i), "dtype", None) in (torch.int32, torch.int16, torch.uint8)
                    else i
                    for i in node.args[1]
                ],
            )
        elif node.target in (aten.amin.default, aten.amax.default) and len(node.args) < 2:
            node.args = (node.args[0], list(range(kind(node.args[0]).dim())))
        elif node.target is aten.where.self and kind(node).dtype == torch.bool:
            test, a, b = node.args  # ONNX Runtime chooses between numbers only
            a = before(node, aten.logical_and.default, test, a)
            rest = before(node, aten.logical_not.default, test)
            b = before(node, aten.logical_and.default, rest, b)
            node.target, node.args = aten.logical_or.default, (a, b)
        elif node.target in (aten.tril.default, aten.triu.default) and kind(node).dtype in small:
            x, *diagonal = node.args
            wide = before(node, aten.to.dtype, x, torch.int64)
            wide = before(node, node.target, wide, *diagonal)
            node.target, node.args = aten.to.dtype, (wide, kind(node).dtype)
        elif node.target in plain and node.kwargs.get("generator") is None:
            node.target = plain[node.target]
            node.kwargs = {k: v for k, v in node.kwargs.items() if k != "generator"}
        elif node.target is aten.layer_norm.default and _has_weight_alone(node):
            # pnnx knows layer norms with both a weight and a bias, or with neither.
            x, shape, weight, *rest = node.args
            zeros = before(node, aten.zeros_like.default, weight)
            node.args = (x, shape, weight, zeros, *rest[1:])
        elif node.target is aten.scaled_dot_product_attention.default and all(
            kind(x).dim() == 3 for x in node.args[:3]
        ):
            _give_axis(graph, node)


def _has_weight_alone(norm: Any) -> bool:
    """Whether a call of layer_norm has a weight and no bias."""
    weight, bias = (*norm.args[2:4], None, None)[:2]
    return weight is not None and bias is None and "bias" not in norm.kwargs


def _give_axis(graph: Any, node: Any) -> None:
    """Attention of three axes as that of four, where it is no output of the program itself."""
    import torch

    aten = torch.ops.aten
    users = list(node.users)
    if (
        any(user.op == "output" for user in users)
        or len(node.args) > 3
        or "attn_mask" in node.kwargs
    ):
        return
    with graph.inserting_before(node):
        node.args = tuple(graph.call_function(aten.unsqueeze.default, (x, 1)) for x in node.args)
    with graph.inserting_after(node):
        whole = graph.call_function(aten.squeeze.dim, (node, 1))
    for user in users:
        user.replace_input_with(node, whole)


def _leave_names_to_outputs(model: Any, others: Iterable[str]) -> None:
    """Rename values inside (onnx_ir) that the exporter called as the model calls its outputs, or as others."""
    taken = {v.name for v in (*model.graph.inputs, *model.graph.outputs)}
    taken |= {*model.graph.initializers, *others}
    inner = [y for node in model.graph.all_nodes() for y in node.outputs if not y.is_graph_output()]
    names = taken | {y.name for y in inner}
    for y in inner:
        if y.name in taken:
            count = 1
            while f"{y.name}_{count}" in names:
                count += 1
            y.name = f"{y.name}_{count}"
            names.add(y.name)


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


def _fix_numbers(model: Any) -> None:
    """Dims of a model's inputs and outputs (onnx_ir) that are symbols called 2 are 2."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        for axis, d in enumerate(value.shape or ()):
            if str(getattr(d, "value", None)).isdigit():
                value.shape[axis] = int(d.value)


def _look_rows_up(model: Any) -> None:
    """Leave out the axis of lookups in a weight (onnx_ir), which is the default.

    pnnx knows an embedding by that.
    """
    for node in model.graph.all_nodes():
        if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
            rows, indices = node.inputs
            if rows.is_initializer() and len(rows.shape) == 2 and not indices.is_initializer():
                node.attributes.pop("axis", None)


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
def _calls_of_one_version() -> Iterator[None]:
    """While inside, the exporter's calls of branches and bodies are all of their functions' version.

    It gives the test of a loop before its first round ONNX's own, and then cannot put a loop with functions
    inside in its place.
    """
    try:
        from torch.onnx._internal.exporter._torchlib.ops import hop
    except ImportError:
        yield
        return
    untyped: Any = hop
    own = untyped.call_op

    def call_op(op_type: str, *args: Any, _domain: str = "", **kwargs: Any) -> Any:
        outputs = own(op_type, *args, _domain=_domain, **kwargs)
        if _domain:
            outputs[0].producer().version = 1
        return outputs

    untyped.call_op = call_op
    try:
        yield
    finally:
        untyped.call_op = own


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
