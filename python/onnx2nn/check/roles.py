"""What a model uses each of its inputs for, found by following them through the graph."""

import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Role", "Wanted", "free_zeros", "tensor_type", "wanted_inputs"]

# Operators through which a value keeps its meaning; the number is the input that carries it.
_CARRIERS = {
    "Cast": 0,
    "CastLike": 0,
    "Clip": 0,
    "Expand": 0,
    "Flatten": 0,
    "Gather": 0,
    "Identity": 0,
    "Pad": 0,
    "Reshape": 0,
    "Slice": 0,
    "Split": 0,
    "Squeeze": 0,
    "Tile": 0,
    "Transpose": 0,
    "Unsqueeze": 0,
}
# Operators that carry any of their inputs on.
_JOINERS = {"Concat", "Max", "Min"}
_POSITIVE = {"Log", "Sqrt", "Reciprocal"}
_UNIT = {"Acos", "Asin", "Atanh"}
# (operator, input): what is drawn there.
_ROLES = {
    ("BatchNormalization", 4): "positive",
    ("Bernoulli", 0): "probability",
    ("BeamSearch", 1): "ten",
    ("BeamSearch", 2): "one",
    ("BeamSearch", 3): "two",
    ("BeamSearch", 4): "one",
    ("BeamSearch", 5): "one",
    ("BeamSearch", 6): "one",
    ("BitShift", 1): "small",
    ("Clip", 1): "minimum",
    ("Clip", 2): "maximum",
    ("CenterCropPad", 1): "extent",
    ("Col2Im", 1): "extent",
    ("CumSum", 1): "zero",
    ("CumProd", 1): "zero",
    ("DFT", 1): "extent",
    ("DequantizeLinear", 1): "positive",
    ("BlackmanWindow", 0): "extent",
    ("Div", 1): "nonzero",
    ("Dropout", 1): "probability",
    ("Dropout", 2): "false",
    ("GRU", 4): "length",
    ("GreedySearch", 1): "ten",
    ("GreedySearch", 2): "one",
    ("GreedySearch", 3): "one",
    ("HammingWindow", 0): "extent",
    ("HannWindow", 0): "extent",
    ("If", 0): "true",
    ("LSTM", 4): "length",
    ("Loop", 0): "trips",
    ("Loop", 1): "true",
    ("Mod", 1): "nonzero",
    ("NonMaxSuppression", 2): "ten",
    ("NonMaxSuppression", 3): "probability",
    ("NonMaxSuppression", 4): "probability",
    ("OneHot", 1): "ten",
    ("Pad", 1): "zero",
    ("QuantizeLinear", 1): "positive",
    ("RNN", 4): "length",
    ("Range", 0): "zero",
    ("Range", 1): "ten",
    ("Range", 2): "one",
    ("RoiAlign", 1): "boxes",
    ("RoiAlign", 2): "zero",
    ("Tile", 1): "one",
    ("TopK", 1): "one",
    ("ConstantOfShape", 0): "extent",
    ("Expand", 1): "one",
    ("Reshape", 1): "reshape",
    ("Resize", 2): "scale",
    ("Slice", 1): "zero",
    ("Slice", 2): "large",
    ("Slice", 4): "one",
    ("SplitToSequence", 1): "one",
    ("Upsample", 1): "scale",
}
# Inputs whose integers are sizes: (operator, input) to what is drawn where they are put together on
# the way, from several inputs or constants. A "fit" is a size that the data has to agree with.
_SIZES = {
    ("ConstantOfShape", 0): "extent",
    ("Expand", 1): "fit",
    ("GRU", 4): "length",
    ("LSTM", 4): "length",
    ("Loop", 0): "trips",
    ("OneHot", 1): "ten",
    ("RNN", 4): "length",
    ("Range", 1): "ten",
    ("Reshape", 1): "fit",
    ("Resize", 3): "extent",
    ("Slice", 2): "large",
    ("Tile", 1): "one",
    ("TopK", 1): "one",
}
# (operator, index input, data input, attribute of the axis): the index must lie inside the data.
_INDEXED = {
    ("Gather", 1): 0,
    ("GatherElements", 1): 0,
    ("GatherND", 1): 0,
    ("ScatterElements", 1): 0,
    ("Scatter", 1): 0,
    ("ScatterND", 1): 0,
    ("ArrayFeatureExtractor", 1): 0,
    ("GatherBlockQuantized", 1): 0,
    ("EmbedLayerNormalization", 0): 2,
    ("EmbedLayerNormalization", 1): 4,
}
_MASK_NAME = re.compile(r"mask", re.IGNORECASE)
# What a dim is called that was declared as 0.
_ZERO = "onnx2nn_zero_"
# A size above this that constant indices ask for is no size to draw.
_MAX_SIZE = 2**24
# Longer constants are weights rather than indices.
_MAX_INDICES = 2**16


