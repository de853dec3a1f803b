"""The oracle's intermediate values, and its answers where a model is cut open at them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onnx2nn.check.compare import Random
from onnx2nn.check.oracle import (
    Reference,
    Runtime,
    kernels_for,
    model_folder,
    with_outputs,
)
from onnx2nn.check.result import Answer
from onnx2nn.errors import first_line
from onnx2nn.source import Source

__all__ = ["NoValues", "NodeValues", "Opened", "captured", "has_random_op", "is_random"]

# What follows a value's name where the model is cut open at it: what its node makes of what is given.
_MADE = "/made by its node"
_RANDOM_OPS = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def is_random(node: Any, functions: dict[tuple[str, str], Any]) -> bool:
    """Whether a node draws random numbers, itself, in a nested graph or in a function."""
    if node.op_type in _RANDOM_OPS:
        return True
    function = functions.get((node.domain, node.op_type))
    # A function that calls itself is no valid model; without it the search ends.
    rest = {k: f for k, f in functions.items() if k != (node.domain, node.op_type)}
    if function is not None and any(is_random(n, rest) for n in function.node):
        return True
    graphs = [g for a in node.attribute for g in [*([a.g] if a.HasField("g") else []), *a.graphs]]
    return any(is_random(n, functions) for g in graphs for n in g.node)


def has_random_op(proto: Any) -> bool:
    """Whether an operator of the model, its nested graphs or functions draws random numbers."""
    functions = {(f.domain, f.name): f for f in proto.functions}
    return any(is_random(n, functions) for n in proto.graph.node)


def captured(node: Any) -> Iterable[str]:
    """What a node reads: its inputs, and values of outer graphs that its nested graphs use."""
    yield from (n for n in node.input if n)
    for a in node.attribute:
        for graph in [*([a.g] if a.HasField("g") else []), *a.graphs]:
            own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                yield from (n for n in captured(inner) if n not in own)
                own.update(inner.output)
            yield from (o.name for o in graph.output if o.name not in own)


class NoValues(Exception):  # noqa: N818
    """The oracle gives its outputs but not its intermediate values; the text says why."""


@dataclass
class Opened:
    """A model that is cut open: what its nodes make of values that are given.

    made: by value, what its node's own result is called there.
    """

    oracle: Runtime
    made: dict[str, str]

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        """The results by the values' own names; raises what ONNX Runtime raises."""
        found = dict(zip(self.oracle.outputs, self.oracle.run(feed), strict=True))
        return {n: found[name] for n, name in self.made.items()}


class NodeValues:
    """The oracle's values of a model's nodes, for one set of inputs.

    places: where each node, or the one that it lies in, is in the file, if not where it is here.
    turns: by a loop's results, the values of its first turn, where that is laid out beside it.
    """

    def __init__(
        self,
        source: Source,
        proto: Any,
        answer: Answer,
        threads: int = 0,
        places: list[int] | None = None,
        turns: dict[str, set[str]] | None = None,
    ) -> None:
        self.source, self.proto, self._answer, self.threads = source, proto, answer, threads
        self.places, self.turns = places, turns or {}
        functions = {(f.domain, f.name): f for f in proto.functions}
        self._last: tuple[list[str], dict[str, Any]] | None = None
        self._random = {
            n for node in proto.graph.node if is_random(node, functions) for n in node.output if n
        }

    def right(self, names: list[str]) -> dict[str, Any]:
        """The values of these names from one run; those that are drawn anew each time are marked.

        Asked for the same names again, it answers without another run. Raises NoValues where the oracle fails.
        """
        answer = self._answer
        if not names:
            return {}
        if self._last is not None and self._last[0] == names:
            return self._last[1]
        try:
            if isinstance(answer.oracle, Reference):
                everything = answer.oracle.run_all(answer.feed)
                found = {n: everything[n] for n in names if n in everything}
            else:
                oracle = self._oracle(with_outputs(self.proto, names))
                found = dict(zip(oracle.outputs, oracle.run(answer.feed), strict=True))
        except Exception as error:  # each runtime has error types of its own
            raise NoValues(first_line(error)) from error
        marked = {n: Random(v) if n in self._random else v for n, v in found.items()}
        self._last = list(names), marked
        return marked

    def opened(self, inputs: list[str], outputs: list[str], known: dict[str, Any]) -> "Opened":
        """The model cut open at some of its values, which become inputs beside its own.

        outputs: the values to be given out. known: an array for each of `inputs`, whose type and
        shape they get. Raises what ONNX Runtime raises for such a model.
        """
        taken = set(inputs)
        made = {n: n + _MADE if n in taken else n for n in outputs}
        return Opened(self._oracle(self._cut(taken, made.values(), known)), made)

    def _oracle(self, model: bytes) -> Runtime:
        """ONNX Runtime for another form of the model, with the same weights."""
        return Runtime(
            model,
            model_folder(self.source),
            self.threads,
            kernels=kernels_for(self.proto),
        )

    def _cut(self, taken: set[str], outputs: Iterable[str], known: dict[str, Any]) -> bytes:
        """The model with the values of `taken` as inputs; what their nodes make is called otherwise."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        graph = model.graph
        for node in graph.node:
            for k, name in enumerate(node.output):
                if name in taken:
                    node.output[k] = name + _MADE
        kept = [v for v in graph.value_info if v.name not in taken]
        del graph.value_info[:], graph.output[:]
        graph.value_info.extend(kept)
        for name in sorted(taken):
            kind = onnx.helper.np_dtype_to_tensor_dtype(known[name].dtype)
            shape = list(known[name].shape)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        graph.output.extend(onnx.ValueInfoProto(name=n) for n in outputs)
        return bytes(model.SerializeToString())

    def needs(self, names: list[str]) -> dict[str, set[str]]:
        """By name, those of the others that it is computed from without another one between."""
        known = set(names)
        reached: dict[str, set[str]] = {}
        for node in self.proto.graph.node:
            inside: set[str] = set()
            for n in captured(node):
                if n in known:
                    inside.add(n)
                else:
                    inside |= reached.get(n, set())
            for out in node.output:
                if out:
                    reached[out] = inside
        return {n: reached.get(n, set()) for n in names}
