"""Graphs that are cut at values: what lies between them runs on its own, on inputs that are given."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from onnx2nn.check.oracle import Reference, Runtime, model_folder, oracle_model, read_proto
from onnx2nn.check.roles import free_zeros
from onnx2nn.check.skeleton import Skeleton
from onnx2nn.check.values import captured, is_random
from onnx2nn.errors import Error
from onnx2nn.source import Source
from onnx2nn.tensors import DTYPE_NAMES

__all__ = ["EPSILONS", "Graph", "Piece", "constant_value"]

_NUMBERS = {name: number for number, name in DTYPE_NAMES.items()}
# How far a value is off that is rounded once: half of these, as parts of it.
EPSILONS = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}
# The endings of names that a piece adds.
_OUT, _EXACT, _NOISE, _SIZE = "|out", "|exact", "|noise", "|size"


class Graph:
    """A model that can be run whole or in pieces, by ONNX Runtime or the reference evaluator.

    Large weights stay in their files. whole: load external data too, which the reference needs.
    """

    def __init__(
        self,
        source: Source,
        threads: int = 0,
        custom_lib: str | None = None,
        whole: bool = False,
    ) -> None:
        self.source = source
        self._threads, self._custom_lib, self._reference = threads, custom_lib, whole
        self._skeleton: Skeleton | None = None
        if isinstance(source.data, str) and not whole:
            self._skeleton = Skeleton(source.data, source.readable)
        bare = source
        if self._skeleton is not None and isinstance(self._skeleton.model, bytes):
            bare = Source(self._skeleton.model)
        self.proto = read_proto(bare)
        self.weight_bytes = sum(p.nbytes for p in self._skeleton.places) if self._skeleton else 0
        if whole and isinstance(source.data, str):
            _load_data(self.proto, source)
        self._freed = free_zeros(self.proto)
        graph = self.proto.graph
        self.makers = {o: k for k, n in enumerate(graph.node) for o in n.output if o}
        self.constants = {t.name: t for t in graph.initializer}
        self._inputs = {i.name: i for i in graph.input if i.name not in self.constants}

    @property
    def drawn(self) -> list[str]:
        """What nodes make that draw random numbers, themselves or in nested graphs."""
        functions = {(f.domain, f.name): f for f in self.proto.functions}
        nodes = (n for n in self.proto.graph.node if is_random(n, functions))
        return [o for n in nodes for o in n.output if o]

    @property
    def outputs(self) -> list[str]:
        """The names of the model's own outputs."""
        return [o.name for o in self.proto.graph.output]

    def open(self) -> Runtime | Reference:
        """A session of the whole model."""
        if self._freed or (self._reference and isinstance(self.source.data, str)):
            return self._session(bytes(self.proto.SerializeToString()), None)
        if self._reference:
            return Reference(self.source)
        return Runtime(
            self._skeleton or oracle_model(self.source),
            model_folder(self.source),
            threads=self._threads,
            custom_lib=self._custom_lib,
        )

    def run(
        self, wanted: list[str], given: Mapping[str, Any], feed: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The wanted values by name, where the given ones are what they are said to be.

        given: arrays by name, in place of what the graph makes of that name. feed: its inputs.
        """
        return self.piece(wanted, given)({**feed, **given})

    def needs(self, wanted: list[str], cut: Collection[str]) -> set[str]:
        """Which values of `cut` go into the wanted ones without passing others of it."""
        return self._reach(wanted, cut)[1]

    def inside(self, wanted: list[str], cut: Collection[str]) -> list[str]:
        """What nodes make between the values of `cut` and the wanted ones, these left out."""
        nodes = [self.proto.graph.node[k] for k in sorted(self._reach(wanted, cut)[0])]
        skip = {*cut, *wanted}
        return [o for n in nodes for o in n.output if o and o not in skip]

    def made_of(self, name: str, steps: int) -> list[str]:
        """What nodes make of a value, and of that, up to so many nodes on."""
        found = [name]
        for node in self.proto.graph.node[self.makers[name] + 1 :]:
            if len(found) > steps:
                break
            if any(i in found for i in node.input):
                found += [o for o in node.output if o]
        return found[1:]

    def piece(
        self, wanted: list[str], given: Mapping[str, Any], noisy: Mapping[str, str] | None = None
    ) -> "Piece":
        """What makes the wanted values out of the given ones and the inputs.

        noisy: types by name of values inside that are to be off by their last digit, at random.
        """
        return self._piece(wanted, given, noisy or {}, sizes=False)

    def sizes(self, wanted: list[str], given: Mapping[str, Any], feed: Mapping[str, Any]) -> Any:
        """How many elements each wanted tensor has."""
        piece = self._piece(wanted, given, {}, sizes=True)
        return {n: int(v) for n, v in piece({**feed, **given}).items()}

    def types(self, wanted: list[str], given: Mapping[str, Any]) -> dict[str, str]:
        """ONNX Runtime's names of the types of values, without running anything."""
        found = self.piece(wanted, given).session
        return dict(zip(wanted, getattr(found, "types", []), strict=False))

    def _piece(
        self,
        wanted: list[str],
        given: Mapping[str, Any],
        noisy: Mapping[str, str],
        sizes: bool,
    ) -> "Piece":
        import onnx

        chosen, used, inputs, constants = self._walk(wanted, given)
        model = onnx.ModelProto(ir_version=self.proto.ir_version)
        model.opset_import.extend(self.proto.opset_import)
        model.functions.extend(self.proto.functions)
        graph = model.graph
        graph.name = self.proto.graph.name or "piece"
        for k in sorted(chosen):
            node = graph.node.add()
            node.CopyFrom(self.proto.graph.node[k])
            after: list[Any] = []
            for j, o in enumerate(node.output):
                if o in given:
                    node.output[j] = o + _OUT
                elif o in noisy:
                    node.output[j] = o + _EXACT
                    after += _noise(o, noisy[o])
            graph.node.extend(after)
        graph.initializer.extend(self.constants[n] for n in constants)
        graph.sparse_initializer.extend(
            t for t in self.proto.graph.sparse_initializer if t.values.name in constants
        )
        graph.input.extend(self._inputs[n] for n in inputs)
        for name in used:
            graph.input.append(_described(name, given[name]))
        known = {o.name: o for o in self.proto.graph.output}
        names = []
        for name in wanted:
            out = name + _OUT if name in given else name
            names.append(out + _SIZE if sizes else out)
            if sizes:
                graph.node.append(onnx.helper.make_node("Size", [out], [names[-1]]))
            info = graph.output.add()
            if name in known and not sizes:
                info.CopyFrom(known[name])
            info.name = names[-1]
        return Piece(self._session(bytes(model.SerializeToString()), constants), wanted, names)

    def _session(self, model: bytes, constants: Collection[str] | None) -> Runtime | Reference:
        if self._reference:
            return Reference(Source(model))
        if self._skeleton is None:
            return Runtime(
                model,
                model_folder(self.source),
                threads=self._threads,
                custom_lib=self._custom_lib,
            )
        part = copy.copy(self._skeleton)
        part.model = model
        if constants is not None:
            part.places = [p for p in part.places if p.name in constants]
        return Runtime(part, threads=self._threads, custom_lib=self._custom_lib)

    def _reach(self, wanted: list[str], cut: Collection[str]) -> tuple[set[int], set[str]]:
        return self._walk(wanted, cut)[:2]

    def _walk(
        self, wanted: list[str], cut: Collection[str]
    ) -> tuple[set[int], set[str], set[str], set[str]]:
        """The nodes that make the wanted values, and which values of `cut`, inputs and constants
        go into them."""
        chosen = {self.makers[name] for name in wanted if name in self.makers}
        queue = list(chosen)
        used: set[str] = set()
        inputs: set[str] = set()
        constants: set[str] = set()
        sparse = {t.values.name for t in self.proto.graph.sparse_initializer}
        while queue:
            for name in captured(self.proto.graph.node[queue.pop()]):
                if name in cut:
                    used.add(name)
                elif name in self.constants or name in sparse:
                    constants.add(name)
                elif name in self._inputs:
                    inputs.add(name)
                elif name in self.makers and self.makers[name] not in chosen:
                    chosen.add(self.makers[name])
                    queue.append(self.makers[name])
        return chosen, used, inputs, constants


class Piece:
    """A session of some of a graph's nodes."""

    def __init__(self, session: Runtime | Reference, wanted: list[str], names: list[str]) -> None:
        self.session = session
        self._wanted, self._names = wanted, names

    def __call__(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(zip(self.session.outputs, self.session.run(dict(feed)), strict=True))
        return {w: found[n] for w, n in zip(self._wanted, self._names, strict=True)}


def _described(name: str, value: Any) -> Any:
    import onnx

    kind = "object" if value.dtype.kind in "OUST" else value.dtype.name
    return onnx.helper.make_tensor_value_info(name, _NUMBERS[kind], list(value.shape))


def _noise(name: str, kind: str) -> list[Any]:
    """Nodes that make a value of one that is exact, off at random by up to its last digit."""
    from onnx import TensorProto
    from onnx.helper import make_node

    bound = EPSILONS[kind]
    exact, noise = name + _EXACT, name + _NOISE
    plain = exact if kind in ("float32", "float64") else noise + "|plain"
    moved = name if plain == exact else noise + "|moved"
    nodes = [
        make_node("RandomUniformLike", [plain], [noise], low=-bound, high=bound),
        make_node("Mul", [plain, noise], [noise + "|by"]),
        make_node("Add", [plain, noise + "|by"], [moved]),
    ]
    if plain != exact:
        nodes.insert(0, make_node("Cast", [exact], [plain], to=TensorProto.FLOAT))
        nodes.append(make_node("Cast", [moved], [name], to=_NUMBERS[kind]))
    return nodes


def _load_data(proto: Any, source: Source) -> None:
    from onnx.external_data_helper import load_external_data_for_model

    try:
        load_external_data_for_model(proto, model_folder(source) or ".")
    except Exception as error:  # a file that is missing or too short
        raise Error(f"{source.name}: {error}", unreadable=True) from error


def constant_value(graph: Graph, name: str) -> Any:
    """The value of a constant of the graph as an array."""
    from onnx import numpy_helper

    return np.asarray(
        numpy_helper.to_array(graph.constants[name], model_folder(graph.source) or "")
    )
