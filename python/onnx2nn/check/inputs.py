"""Random inputs that make sense to a model: seeded, shaped, inside the tables they index."""

import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx2nn.api import Error, InputShapes, core_shapes
from onnx2nn.tensors import DTYPE_NAMES, numpy_dtype

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
    ("CumSum", 1): "zero",
    ("CumProd", 1): "zero",
    ("DequantizeLinear", 1): "positive",
    ("Div", 1): "nonzero",
    ("Dropout", 1): "probability",
    ("Dropout", 2): "false",
    ("GRU", 4): "length",
    ("GreedySearch", 1): "ten",
    ("GreedySearch", 2): "one",
    ("GreedySearch", 3): "one",
    ("If", 0): "true",
    ("LSTM", 4): "length",
    ("Loop", 0): "trips",
    ("Loop", 1): "true",
    ("Mod", 1): "nonzero",
    ("NonMaxSuppression", 2): "ten",
    ("NonMaxSuppression", 3): "probability",
    ("NonMaxSuppression", 4): "probability",
    ("Pad", 1): "zero",
    ("QuantizeLinear", 1): "positive",
    ("RNN", 4): "length",
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
    ("Upsample", 1): "scale",
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
_BATCH_NAME = re.compile(
    r"^(batch.*|b|n|bs|bsz|n_batch|num_batch|unk_.*|none|-1|\?)$", re.IGNORECASE
)
_PAST_NAME = re.compile(r"past|cache", re.IGNORECASE)
_TERM = re.compile(r"[A-Za-z_][\w.]*|\d+|[-+*()]|//?")
# What all drawn inputs may hold together: a guess must not be what fills the memory.
_MAX_ELEMENTS = 2**24
# What one input may hold whose shape is given.
_MOST_ELEMENTS = 2**30
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

    least: by axis, the size that constant indices into it ask for at least.
    """

    name: str
    type: Any
    elem_type: int
    dims: list[int | str] | None
    role: Role
    least: dict[int, int] = field(default_factory=dict)


@dataclass
class Strategy:
    """How free dims are chosen: a batch size, and a size for all others (None: by their rank)."""

    batch: int
    size: int | None
    plain_low: bool = False


_SIZES: list[int | None] = [None, 224, 64, 256, 32, 16, 8, 4, 3, 2, 1, 128, 416, 512, 640]


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
        tensor = _tensor_type(i.type)
        dims: list[int | str] | None = None
        if tensor is not None and tensor.HasField("shape"):
            dims = [
                int(d.dim_value)
                if d.HasField("dim_value") and d.dim_value > 0
                # A zero is more often an exporter's "unknown" than an empty tensor.
                else d.dim_param or ""
                for d in tensor.shape.dim
            ]
        found.append(
            Wanted(
                i.name,
                i.type,
                tensor.elem_type if tensor is not None else 0,
                dims,
                roles(i.name),
                roles.least_sizes(i.name, len(dims or [])),
            )
        )
    return found


def _tensor_type(type_: Any) -> Any:
    """The tensor inside a type, through sequences and optionals; None for a map."""
    kind = type_.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        return getattr(type_, kind)
    if kind in ("sequence_type", "optional_type"):
        return _tensor_type(getattr(type_, kind).elem_type)
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
            tensor = _tensor_type(v.type)
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
                if size <= _MAX_ELEMENTS:
                    least[axis] = max(least.get(axis, 0), size)
        return least

    def __call__(self, name: str) -> Role:
        bounds: list[int] = []
        kinds: list[str] = []
        seen = {name}
        queue = [(name, True)]
        while queue:
            value, direct = queue.pop()
            for node, k in self._uses.get(value, []):
                op = node.op_type
                role = _ROLES.get((op, k))
                if op == "Resize" and len(node.input) == 2:
                    role = "scale" if k == 1 else None
                elif op == "Resize" and k == 3:
                    role = "extent"
                if role and (direct or role in ("length", "reshape", "extent", "trips")):
                    kinds.append(role)
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
                    op in ("Add", "Sub", "Mul") and self._is_integer_path(node, k)
                )
                if carried:
                    for out in node.output:
                        if out and out not in seen:
                            seen.add(out)
                            queue.append((out, direct and op in ("Cast", "Identity")))
        if bounds:
            return Role("index", max(1, min(bounds)))
        if kinds:
            return Role(kinds[0])
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


def strategies() -> Iterator[Strategy]:
    """Choices of free dims, the likeliest first."""
    for plain_low in (False, True):
        for batch in (1, 2):
            for size in _SIZES:
                yield Strategy(batch, size, plain_low)
        # A first dim that is not a batch but, say, time.
        for size in (16, 64, 224):
            yield Strategy(size, size, plain_low)


def candidates(
    proto: Any,
    seed: int = 0,
    given: dict[str, Any] | None = None,
    shapes: InputShapes | None = None,
) -> Iterator[dict[str, Any]]:
    """Sets of inputs for a model, the likeliest to be accepted first.

    given: values by input name, used as they are. shapes: dims by input name; None,
    a negative number or a name leaves the size of a dim to be drawn, one name always the same.
    Raises Error for a name that is not an input, or an input of which no value can be drawn.
    """
    given, shapes = dict(given or {}), core_shapes(shapes or {})
    declared = {w.name: w for w in wanted_inputs(proto)}
    names = [*declared]
    _check_names([*given], names, "input")
    _check_names([*shapes], names, "input_shape")
    wanted = [_with_shape(w, shapes.get(w.name)) for w in declared.values()]
    for w in wanted:
        sizes_given = [d for d in w.dims or [] if isinstance(d, int)]
        if w.name in shapes and math.prod(sizes_given) > _MOST_ELEMENTS:
            raise Error(f"input shape: {w.name} of {w.dims} is too large to be drawn", usage=True)
    missing = [w for w in wanted if w.name not in given]
    tried: set[tuple[Any, ...]] = set()
    for strategy in strategies():
        sizes = _Sizes(strategy)
        for w in wanted:
            if w.name in given and w.dims is not None and isinstance(given[w.name], np.ndarray):
                sizes.learn(w.dims, given[w.name].shape)
            if w.name in shapes:
                sizes.learn(declared[w.name].dims or [], w.dims or [])
        chosen = {w.name: sizes.shape(w) for w in missing}
        count = sum(int(np.prod(s, dtype=np.float64)) for s in chosen.values())
        ints = any(w.elem_type in (2, 3, 4, 5, 6, 7, 12, 13) for w in missing)
        key = (*((n, tuple(s)) for n, s in chosen.items()), strategy.plain_low and ints)
        free = any(
            isinstance(d, str) for w in missing for d in (w.dims if w.dims is not None else [""])
        )
        if key in tried or (free and count > _MAX_ELEMENTS):
            continue
        tried.add(key)
        rng = np.random.default_rng(seed)
        drawn = {w.name: _draw_type(rng, w, w.type, chosen[w.name], strategy) for w in missing}
        yield {n: given[n] if n in given else drawn[n] for n in names}


def _with_shape(w: Wanted, shape: list[int | str] | None) -> Wanted:
    """The input with those dims replaced that `shape` gives."""
    if shape is None:
        return w
    known = w.dims if w.dims is not None and len(w.dims) == len(shape) else [""] * len(shape)
    dims = [k if isinstance(d, int) and d < 0 else d for k, d in zip(known, shape, strict=True)]
    return replace(w, dims=dims)


def _check_names(names: list[str], known: list[str], what: str) -> None:
    wrong = [n for n in names if n not in known]
    if wrong:
        raise Error(
            f"{what}: the model has no input {', '.join(map(repr, wrong))}; "
            f"its inputs are {', '.join(map(repr, known)) or 'none'}",
            usage=True,
        )


class _Sizes:
    """Gives sizes to free dims: the same symbol always gets the same size."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._symbols: dict[str, int] = {}

    def learn(self, dims: list[int | str], shape: Sequence[int | str]) -> None:
        """Take the sizes of symbols from an input whose shape is given."""
        for d, size in zip(dims, shape, strict=False):
            if isinstance(d, str) and d and isinstance(size, int):
                self._symbols[d] = size

    def shape(self, w: Wanted) -> list[int]:
        """A shape for an input."""
        if w.dims is None:
            return [self._strategy.batch, self._strategy.size or 3]
        return [
            d if isinstance(d, int) else self._size(d, k, w.dims, w) for k, d in enumerate(w.dims)
        ]

    def _size(self, symbol: str, k: int, dims: list[int | str], w: Wanted) -> int:
        if symbol in self._symbols:
            return self._symbols[symbol]
        terms = _TERM.findall(symbol)
        if len(terms) > 1 and "".join(terms) == symbol.replace(" ", ""):
            value = self._expression(terms, k, dims, w)
            if value is not None:
                return value
        # Names such as past_sequence_length + 1 are often spelled out in words.
        size = max(self._fresh(symbol, k, dims, w), w.least.get(k, 0))
        if symbol:
            self._symbols[symbol] = size
        return size

    def _expression(self, terms: list[str], k: int, dims: list[int | str], w: Wanted) -> int | None:
        """The value of sums, differences, products and quotients of symbols, left to right."""
        total, factor, operator, sign = 0, 1, "*", 1
        if "(" in terms:
            return None
        for term in terms:
            if term in ("+", "-"):
                total += sign * factor
                factor, operator, sign = 1, "*", 1 if term == "+" else -1
            elif term in ("*", "/", "//"):
                operator = term
            else:
                value = int(term) if term.isdigit() else self._size(term, k, dims, w)
                factor = factor * value if operator == "*" else factor // max(1, value)
        total += sign * factor
        return total if total >= 0 else None

    def _fresh(self, symbol: str, k: int, dims: list[int | str], w: Wanted) -> int:
        s, rank = self._strategy, len(dims)
        if _BATCH_NAME.match(symbol) and (k == 0 or symbol.lower().startswith("batch")):
            return s.batch
        if symbol.lower().endswith("plus_1"):
            return s.batch + 1
        if k == 0 and rank > 1 and (not symbol or symbol.lower() not in _SEQUENCE_SYMBOLS):
            return s.batch
        if s.size is not None:
            if rank == 4 and k == 1 and w.elem_type in (1, 2, 10, 16) and s.size > 8:
                return 3
            return s.size
        if rank == 4 and w.elem_type in (1, 2, 10, 16):
            return 3 if k == 1 else 224
        return 4 if _PAST_NAME.search(symbol) else 8