@dataclass
class Role:
    """How the values of one input are drawn: `kind`, and the table's size for an index."""

    kind: str = "plain"
    bound: int | None = None


@dataclass
class Wanted:
    """A graph input: its name, ONNX type and declared dims (int, symbol or "").

    A dim declared as 0 has no size here: many exporters mean "unknown". zeros: the axes of those.
    least: by axis, the size that constant indices into it ask for at least.
    """

    name: str
    type: Any
    elem_type: int
    dims: list[int | str] | None
    role: Role
    least: dict[int, int] = field(default_factory=dict)
    zeros: frozenset[int] = frozenset()


def wanted_inputs(proto: Any) -> list[Wanted]:
    """The inputs of a model that a caller gives, with how their values are used."""
    graph = proto.graph
    constants = {t.name for t in graph.initializer} | {
        t.values.name for t in graph.sparse_initializer
    }
    roles = _Roles(graph)
    found = []
    for i in graph.input:
        if i.name in constants:
            continue
        tensor = tensor_type(i.type)
        dims: list[int | str] | None = None
        zeros: set[int] = set()
        if tensor is not None and tensor.HasField("shape"):
            dims = []
            for k, d in enumerate(tensor.shape.dim):
                if d.dim_param.startswith(_ZERO) or (d.HasField("dim_value") and d.dim_value == 0):
                    zeros.add(k)
                    dims.append("")
                else:
                    dims.append(int(d.dim_value) if d.dim_value > 0 else d.dim_param)
        found.append(
            Wanted(
                i.name,
                i.type,
                tensor.elem_type if tensor is not None else 0,
                dims,
                roles(i.name),
                roles.least_sizes(i.name, len(dims or [])),
                frozenset(zeros),
            )
        )
    return found


def free_zeros(proto: Any) -> bool:
    """Give the dims that a model declares as 0 no size, each a symbol of its own, in place.

    ONNX Runtime takes them at their word, and refuses what is not empty. Returns whether there are any.
    """
    found = 0
    graph = proto.graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        tensor = tensor_type(value.type)
        for d in tensor.shape.dim if tensor is not None else ():
            if d.HasField("dim_value") and d.dim_value == 0:
                d.dim_param = f"{_ZERO}{found}"
                found += 1
    return found > 0


def tensor_type(type_: Any) -> Any:
    """The tensor inside a type, through sequences and optionals; None for a map."""
    kind = type_.WhichOneof("value")
    if kind in ("tensor_type", "sparsetensor_type"):
        return getattr(type_, kind)
    if kind in ("sequence_type", "optional_type"):
        return tensor_type(getattr(type_, kind).elem_type)
    return None


