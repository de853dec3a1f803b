"""If, Loop, Scan and SequenceMap with small bodies, some nested, that use outer values."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..draw import Draw, Node
from ..engine import Row

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
_make = helper.make_node


def value(name: str, kind: int = FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs)


def steps(d: Draw, source: str, result: str) -> list[onnx.NodeProto]:
    """One to three operators from a float value to another of its shape; `c0` is outer."""
    nodes, at = [], source
    count = d.integer(1, 3)
    for i in range(count):
        name = result if i == count - 1 else f"{result}_{i}"
        if d.chance(0.4):
            nodes.append(_make(d.pick("Add", "Mul", "Sub"), [at, "c0"], [name]))
        else:
            nodes.append(_make(d.pick("Neg", "Abs", "Tanh", "Identity"), [at], [name]))
        at = name
    return nodes


def outer(d: Draw) -> Any:
    """A number, which any value takes along."""
    return d.const(d.x((), "float32", -1, 1), 0.4)


def chosen(d: Draw, result: str, depth: int) -> list[onnx.NodeProto]:
    """What computes a branch's result from the outer c1, now and then in a nested If on c2."""
    if depth == 0 or d.chance(0.6):
        return steps(d, "c1", result)
    branches = {
        f"{name}_branch": branch(d, f"{result}_{name}", depth - 1) for name in ("then", "else")
    }
    return [_make("If", ["c2"], [result], **branches)]


def branch(d: Draw, result: str, depth: int) -> onnx.GraphProto:
    return graph(chosen(d, result, depth), [], [value(result)])


def if_(d: Draw) -> Node:
    attrs = {f"{name}_branch": branch(d, name, 2) for name in ("then", "else")}
    condition = d.const(np.array(d.chance(0.5)), 0.2)
    x = d.x(d.shape(0, 3), "float32", special=False)
    captured = [outer(d), x, d.const(np.array(d.chance(0.5)), 0.3)]
    return Node([condition], attrs, captured=captured)


def scan(d: Draw) -> Node:
    """A running sum over an axis, forwards or backwards."""
    sizes = (d.integer(1, 4), d.integer(1, 3))
    batch = (d.integer(1, 2),) if d.opset < 9 else ()
    axis, kept = (d.integer(0, 1), d.integer(0, 1)) if d.opset >= 9 else (0, 0)
    row = sizes[1 - axis]
    nodes = [_make("Add", ["sum", "x"], ["more"]), *steps(d, "more", "seen")]
    body = graph(
        nodes,
        [value("sum", FLOAT, [row]), value("x", FLOAT, [row])],
        [value("more", FLOAT, [row]), value("seen", FLOAT, [row])],
    )
    attrs: dict[str, Any] = {"body": body, "num_scan_inputs": 1}
    backwards = int(d.chance(0.4))
    if d.opset >= 9:
        attrs |= {"scan_input_axes": [axis], "scan_output_axes": [kept]}
        attrs |= {"scan_input_directions": [backwards]}
        attrs |= d.attrs(scan_output_directions=[[0], [1]])
    elif backwards:
        attrs["directions"] = [1]
    start, x = d.x((*batch, row), "float32", -1, 1), d.x((*batch, *sizes), "float32", -1, 1)
    given = [start, x] if d.opset >= 9 else [None, start, x]
    return Node(given, attrs, 2, captured=[outer(d)])


def sequence_map(d: Draw) -> Node:
    values = [d.x(d.shape(1, 3), "float32", special=False) for _ in range(d.integer(1, 4))]
    more = d.x((), "float32", -1, 1)
    nodes = [_make("Add", ["x", "y"], ["both"]), *steps(d, "both", "result")]
    body = graph(nodes, [value("x"), value("y")], [value("result")])
    second: Any = more
    if d.chance(0.4):
        second = [d.x((), "float32", -1, 1) for _ in values]
    return Node([values, second], {"body": body}, captured=[outer(d)])


ROWS = {
    "If": Row(if_),
    "Scan": Row(scan),
    "SequenceMap": Row(sequence_map),
}