_SEQUENCE_SYMBOLS = {
    "seq",
    "seq_len",
    "sequence",
    "sequence_length",
    "length",
    "tokens",
    "time",
    "t",
    "l",
}


def _draw_type(
    rng: np.random.Generator, w: Wanted, type_: Any, shape: list[int], s: Strategy
) -> Any:
    kind = type_.WhichOneof("value")
    if kind == "sequence_type":
        return [_draw_type(rng, w, type_.sequence_type.elem_type, shape, s) for _ in range(2)]
    if kind == "optional_type":
        if s.plain_low:
            return None
        return _draw_type(rng, w, type_.optional_type.elem_type, shape, s)
    if kind not in ("tensor_type", "sparse_tensor_type") or w.elem_type not in DTYPE_NAMES:
        raise Error(
            f"input {w.name!r} is of a type that no values are drawn for: "
            f"give them in an .npz file (--input)"
        )
    return _draw(rng, w, shape, s)


def _draw(rng: np.random.Generator, w: Wanted, shape: list[int], s: Strategy) -> Any:
    name, kind = DTYPE_NAMES[w.elem_type], w.role.kind
    if name == "object":
        return np.full(shape, "a", dtype=object)
    if name.startswith("complex"):
        x: Any = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        return x.astype(name)
    dtype = numpy_dtype(name)
    special = _SPECIAL.get(kind)
    if special is not None and not (s.plain_low and "int" in name):
        return np.asarray(special(rng, shape)).astype(dtype)
    if kind == "index":
        high = min(w.role.bound or 1, 2 if s.plain_low else 2**31)
        if np.issubdtype(dtype, np.integer):
            high = min(high, int(np.iinfo(dtype).max) + 1)
        return rng.integers(0, high, shape).astype(dtype)
    if kind == "mask":
        return _mask(rng, shape).astype(dtype)
    if name == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if "int" in name:
        return _integers(rng, name, shape, s).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _integers(rng: np.random.Generator, name: str, shape: list[int], s: Strategy) -> Any:
    if s.plain_low:
        return rng.integers(0, 2, shape)
    ranges = {
        "uint8": (0, 256),
        "int8": (-128, 128),
        "int4": (-8, 8),
        "uint4": (0, 16),
        "int2": (-2, 2),
        "uint2": (0, 4),
    }
    return rng.integers(*ranges.get(name, (0, 10)), shape)


