"""Changes of merged decoders, after which their two branches do not compute the same."""

import onnx
from onnx import numpy_helper

__all__ = ["branch", "double_weight", "exchange_outputs"]


def branch(model: onnx.ModelProto, name: str) -> onnx.GraphProto:
    """A branch of the choice that the model begins with."""
    return next(a.g for a in model.graph.node[0].attribute if a.name == name)


def double_weight(model: onnx.ModelProto, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """A product of a branch has a weight of its own, twice what it was."""
    weight = next(w for w in model.graph.initializer if w.name == node.input[1])
    graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, "other"))
    node.input[1] = "other"


def exchange_outputs(graph: onnx.GraphProto, first: int, second: int) -> None:
    """Two outputs of a branch change places."""
    a, b = graph.output[first], graph.output[second]
    a.name, b.name = b.name, a.name
