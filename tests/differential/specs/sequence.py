"""Sequences and optionals."""

from typing import Any

import numpy as np
from onnx import helper

from ..draw import Draw, Node, Typed, kind_of
from ..engine import Row, type_of


def items(d: Draw, param: str = "S", alike: bool = False) -> list[Any]:
    """One to four tensors of a type, of one shape where they are alike."""
    dtype = d.t(param)
    shape = d.shape(1, 3)
    count = d.integer(1, 4)
    return [d.x(shape if alike else d.shape(0, 3), dtype, special=False) for _ in range(count)]


def position(d: Draw, count: int) -> Any:
    return d.const(np.array(d.integer(-count, count - 1), d.pick("int32", "int64")), 0.5)


def construct(d: Draw) -> Node:
    return Node(items(d, "T"))


def empty(d: Draw) -> Node:
    return Node([], d.attrs(dtype=[1, 7, 8, 11]), expected=[[]])


def at(d: Draw) -> Node:
    given = items(d)
    return Node([given, position(d, len(given))])


def erase(d: Draw) -> Node:
    given = items(d)
    return Node([given, *([position(d, len(given))] if d.chance(0.7) else [])])


def insert(d: Draw) -> Node:
    given = items(d)
    added = d.x(d.shape(0, 3), given[0].dtype, special=False)
    if kind_of(given[0].dtype) == "s":
        added = np.asarray(added, object)
    return Node([given, added, *([position(d, len(given))] if d.chance(0.7) else [])])


def length(d: Draw) -> Node:
    if d.chance(0.1):
        kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
        return Node([Typed([], kind)], expected=[np.array(0)])
    return Node([items(d)])


def split(d: Draw) -> Node:
    shape = tuple(d.integer(1, 6) for _ in range(d.integer(1, 3)))
    attrs = d.attrs(axis=lambda: d.axis(len(shape)), keepdims=[0, 1])
    size = shape[attrs.get("axis", 0)]
    x = d.x(shape, "T", special=False)
    how = d.pick("none", "number", "list")
    if how == "none":
        return Node([x], attrs)
    dtype = d.pick("int32", "int64")
    if how == "number":
        return Node([x, d.const(np.array(d.integer(1, size), dtype), 0.5)], attrs)
    parts = [d.integer(0, size)]
    parts.append(size - parts[0])
    return Node([x, d.ints(parts, 0.5, dtype)], attrs)


def concat(d: Draw) -> Node:
    given = items(d, alike=True)
    rank = given[0].ndim
    fresh = d.pick(None, 0, 1)
    attrs: dict[str, Any] = {"axis": d.integer(-rank - (fresh or 0), rank - 1 + (fresh or 0))}
    if fresh is not None:
        attrs["new_axis"] = fresh
    return Node([given], attrs)


def anything(d: Draw) -> Any:
    """A tensor or a sequence of tensors."""
    dtype = d.pick("float32", "int64", "bool", "object", "float64")
    values = [d.x(d.shape(0, 2), dtype, special=False) for _ in range(d.integer(1, 3))]
    values = [np.asarray(v, object) if dtype == "object" else v for v in values]
    return values if d.chance(0.4) else values[0]


def optional_of(value: Any) -> Any:
    return helper.make_optional_type_proto(type_of(value, None))


def optional(d: Draw) -> Node:
    value = anything(d)
    if d.chance(0.2):
        return Node([], {"type": type_of(value, None)}, expected=[None])
    return Node([value], expected=[value])


def has_element(d: Draw) -> Node:
    value = anything(d)
    if d.opset >= 18 and d.chance(0.4):
        there = d.chance(0.7)
        return Node([value] if there else [], expected=[np.array(there)])
    there = d.chance(0.6)
    kind = optional_of(value)
    return Node([Typed(value if there else None, kind)], expected=[np.array(there)])


def get_element(d: Draw) -> Node:
    value = anything(d)
    if d.opset >= 18 and d.chance(0.4):
        return Node([value], expected=[value])
    return Node([Typed(value, optional_of(value))], expected=[value])


ROWS = {
    "SequenceConstruct": Row(construct),
    "SequenceEmpty": Row(empty),
    "SequenceAt": Row(at),
    "SequenceErase": Row(erase),
    "SequenceInsert": Row(insert),
    "SequenceLength": Row(length),
    "SplitToSequence": Row(split),
    "ConcatFromSequence": Row(concat),
    "Optional": Row(optional),
    "OptionalHasElement": Row(has_element),
    "OptionalGetElement": Row(get_element),
}