def _mask(rng: np.random.Generator, shape: list[int]) -> Any:
    """Ones with a tail of zeros in each row, as padded batches have; never a row of zeros."""
    if not shape or shape[-1] < 2 or len(shape) > 2:
        return np.ones(shape, np.int64)
    lengths = rng.integers(shape[-1] // 2 + 1, shape[-1] + 1, shape[:-1])
    return (np.arange(shape[-1]) < np.asarray(lengths)[..., None]).astype(np.int64)


def _boxes(rng: np.random.Generator, shape: list[int]) -> Any:
    corner = rng.uniform(0, 4, [*shape[:-1], 2])
    return np.concatenate([corner, corner + rng.uniform(1, 4, corner.shape)], -1)


def _scale(rng: np.random.Generator, shape: list[int]) -> Any:
    """Scales for Resize: batch and channels stay, the rest doubles."""
    del rng
    scales = np.full(shape, 2.0)
    if len(shape) == 1 and shape[0] > 2:
        scales[:2] = 1.0
    return scales


def _reshape(rng: np.random.Generator, shape: list[int]) -> Any:
    """A target shape that always fits: everything in the first dim."""
    del rng
    target = np.ones(shape, np.int64)
    if target.size:
        target.reshape(-1)[0] = -1
    return target


def _constant(value: float) -> Callable[[np.random.Generator, list[int]], Any]:
    return lambda rng, shape: np.full(shape, value)


_SPECIAL: dict[str, Callable[[np.random.Generator, list[int]], Any]] = {
    "above one": lambda rng, shape: 1.0 + np.abs(rng.standard_normal(shape)),
    "boxes": _boxes,
    "extent": _constant(4),
    "false": _constant(0),
    "large": _constant(4),
    "length": _constant(1),
    "maximum": _constant(1),
    "minimum": _constant(-1),
    "nonzero": lambda rng, shape: rng.integers(1, 6, shape),
    "one": _constant(1),
    "positive": lambda rng, shape: 0.5 + np.abs(rng.standard_normal(shape)),
    "probability": lambda rng, shape: rng.uniform(0.05, 0.95, shape),
    "reshape": _reshape,
    "scale": _scale,
    "small": lambda rng, shape: rng.integers(0, 4, shape),
    "ten": _constant(10),
    "trips": _constant(3),
    "true": _constant(1),
    "two": _constant(2),
    "unit": lambda rng, shape: rng.uniform(-0.9, 0.9, shape),
    "zero": _constant(0),
}


# Types that numpy itself has: files hold the others as something else.
_PLAIN = {
    name
    for name in DTYPE_NAMES.values()
    if re.fullmatch(r"object|bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)", name)
}


def read_inputs(path: str | Path) -> dict[str, Any]:
    """Inputs by name from an .npz file, or the only input, under the name "", from an .npy file.

    In an .npz file "in:" before a name is dropped, and names that begin with "out:" are left out.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        if not start.startswith((b"PK", b"\x93NUMPY")):
            raise Error(f"{path}: not an .npz or .npy file of inputs", unreadable=True)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded as archive:
            return {
                name.removeprefix("in:"): archive[name]
                for name in archive.files
                if not name.startswith("out:")
            }
    except OSError as error:
        raise Error(f"{path}: {error.strerror or error}", unreadable=True) from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        what = "holds Python objects, which are not read" if "pickle" in str(error) else str(error)
        raise Error(
            f"{path}: not an .npz or .npy file of inputs: {what}", unreadable=True
        ) from error


def named_inputs(proto: Any, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Given inputs by name; one without a name belongs to the only input."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"inputs: {type(given).__name__} is not a dict of values by input name")
    if not given or "" not in given:
        return given
    names = [w.name for w in wanted_inputs(proto)]
    if len(names) != 1:
        raise Error(
            f"one array was given for {len(names)} inputs: {', '.join(names)}; "
            f"give an .npz file of them by name",
            usage=True,
        )
    return {names[0]: given[""]}


def unfit(proto: Any, given: dict[str, Any] | None) -> str | None:
    """Why given inputs cannot be those of the model, where their types say so already."""
    wanted = {w.name: w for w in wanted_inputs(proto)}
    wrong = []
    for name, value in (given or {}).items():
        if name not in wanted or not isinstance(value, np.ndarray):
            continue
        want = DTYPE_NAMES.get(wanted[name].elem_type, "")
        got = "object" if value.dtype.kind in "OUST" else value.dtype.name
        is_tensor = wanted[name].type.WhichOneof("value") == "tensor_type"
        if is_tensor and want in _PLAIN and got in _PLAIN and got != want:
            takes, is_ = (t.replace("object", "string") for t in (want, got))
            wrong.append(f"the input {name} is {is_}, where the model takes {takes}")
    return "; ".join(wrong) or None