class _Roles:
    """Finds what each input is used for by following it through the graph, nested graphs too."""

    def __init__(self, graph: Any) -> None:
        self._uses: dict[str, list[tuple[Any, int]]] = {}
        self._dims: dict[str, list[int]] = {}
        self._scalars: dict[str, int] = {}
        self._integers: dict[str, Any] = {}
        self._makers: dict[str, Any] = {}
        self._collect(graph)

    def _collect(self, graph: Any) -> None:
        for t in graph.initializer:
            self._dims[t.name] = list(t.dims)
            self._note_integers(t.name, t)
        for v in [*graph.value_info, *graph.input]:
            tensor = tensor_type(v.type)
            if tensor is not None and tensor.HasField("shape"):
                # 0 stands for a dim that is not known.
                self._dims.setdefault(v.name, [d.dim_value for d in tensor.shape.dim])
        for node in graph.node:
            for k, name in enumerate(node.input):
                if name:
                    self._uses.setdefault(name, []).append((node, k))
            for name in node.output:
                self._makers[name] = node
            for a in node.attribute:
                if node.op_type == "Constant" and a.name == "value":
                    self._dims[node.output[0]] = list(a.t.dims)
                    self._note_integers(node.output[0], a.t)
                if a.HasField("g"):
                    self._collect(a.g)
                for g in a.graphs:
                    self._collect(g)

    def _note_integers(self, name: str, tensor: Any) -> None:
        count = 1
        for d in tensor.dims:
            count *= d
        if 0 < count <= _MAX_INDICES and tensor.data_type in (6, 7) and tensor.data_location == 0:
            self._integers[name] = tensor
        if count == 1 and tensor.data_type in (6, 7) and tensor.data_location == 0:
            from onnx import numpy_helper

            try:
                self._scalars[name] = int(numpy_helper.to_array(tensor).reshape(-1)[0])
            except Exception:  # a constant that cannot be read tells nothing about the inputs
                return

    def dims_of(self, name: str) -> list[int] | None:
        """The dims of a value where they are known, through operators that keep them."""
        for _ in range(8):
            if name in self._dims:
                return self._dims[name]
            node = self._makers.get(name)
            if node is None or node.op_type not in (
                "Identity",
                "Cast",
                "DequantizeLinear",
                "QuantizeLinear",
            ):
                return None
            name = node.input[0]
        return None

    def least_sizes(self, name: str, rank: int) -> dict[int, int]:
        """By axis, the size that takes all constant indices of Gather into an input."""
        from onnx import numpy_helper

        least: dict[int, int] = {}
        seen = {name}
        queue = [name]
        while queue:
            for node, k in self._uses.get(queue.pop(), []):
                if k == 0 and node.op_type in ("Cast", "Identity"):
                    queue += [x for x in node.output if x not in seen]
                    seen.update(node.output)
                if k != 0 or node.op_type != "Gather" or node.input[1] not in self._integers:
                    continue
                axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                axis += rank if axis < 0 else 0
                try:
                    at = numpy_helper.to_array(self._integers[node.input[1]])
                except Exception:  # a constant that cannot be read tells nothing about the inputs
                    continue
                size = max(int(at.max()) + 1, -int(at.min()))
                if size <= _MAX_SIZE:
                    least[axis] = max(least.get(axis, 0), size)
        return least

    def __call__(self, name: str) -> Role:
        bounds: list[int] = []
        kinds: list[str] = []
        sizes: list[str] = []
        seen = {name}
        queue = [(name, True)]
        while queue:
            value, direct = queue.pop()
            for node, k in self._uses.get(value, []):
                op = node.op_type
                role = _ROLES.get((op, k))
                size = _SIZES.get((op, k))
                if op == "Resize" and len(node.input) == 2:
                    role = "scale" if k == 1 else None
                elif op == "Resize" and k == 3:
                    role = "extent"
                if direct and role:
                    kinds.append(role)
                elif size:
                    sizes.append(size)
                bound = self._bound(node, k)
                if bound is not None:
                    bounds.append(bound)
                if direct and op in _POSITIVE:
                    kinds.append("positive")
                elif direct and op in _UNIT:
                    kinds.append("unit")
                elif direct and op == "Acosh":
                    kinds.append("above one")
                carried = _CARRIERS.get(op) == k or op in _JOINERS or (op == "Where" and k > 0)
                # An offset or a stride still indexes a table; only the bound becomes a guess.
                carried = carried or (
                    op in ("Add", "Sub", "Mul", "Div") and self._is_integer_path(node, k)
                )
                if carried:
                    for out in node.output:
                        if out and out not in seen:
                            seen.add(out)
                            queue.append((out, direct and op in ("Cast", "Identity")))
        if bounds:
            return Role("index", max(1, min(bounds)))
        if kinds or sizes:
            return Role([*kinds, *sizes][0])
        if _MASK_NAME.search(name):
            return Role("mask")
        return Role()

    def _is_integer_path(self, node: Any, k: int) -> bool:
        return any(x in self._scalars for j, x in enumerate(node.input) if j != k)

    def _bound(self, node: Any, k: int) -> int | None:
        """The size of the table that input k of a node indexes; None where it indexes nothing."""
        op = node.op_type
        if op == "OneHot" and k == 0:
            return self._scalars.get(node.input[1])
        data = _INDEXED.get((op, k))
        if data is None or data >= len(node.input) or not node.input[data]:
            return None
        dims = self.dims_of(node.input[data])
        if not dims:
            return 1
        if op in ("GatherND", "ScatterND"):
            known = [d for d in dims if d > 0]
            return min(known) if known else 1
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if op == "ArrayFeatureExtractor":
            axis = -1
        if not -len(dims) <= axis < len(dims):
            return 1
        size = dims[axis]
        # The weights of GatherBlockQuantized hold two values in a byte only along another axis.
        return size if size > 0 else 1
