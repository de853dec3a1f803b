"""Random inputs that make sense to a model: seeded, shaped, inside the tables they index."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx2nn.check.roles import Wanted, wanted_inputs
from onnx2nn.core import InputShapes, core_shapes
from onnx2nn.errors import Error
from onnx2nn.tensors import DTYPE_NAMES, numpy_dtype

__all__ = ["Strategy", "Unfit", "candidates", "strategies", "wanted_inputs"]

_BATCH_NAME = re.compile(
    r"^(batch.*|b|n|bs|bsz|n_batch|num_batch|unk_.*|none|-1|\?)$", re.IGNORECASE
)
_PAST_NAME = re.compile(r"past|cache", re.IGNORECASE)
_TERM = re.compile(r"[A-Za-z_][\w.]*|\d+|[-+*()]|//?")
# What all drawn inputs may hold together: a guess must not be what fills the memory, and no more may
# what the model itself asks for.
_MAX_ELEMENTS = 2**24
# What one input may hold whose shape is given.
_MOST_ELEMENTS = 2**30
_MAX_FIXED_ELEMENTS = 2**28
# What is drawn for these is never 0: the model means a size by it.
_SIZE_KINDS = {"extent", "fit", "large", "length", "one", "ten", "trips", "two"}


class Unfit(Error):  # noqa: N818 (no fault of anybody's, but a reason for which nothing is checked)
    """Inputs, or shapes of inputs, that the model does not take or that cannot be drawn."""


@dataclass
class Strategy:
    """How free dims are chosen: a batch size, and a size for all others (None: by their rank).

    zeros: whether dims declared as 0 are 0.
    """

    batch: int
    size: int | None
    plain_low: bool = False
    zeros: bool = False

    @property
    def fit(self) -> int:
        """The size drawn for an integer that data has to agree with: 1 always does at first."""
        return self.size or 1


_SIZES: list[int | None] = [None, 224, 64, 256, 32, 16, 8, 4, 3, 2, 1, 128, 416, 512, 640]


def strategies() -> Iterator[Strategy]:
    """Choices of free dims, the likeliest first."""
    for plain_low in (False, True):
        for batch in (1, 2):
            for size in _SIZES:
                yield Strategy(batch, size, plain_low)
            yield Strategy(batch, None, plain_low, zeros=True)
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
    seed: 0 or more. Raises Error for a name that is not an input, and Unfit for an input that cannot
    be drawn.
    """
    if seed < 0:
        raise Error(f"seed: {seed} is negative; any number from 0 on will do")
    given, shapes = dict(given or {}), core_shapes(shapes or {})
    declared = {w.name: w for w in wanted_inputs(proto)}
    names = [*declared]
    _check_names([*given], names, "input")
    _check_names([*shapes], names, "input_shape")
    _lengthen_mask(declared)
    wanted = [_with_shape(w, shapes.get(w.name)) for w in declared.values()]
    for w in wanted:
        sizes_given = [d for d in w.dims or [] if isinstance(d, int)]
        if w.name in shapes and math.prod(sizes_given) > _MOST_ELEMENTS:
            raise Error(f"input shape: {w.name} of {w.dims} is too large to be drawn", usage=True)
    missing = [w for w in wanted if w.name not in given]
    names_of_dims = {d for w in wanted for d in w.dims or [] if isinstance(d, str)}
    tried: set[tuple[Any, ...]] = set()
    for strategy in strategies():
        sizes = _Sizes(strategy, names_of_dims)
        for w in wanted:
            if w.name in given and w.dims is not None and isinstance(given[w.name], np.ndarray):
                sizes.learn(w.dims, given[w.name].shape)
            if w.name in shapes:
                sizes.learn(declared[w.name].dims or [], w.dims or [])
        chosen = {w.name: sizes.shape(w) for w in missing}
        free = any(
            isinstance(d, str) for w in missing for d in (w.dims if w.dims is not None else [""])
        )
        count = sum(math.prod(s) for s in chosen.values())
        if count > _MAX_FIXED_ELEMENTS and not free:
            raise Unfit(
                f"the inputs have {count:,} elements, which is too many to draw: "
                f"give them in a file (--input)"
            )
        ints = any(w.elem_type in (2, 3, 4, 5, 6, 7, 12, 13) for w in missing)
        fit = strategy.fit if any(w.role.kind == "fit" for w in missing) else 0
        key = (*((n, tuple(s)) for n, s in chosen.items()), strategy.plain_low and ints, fit)
        if key in tried or (free and count > _MAX_ELEMENTS):
            continue
        tried.add(key)
        rng = np.random.default_rng(seed)
        drawn = {w.name: _draw_type(rng, w, w.type, chosen[w.name], strategy) for w in missing}
        yield {n: given[n] if n in given else drawn[n] for n in names}


def _lengthen_mask(declared: dict[str, Wanted]) -> None:
    """A merged decoder's mask is of all tokens; Optimum declares it as long as the new ones."""
    mask, tokens = declared.get("attention_mask"), declared.get("input_ids")
    past = next((w for n, w in declared.items() if n.startswith("past_key_values.")), None)
    dims = [w.dims if w and w.dims else [] for w in (mask, tokens, past)]
    if "use_cache_branch" not in declared or [len(d) for d in dims] != [2, 2, 4]:
        return
    if mask and isinstance(dims[0][1], str) and dims[0][1] == dims[1][1]:
        total = f"{dims[2][2]}+{dims[1][1]}"
        declared["attention_mask"] = replace(mask, dims=[dims[0][0], total])


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

    def __init__(self, strategy: Strategy, names: set[str]) -> None:
        self._strategy = strategy
        self._symbols: dict[str, int] = {}
        # total_sequence_length is past_sequence_length and sequence_length.
        self._parts = {
            total: (past, new)
            for total in names
            if (new := total.removeprefix("total_")) != total
            and {past := f"past_{new}", new} <= names
        }

    def learn(self, dims: list[int | str], shape: Sequence[int | str]) -> None:
        """Take the sizes of symbols from an input whose shape is given."""
        for d, size in zip(dims, shape, strict=False):
            if isinstance(d, str) and d and isinstance(size, int):
                self._symbols[d] = size

    def shape(self, w: Wanted) -> list[int]:
        """A shape for an input."""
        if w.dims is None:
            return [self._strategy.batch, self._strategy.size or 3]
        zeros = w.zeros if self._strategy.zeros else ()
        return [
            0 if k in zeros else d if isinstance(d, int) else self._size(d, k, w.dims, w)
            for k, d in enumerate(w.dims)
        ]

    def _size(self, symbol: str, k: int, dims: list[int | str], w: Wanted) -> int:
        if symbol in self._symbols:
            return self._symbols[symbol]
        if symbol in self._parts:
            return sum(self._size(part, k, dims, w) for part in self._parts[symbol])
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
        raise Unfit(
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
    if kind == "fit":
        return np.full(shape, s.fit, dtype)
    if kind in _SIZE_KINDS and s.plain_low:
        return np.ones(shape, dtype)
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
