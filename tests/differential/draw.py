"""Draws one-node models at random: element types from the operator's schema, shapes, values.

A spec (see `specs/`) is a function that takes a `Draw` and returns a `Node`. What it draws
follows from operator, opset and seed alone, so that a seed names a case for good.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.defs import OpSchema

from onnx2nn.tensors import numpy_dtype

Array = Any

_NAMES = {
    "float": "float32",
    "double": "float64",
    "string": "object",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    "float4e2m1": "float4_e2m1fn",
    "float6e2m3": "float6_e2m3fn",
    "float6e3m2": "float6_e3m2fn",
}
WORDS = ["", "a", "b", "ab", "Aa", "été", "x y", "0", "zz"]


@dataclass
class Const:
    """An input that is an initialiser."""

    value: Array


@dataclass
class Typed:
    """An input with a type that its value does not say: an optional, an empty sequence."""

    value: Any
    type: onnx.TypeProto


@dataclass
class Node:
    """One node with what to feed it.

    inputs: arrays, lists (sequences), None where absent, or either of the above.
    outputs: a number, or of each output whether it is there.
    expected: the answer, where neither oracle knows this revision.
    rtol, atol: instead of those of the outputs' types; atol is relative to the output's spread.
    """

    inputs: Sequence[Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int | Sequence[bool] = 1
    expected: Sequence[Any] | None = None
    rtol: float | None = None
    atol: float | None = None
    # What bodies take from the graph around them: c0, c1 and so on.
    captured: Sequence[Any] = ()
    # Whether the inputs' ranks must be known.
    ranked: bool = False


class Skip(Exception):  # noqa: N818
    """What was drawn makes no sense; the next seed is tried."""


class Draw:
    """A source of random choices, and what the operator's schema allows."""

    def __init__(self, op_type: str, domain: str, opset: int, seed: int) -> None:
        self.op_type, self.domain, self.opset, self.seed = op_type, domain, opset, seed
        key = zlib.crc32(f"{domain}.{op_type}".encode())
        self.rng = np.random.default_rng([key, opset, seed])
        self._schema: OpSchema | None = None
        self._types: dict[str, np.dtype[Any]] = {}
        # Mostly plain numbers; now and then what breaks things.
        self.special = self.chance(0.25)

    # ------------------------------------------------------------ choices

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def integer(self, low: int, high: int) -> int:
        """Between low and high, both included."""
        return int(self.rng.integers(low, high + 1))

    def attrs(self, **options: Sequence[Any] | Callable[[], Any]) -> dict[str, Any]:
        """Each attribute absent, or one of its values."""
        chosen = {}
        for name, values in options.items():
            if self.chance(0.4):
                continue
            chosen[name] = values() if callable(values) else self.pick(*values)
        return chosen

    def axis(self, rank: int) -> int:
        """An axis, from the front or from the back."""
        return self.integer(-rank, rank - 1)

    def axes(self, rank: int, low: int = 0, high: int | None = None) -> list[int]:
        """Different axes in any order, some from the back."""
        count = self.integer(low, rank if high is None else min(high, rank))
        chosen = self.rng.permutation(rank)[:count]
        return [int(a) - (rank if self.chance(0.3) else 0) for a in chosen]

    def shape(self, low: int = 0, high: int = 4, size: int = 4) -> tuple[int, ...]:
        """Ranks low to high, sizes 1 to `size` and now and then 0."""
        rank = self.integer(low, high)
        dims = [self.integer(1, size) for _ in range(rank)]
        if rank and self.chance(0.06):
            dims[self.integer(0, rank - 1)] = 0
        return tuple(dims)

    def broadcast(self, count: int, high: int = 4) -> list[tuple[int, ...]]:
        """Shapes that broadcast with each other."""
        whole = self.shape(0, high)
        shapes = []
        for _ in range(count):
            dims = [1 if self.chance(0.2) else d for d in whole]
            shapes.append(tuple(dims[self.integer(0, len(dims)) if self.chance(0.4) else 0 :]))
        return shapes

    def into(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to `shape` and no further."""
        dims = [1 if self.chance(0.25) else d for d in shape]
        return tuple(dims[self.integer(0, len(dims)) if self.chance(0.4) else 0 :])

    # ------------------------------------------------------------ types

    @property
    def schema(self) -> OpSchema:
        if self._schema is None:
            self._schema = onnx.defs.get_schema(self.op_type, self.opset, self.domain)
        return self._schema

    def allowed(self, param: str) -> list[str]:
        """The element types that the schema allows for a type parameter, as numpy names them."""
        for constraint in self.schema.type_constraints:
            if constraint.type_param_str == param:
                names = constraint.allowed_type_strs
                break
        else:
            names = [param]
        inner = [n.split("(")[-1].rstrip(")") for n in names]
        return list(dict.fromkeys(_NAMES.get(n, n) for n in inner))

    def t(self, param: str = "T", *only: str, common: float = 0.4) -> np.dtype[Any]:
        """The type drawn for a parameter, the same each time; float32 with a chance of `common`."""
        if param not in self._types:
            names = self.allowed(param)
            if only:
                names = [n for n in names if n in only or any(fits(n, o) for o in only)]
            if not names:
                raise Skip(f"no type for {param}")
            name = "float32" if "float32" in names and self.chance(common) else self.pick(*names)
            self._types[param] = numpy_dtype(name)
        return self._types[param]

    # ------------------------------------------------------------ values

    def x(
        self,
        shape: Sequence[int],
        dtype: Any = "T",
        low: float | None = None,
        high: float | None = None,
        special: bool | None = None,
    ) -> Array:
        """An array of a type parameter or dtype; from [low, high] where they are given."""
        if isinstance(dtype, str):
            dtype = self.t(dtype) if self._is_param(dtype) else numpy_dtype(dtype)
        shape = tuple(int(d) for d in shape)
        kind = kind_of(dtype)
        special = (self.special if special is None else special) and low is None
        if kind == "s":
            words = np.empty(shape, object)
            flat = [str(self.pick(*WORDS)) for _ in range(words.size)]
            words.reshape(-1)[:] = flat
            return words
        if kind == "b":
            return self.rng.random(shape) < 0.5
        if kind == "c":
            parts = self.rng.normal(0, 2, (2, *shape))
            return (parts[0] + 1j * parts[1]).astype(dtype)
        if kind == "f":
            return self._floats(shape, dtype, low, high, special)
        return self._integers(shape, dtype, low, high, special)

    def _is_param(self, name: str) -> bool:
        return name[0] in "TUVSBIMO" and any(
            c.type_param_str == name for c in self.schema.type_constraints
        )

    def _floats(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        low: float | None,
        high: float | None,
        special: bool,
    ) -> Array:
        if low is not None:
            x = np.asarray(self.rng.uniform(low, 1 if high is None else high, shape))
        else:
            x = np.asarray(self.rng.normal(0, 2, shape))
        if self.chance(0.2) and low is None:
            x = np.round(x * 2) / 2
        if special and x.size:
            flat = x.reshape(-1)
            extremes = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 65504.0, -1e5, 3e38]
            for i in range(flat.size):
                if self.chance(0.3):
                    flat[i] = self.pick(*extremes)
            x = flat.reshape(shape)
        with np.errstate(all="ignore"):
            return x.astype(dtype)

    def _integers(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        low: float | None,
        high: float | None,
        special: bool,
    ) -> Array:
        least, most = limits(dtype)
        if low is not None:
            first, last = max(least, round(low)), min(most, round(1 if high is None else high))
        else:
            first, last = max(least, -9), min(most, 9)
        x = self.rng.integers(first, last, shape, endpoint=True)
        if special and x.size:
            wide = np.asarray(x, object).reshape(-1)
            for i in range(wide.size):
                if self.chance(0.3):
                    wide[i] = self.pick(least, most, 0, 1, most // 2, max(least, -1))
            return wide.reshape(shape).astype(np.uint64 if least == 0 else np.int64).astype(dtype)
        return np.asarray(x).astype(dtype)

    def index(self, shape: Sequence[int], size: int, dtype: Any = np.int64) -> Array:
        """Indices into an axis of `size`, some from the back; size must not be 0."""
        if size == 0:
            raise Skip("no index into an empty axis")
        return self.rng.integers(-size, size, tuple(shape)).astype(dtype)

    def maybe(self, value: Array, p: float = 0.5) -> Array | None:
        """The value, or an absent input."""
        return value if self.chance(p) else None

    def const(self, value: Array, p: float = 0.7) -> Any:
        """An input that is mostly an initialiser."""
        return Const(np.asarray(value)) if self.chance(p) else np.asarray(value)

    def ints(self, values: Sequence[int], p: float = 0.7, dtype: Any = np.int64) -> Any:
        """A list of integers as an input that is mostly an initialiser."""
        return self.const(np.array(list(values), dtype), p)


def kind_of(dtype: np.dtype[Any]) -> str:
    """f, i, u, b, c or s."""
    if dtype.kind in "OUST":
        return "s"
    if dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float")):
        return "c" if dtype.kind == "c" else "f"
    if dtype.name.startswith("uint"):
        return "u"
    return "b" if dtype.kind == "b" else "i"


def fits(name: str, group: str) -> bool:
    """Whether a type is of a group: "float", "narrow" (float8 and below), "int"."""
    if group == "float":
        return name in ("float16", "float32", "float64", "bfloat16")
    if group == "narrow":
        return name.startswith(("float8_", "float6_", "float4_"))
    if group == "int":
        return (name.startswith(("int", "uint")) and name[-1] not in "24") or name == "int64"
    if group == "uint":
        return name.startswith("uint") and name not in ("uint2", "uint4")
    return False


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and greatest value of an integer type."""
    name = dtype.name
    bits = int(name.removeprefix("u").removeprefix("int"))
    if name[0] == "u":
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
