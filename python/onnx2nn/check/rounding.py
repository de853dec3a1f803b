"""Differences that are only the oracle's rounding."""

from collections.abc import Iterable
from typing import Any

from onnx2nn.check.compare import Comparison

# Two units in the last place of a float32 near 1: what a Sigmoid computed as 0.5 + tanh(x / 2) / 2 or by
# a rational function, as ONNX Runtime's is, can be off by. Where its value is tiny, that is much of it.
_SIGMOID_ERROR = 2.4e-7
_MOVES = {
    "Concat",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


def rounded_sigmoids(
    proto: Any, outputs: Iterable[Comparison], nodes: Iterable[Comparison]
) -> list[Comparison]:
    """The outputs that are wrong, if each is a Sigmoid of a value that is right; else none.

    `nodes` are the comparisons of intermediate values. An output counts where it is off by less than a
    Sigmoid in float32 may be, and comes from Sigmoids through nothing that computes.
    """
    compared = {c.name: c for c in [*nodes, *outputs]}
    producers = {name: node for node in proto.graph.node for name in node.output}
    constants = {t.name for t in proto.graph.initializer}
    accepted: dict[str, bool] = {}

    def right(name: str) -> bool:
        node = producers.get(name)
        if name in constants or (node is not None and node.op_type == "Constant"):
            return True
        return name in compared and compared[name].ok

    def is_rounded(name: str) -> bool:
        if name not in accepted:
            c, node = compared.get(name), producers.get(name)
            small = c is None or (c.near and c.max_abs is not None and c.max_abs <= _SIGMOID_ERROR)
            accepted[name] = False  # until its inputs are known; a hostile graph may have a cycle
            if small and node is not None and node.domain in ("", "ai.onnx"):
                if node.op_type == "Sigmoid":
                    accepted[name] = right(node.input[0])
                elif node.op_type in _MOVES:
                    accepted[name] = all(right(i) or is_rounded(i) for i in node.input if i)
        return accepted[name]

    wrong = [c for c in outputs if not c.ok]
    return wrong if all(is_rounded(c.name) for c in wrong) else []
