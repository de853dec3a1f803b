"""ONNX in the forms that pnnx reads, which makes NCNN's files.

pnnx takes an input of one number for that number, where a list of numbers is meant, and then reduces over other axes without a
word. Attributes it reads as they are: so axes are attributes here, which they were until opset 17.
"""

import contextlib
from typing import Any

__all__ = ["OPSET", "as_pnnx_reads"]

OPSET = 17  # the last where axes of reductions are attributes
BEFORE = 18  # of the models that are given
_REDUCTIONS = {
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
}


def as_pnnx_reads(model: Any) -> None:
    """Bring a model (onnx_ir) of opset 18 to opset 17, with reductions in forms that pnnx reads.

    Raises ValueError where a node says what opset 17 cannot.
    """
    for graph in (model.graph, *model.functions.values()):
        for node in list(graph.all_nodes()):
            if node.domain:
                continue
            node.version = None
            if node.op_type not in _REDUCTIONS:
                _take_back(node)
                continue
            axes = _axes(node)
            if node.op_type == "ReduceSum":  # whose axes are an input since opset 13
                _sum_over_two(node, axes)
            elif node.op_type in ("ReduceMax", "ReduceMin"):
                _one_by_one(node, axes)
            else:
                _name_axes(node, axes)
        graph.opset_imports[""] = OPSET


def _axes(node: Any) -> list[int]:
    """What a reduction is over; all axes where it names none."""
    from onnxscript import ir

    x, given = (*node.inputs, None)[:2]
    constant = None if given is None else ir.convenience.get_const_tensor(given)
    if given is not None and constant is None:
        raise ValueError(f"{node.op_type} over axes that are computed is not in opset {OPSET}")
    axes = [] if constant is None else [int(a) for a in constant.numpy().reshape(-1)]
    if axes:
        return axes
    if node.attributes.get_int("noop_with_empty_axes", 0) or x.shape is None:
        raise ValueError(f"{node.op_type} over no axes is not in opset {OPSET}")
    return list(range(len(x.shape)))


def _name_axes(node: Any, axes: list[int]) -> None:
    from onnxscript import ir

    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)


def _one_by_one(node: Any, axes: list[int]) -> None:
    """One reduction for each axis: pnnx knows the largest and the smallest over one."""
    keep = node.attributes.get_int("keepdims", 1)
    x = node.inputs[0]
    if any(a < 0 for a in axes) and len(axes) > 1:
        if x.shape is None:
            raise ValueError(f"{node.op_type}: nobody knows how many axes its input has")
        axes = [a % len(x.shape) for a in axes]
    *others, first = sorted(
        axes, reverse=True
    )  # the last one first: the others stay where they are
    for axis in others:
        x = _before(node, node.op_type, x, axes=[axis], keepdims=keep)
    node.replace_input_with(0, x)
    _name_axes(node, [first])


def _sum_over_two(node: Any, axes: list[int]) -> None:
    """A sum over one axis as that over it and over a new one of one element."""
    if len(axes) > 1:
        return
    (axis,) = axes
    both = [axis, axis + 1] if axis >= 0 else [axis - 1, axis]
    wide = _before(node, "Unsqueeze", node.inputs[0], _constant(node, [axis]))
    if node.attributes.get_int("keepdims", 1) == 0:
        node.replace_input_with(0, wide)
        node.replace_input_with(1, _constant(node, both))
        return
    total = _before(node, "ReduceSum", wide, _constant(node, both), keepdims=0)
    node.op_type = "Unsqueeze"
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(0, total)
    node.replace_input_with(1, _constant(node, [axis]))


def _take_back(node: Any) -> None:
    """Leave out attributes that opset 18 added to an operator, and that say what it does anyway."""
    from onnx import defs

    now = defs.get_schema(node.op_type, BEFORE)
    then = None
    with contextlib.suppress(defs.SchemaError):
        then = defs.get_schema(node.op_type, OPSET)
    if then is None:
        raise ValueError(f"{node.op_type} is not in opset {OPSET}")
    if now.since_version == then.since_version:
        return
    for name in set(node.attributes) - set(then.attributes):
        if name == "num_outputs":
            _name_sizes(node)
        elif not _is_default(node.attributes[name].value, now.attributes[name].default_value):
            raise ValueError(f"{node.op_type} with {name} is not in opset {OPSET}")
        del node.attributes[name]
    is_new = node.attributes.get_string("reduction", "none") in ("max", "min")  # of Scatter
    if is_new or any(node.inputs[then.max_input :]):
        raise ValueError(f"this form of {node.op_type} is not in opset {OPSET}")


def _is_default(value: Any, default: Any) -> bool:
    """default: an onnx.AttributeProto, without a name where there is none."""
    from onnx import helper

    usual = helper.get_attribute_value(default) if default.name else None
    return bool(value == (usual.decode() if isinstance(usual, bytes) else usual))


def _name_sizes(split: Any) -> None:
    """The sizes of parts of a Split: without them pnnx forgets its axis."""
    x, count = split.inputs[0], len(split.outputs)
    size = None if x.shape is None else x.shape[split.attributes.get_int("axis", 0)]
    if not isinstance(size, int):
        raise ValueError(f"Split of an open size into {count} parts is not in opset {OPSET}")
    part = -(-size // count)
    sizes = [part] * (count - 1) + [size - part * (count - 1)]
    split.resize_inputs(2)
    split.replace_input_with(1, _constant(split, sizes))


def _before(node: Any, op_type: str, *inputs: Any, **attributes: Any) -> Any:
    """The output of a new node in front of another."""
    from onnxscript import ir

    new = ir.node(op_type, inputs, attributes)
    node.graph.insert_before(node, new)
    return new.outputs[0]


def _constant(node: Any, numbers: list[int]) -> Any:
    return _before(node, "Constant", value_ints=numbers)
