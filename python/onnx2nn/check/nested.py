"""Nested graphs laid out: what a branch or a body does, as nodes of the main graph.

A check of values sees those of the main graph. So an If gives way to the nodes of the branch that it
takes, and the first turn of a Loop or Scan is copied in front of it, on the values that it has there.
Inner values are then given, compared and named like all others.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from onnx2nn.check.oracle import model_folder
from onnx2nn.check.result import Answer
from onnx2nn.check.values import NodeValues, NoValues

__all__ = ["laid_out"]

# How deep graphs are followed, and how many nodes may be added.
_DEPTH = 4
_MOST_NODES = 20_000
_CONTROL = {"If", "Loop", "Scan"}
_STANDARD = {"", "ai.onnx"}
# What protobuf serialises.
_MOST_BYTES = 2**31 - 2**20


def laid_out(values: NodeValues, answer: Answer) -> NodeValues:
    """The values of the model with its nested graphs laid out, for the same inputs.

    The same object where there is nothing to lay out. Raises NoValues where the oracle gives no
    condition, or the model is too large to be written anew.
    """
    if not any(_is_control(n) for n in values.proto.graph.node):
        return values
    import onnx

    if values.proto.ByteSize() > _MOST_BYTES:
        raise NoValues("the model is too large to look into its nested graphs")
    model = onnx.ModelProto()
    model.CopyFrom(values.proto)
    layout = _Layout(model, answer.feed)
    current = values
    for _ in range(_DEPTH):
        if not layout.step(current.right):
            break
        data = bytes(model.SerializeToString())
        folder = model_folder(values.source)
        source = replace(values.source, data=data, readable=(data, folder) if folder else None)
        current = NodeValues(source, model, answer, values.threads, layout.places, layout.turns)
    return current


class _Layout:
    """A model in which nested graphs are laid out, level by level.

    places: for each node of its main graph, the place of the node of the original's that it belongs to.
    turns: by a loop's results, the values of its first turn.
    """

    def __init__(self, model: Any, feed: dict[str, Any]) -> None:
        self._model, self._feed = model, feed
        graph = model.graph
        self.places = list(range(len(graph.node)))
        self.turns: dict[str, set[str]] = {}
        self._constants = {t.name: t for t in graph.initializer}
        self._names = {*self._constants, *(i.name for i in graph.input)}
        self._names |= {o for n in graph.node for o in n.output}
        # Names of nested graphs may hide others, or be there twice.
        self._inner = Counter(n for node in graph.node for n in _inner_names(node))
        self._nodes = {n.name for n in graph.node if n.name}
        self._added = 0
        self._done: set[str] = set()

    def step(self, right: Any) -> bool:
        """Lay out the graphs that lie one level in; whether there were any.

        right: what gives the oracle's values by name.
        """
        graph = self._model.graph
        found = [n for n in graph.node if _is_control(n) and self._key(n) not in self._done]
        asked = [n for node in found for n in _deciding(node)]
        made = {o for node in graph.node for o in node.output}
        known = dict(right([n for n in dict.fromkeys(asked) if n in made]))
        known.update(self._feed)
        new: list[Any] = []
        places: list[int] = []
        more = False
        for place, node in zip(self.places, graph.node, strict=True):
            inside: list[Any] = []
            if _is_control(node) and self._key(node) not in self._done:
                self._done.add(self._key(node))
                inside = self._laid(node, known)
            more = more or bool(inside)
            if not inside or node.op_type != "If":
                inside.append(_copy(node))
            new += inside
            places += [place] * len(inside)
        del graph.node[:]
        graph.node.extend(new)
        self.places = places
        return more

    def _key(self, node: Any) -> str:
        return next((o for o in node.output if o), "")

    def _value(self, name: str, known: dict[str, Any]) -> Any:
        """A value that decides, None where it is not known."""
        from onnx import numpy_helper

        if name in known:
            return known[name]
        tensor = self._constants.get(name)
        if tensor is None or tensor.external_data:
            return None
        return numpy_helper.to_array(tensor)

    def _laid(self, node: Any, known: dict[str, Any]) -> list[Any]:
        """The nodes of the graph that a node runs first, with names of their own."""
        from onnx import helper

        attributes = {a.name: a for a in node.attribute}
        mapped: dict[str, str] = {}
        nodes: list[Any] = []
        decided = [self._value(n, known) for n in _deciding(node)]
        if any(not isinstance(v, np.ndarray) or v.size != 1 for v in decided):
            return []
        if node.op_type == "If":
            taken = "then_branch" if bool(decided[0].reshape(-1)[0]) else "else_branch"
            body = attributes[taken].g
            where = f"{taken} of {self._key(node)}"
        else:
            if not all(int(v.reshape(-1)[0]) > 0 for v in decided):
                return []
            body, where = attributes["body"].g, f"turn 1 of {self._key(node)}"
            entered = self._loop_inputs if node.op_type == "Loop" else self._scan_inputs
            mapped, nodes = entered(node, body, attributes, where)
        self._added += len(nodes) + len(body.node)
        if self._added > _MOST_NODES or body.sparse_initializer:
            return []
        mapped.update(self._share(body))
        results: dict[str, str] = {}
        if node.op_type == "If":
            results = {i.name: o for i, o in zip(body.output, node.output, strict=False) if o}
        for inner in body.node:
            copy = _copy(inner)
            _rename(copy, mapped)
            for k, name in enumerate(copy.output):
                if name:
                    mapped[name] = copy.output[k] = results.get(name) or self._name(name, where)
            self._inner.update(_inner_names(copy))
            if copy.name in self._nodes:
                copy.name = self._name(copy.name, where)
            if copy.name:
                self._nodes.add(copy.name)
            nodes.append(copy)
        made = {o for n in nodes for o in n.output if o}
        for first in self.turns.values():
            if first & set(node.output):
                first |= made
        ends = [mapped.get(o.name, o.name) for o in body.output]
        if node.op_type == "If":
            # A branch may hand on what it is given, or one value twice.
            pairs = zip(ends, node.output, strict=False)
            missing = [(end, out) for end, out in pairs if out and out not in made]
            nodes += [helper.make_node("Identity", [end], [out]) for end, out in missing]
            return nodes
        for name in ends:
            if name in made and all(o.name != name for o in self._model.graph.output):
                self._model.graph.output.add().name = name
        self.turns.update((o, set(made)) for o in node.output if o)
        return nodes

    def _share(self, body: Any) -> dict[str, str]:
        """Make a graph's constants the main graph's too, under their own names where these are free.

        Those that keep their names leave the graph, so that weights have the same keys as before.
        """
        mapped: dict[str, str] = {}
        kept = []
        for tensor in body.initializer:
            if self._is_free(tensor.name):
                self._add(tensor, tensor.name)
            else:
                kept.append(_copy(tensor))
                mapped[tensor.name] = self._name(tensor.name, "a nested graph")
                self._add(tensor, mapped[tensor.name])
        del body.initializer[:]
        body.initializer.extend(kept)
        nodes = []
        for node in body.node:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and value is not None and self._is_free(node.output[0]):
                self._add(value, node.output[0])
            else:
                nodes.append(_copy(node))
        if len(nodes) < len(body.node):
            del body.node[:]
            body.node.extend(nodes)
        return mapped

    def _is_free(self, name: str) -> bool:
        return name not in self._names and self._inner[name] == 1

    def _add(self, tensor: Any, name: str) -> None:
        new = self._model.graph.initializer.add()
        new.CopyFrom(tensor)
        new.name = name
        self._names.add(name)
        self._constants[name] = new

    def _constant(self, value: Any, name: str, where: str) -> str:
        from onnx import numpy_helper

        new = self._name(name, where)
        self._add(numpy_helper.from_array(np.asarray(value), new), new)
        return new

    def _loop_inputs(
        self, node: Any, body: Any, attributes: dict[str, Any], where: str
    ) -> tuple[dict[str, str], list[Any]]:
        del attributes
        turn, condition, *rest = body.input
        state = [i.name for i in rest]
        # ONNX Runtime gives a turn's number the rank that the body declares.
        mapped = {
            i.name: self._constant(
                np.full([1] * len(i.type.tensor_type.shape.dim), v), i.name, where
            )
            for i, v in ((turn, np.int64(0)), (condition, np.bool_(True)))
        }
        mapped.update(zip(state, node.input[2:], strict=False))
        return mapped, []

    def _scan_inputs(
        self, node: Any, body: Any, attributes: dict[str, Any], where: str
    ) -> tuple[dict[str, str], list[Any]]:
        from onnx import helper

        count = attributes["num_scan_inputs"].i
        states = len(node.input) - count
        names = [i.name for i in body.input]
        mapped = dict(zip(names[:states], node.input[:states], strict=False))
        axes = _ints(attributes.get("scan_input_axes"), count)
        backwards = _ints(attributes.get("scan_input_directions"), count)
        nodes = []
        rows = zip(names[states:], node.input[states:], axes, backwards, strict=False)
        for name, scanned, axis, back in rows:
            mapped[name] = self._name(name, where)
            index = self._constant(np.int64(-1 if back else 0), f"place of {name}", where)
            nodes.append(helper.make_node("Gather", [scanned, index], [mapped[name]], axis=axis))
        return mapped, nodes

    def _name(self, name: str, where: str) -> str:
        new = f"{name} ({where})"
        while new in self._names:
            new += "'"
        self._names.add(new)
        return new


def _is_control(node: Any) -> bool:
    return node.op_type in _CONTROL and node.domain in _STANDARD


def _deciding(node: Any) -> list[str]:
    """The inputs that say which graph runs, and whether it does."""
    if node.op_type == "Scan":
        return []
    return [n for n in node.input[: 1 if node.op_type == "If" else 2] if n]


def _ints(attribute: Any, count: int) -> list[int]:
    return list(attribute.ints) if attribute is not None else [0] * count


def _copy(message: Any) -> Any:
    new = type(message)()
    new.CopyFrom(message)
    return new


def _graphs(node: Any) -> Iterator[Any]:
    for a in node.attribute:
        yield from [*([a.g] if a.HasField("g") else []), *a.graphs]


def _inner_names(node: Any) -> Iterator[str]:
    """What nested graphs define, at any depth."""
    for graph in _graphs(node):
        yield from (i.name for i in graph.input)
        yield from (t.name for t in graph.initializer)
        for inner in graph.node:
            yield from inner.output
            yield from _inner_names(inner)


def _rename(node: Any, names: dict[str, str]) -> None:
    """Let a node, and the graphs in it, read values by other names."""
    if not names:
        return
    for k, name in enumerate(node.input):
        node.input[k] = names.get(name, name)
    for graph in _graphs(node):
        own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        own |= {o for n in graph.node for o in n.output}
        inner = {k: v for k, v in names.items() if k not in own}
        for n in graph.node:
            _rename(n, inner)
        for out in graph.output:
            out.name = inner.get(out.name, out.name)
