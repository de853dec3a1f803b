"""When two answers are the same."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Bar", "Comparison", "Random", "agree", "compare", "flatten", "identical", "is_float"]

# A floating output is right when its mean squared error is below both of these: the first scaled by
# the output's mean square where that is above 1, the second times its variance.
_MSE = 1e-7
_MSE_OF_VARIANCE = 1e-4
# By how much narrow types round more than float32 does; their answers are compared that much more
# loosely. The floor keeps a constant output, whose variance is nothing, from asking for exactness.
_LOOSER = {"float16": 1e3, "bfloat16": 1e5}
_LOOSER_FLOAT8 = 1e6
_FLOOR = 1e-6


@dataclass
class Comparison:
    """One output compared: `ok`, how far it is off, and `reason` where it is wrong."""

    name: str
    ok: bool
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    mse: float | None = None
    max_abs: float | None = None
    max_rel: float | None = None
    argmax: float | None = None
    random: bool = False
    # Right, though beyond the usual bar: each node is right on equal inputs.
    rounding: bool = False
    reason: str | None = None
    # Mean squared errors against the same module in double precision, where that could be had.
    oracle_mse: float | None = None
    own_mse: float | None = None
    # Of a node on the oracle's inputs: how much of what rounding may explain the difference takes.
    allowed: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        d = asdict(self)
        d["shape"] = None if self.shape is None else list(self.shape)
        return {
            k: v if not isinstance(v, float) or np.isfinite(v) else str(v) for k, v in d.items()
        }


@dataclass
class Random:
    """An output that differs from run to run: only its shape and type can be right or wrong."""

    value: Any


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, array) of every tensor in nested lists and dicts; keys and lengths count as values."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.key", np.asarray(key)
            yield from flatten(item, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        yield f"{path}.len", np.asarray(len(value))
        for k, item in enumerate(value):
            yield from flatten(item, f"{path}[{k}]")
    elif value is None:
        yield f"{path}.none", np.asarray(True)
    else:
        yield path, np.asarray(value)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is a floating or complex one, those of ml_dtypes among them."""
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))


def agree(a: Any, b: Any) -> bool:
    """Whether two runs of one implementation agree, but for the last digits of a sum."""
    xs, ys = list(flatten(a)), list(flatten(b))
    if len(xs) != len(ys):
        return False
    for (_, x), (_, y) in zip(xs, ys, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            return False
        if is_float(x.dtype):
            wide = _wide(x)
            if not np.allclose(wide, _wide(y), 1e-3, 1e-5, equal_nan=True):
                return False
        elif not np.array_equal(x, y):
            return False
    return True


def identical(a: Any, b: Any) -> bool:
    """Whether two values are the same number for number; NaN is itself."""
    xs, ys = list(flatten(a)), list(flatten(b))
    return len(xs) == len(ys) and all(
        x.shape == y.shape
        and x.dtype == y.dtype
        and np.array_equal(x, y, equal_nan=is_float(x.dtype))
        for (_, x), (_, y) in zip(xs, ys, strict=True)
    )


@dataclass
class Bar:
    """How far an output may be off, as callers set it: absolutely, and relative to what it should be."""

    atol: float = 0.0
    rtol: float = 0.0


def compare(
    name: str,
    want: Any,
    got: Any,
    check_dtype: bool = True,
    rounded_to: str | None = None,
    bar: Bar | None = None,
) -> Comparison:
    """Compare one output, which may be a sequence or a map, with what it should be.

    `rounded_to` names a narrower type than the output's own, in which it was computed. `bar` is to be
    held to instead of the usual one.
    """
    if isinstance(want, Random):
        return _compare_random(name, want.value, got)
    wants, gots = list(flatten(want)), list(flatten(got))
    if len(wants) != len(gots):
        reason = f"{len(gots)} values instead of {len(wants)}"
        return Comparison(name, False, reason=reason)
    worst: Comparison | None = None
    for (path, w), (other, g) in zip(wants, gots, strict=True):
        c = _compare_array(name, w, g, check_dtype, rounded_to, bar)
        if c.ok and path != other:
            c = Comparison(name, False, reason=f"{other} instead of {path}")
        if not c.ok:
            c.reason = f"at {path}: {c.reason}" if path else c.reason
            return c
        if worst is None or (c.mse or 0.0) >= (worst.mse or 0.0):
            worst = c
    return worst or Comparison(name, True)


def _compare_random(name: str, want: Any, got: Any) -> Comparison:
    wants, gots = list(flatten(want)), list(flatten(got))
    shapes = [w.shape for _, w in wants], [g.shape for _, g in gots]
    c = Comparison(name, shapes[0] == shapes[1], random=True)
    if len(wants) == 1:
        c.dtype, c.shape = wants[0][1].dtype.name, wants[0][1].shape
    if not c.ok:
        c.reason = f"shape {_shapes(shapes[1])} instead of {_shapes(shapes[0])}"
    return c


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(str(list(s)) for s in shapes)


def _wide(x: Any) -> Any:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _compare_array(
    name: str,
    want: Any,
    got: Any,
    check_dtype: bool,
    rounded_to: str | None,
    bar: Bar | None,
) -> Comparison:
    c = Comparison(name, False, want.dtype.name, want.shape)
    if want.shape != got.shape:
        c.reason = f"shape {list(got.shape)} instead of {list(want.shape)}"
        return c
    texts = want.dtype.kind in "OUST" and got.dtype.kind in "OUST"
    if check_dtype and want.dtype != got.dtype and not texts:
        c.reason = f"type {got.dtype.name} instead of {want.dtype.name}"
        return c
    if want.size == 0:
        c.ok = True
        return c
    if not is_float(want.dtype):
        wrong = int((want != got).sum())
        if want.dtype.kind in "iu" and got.dtype.kind in "iufb":
            gap = np.abs(want.astype(np.float64) - got.astype(np.float64))
            c.max_abs, c.mse = float(gap.max()), float((gap**2).mean())
        c.ok = wrong == 0
        if wrong:
            c.reason = f"{wrong} of {want.size} {want.dtype.name} elements differ"
        return c
    if got.dtype.kind in "OUST":
        c.reason = f"type {got.dtype.name} instead of {want.dtype.name}"
        return c
    return _compare_floats(c, _wide(want), _wide(got), rounded_to or c.dtype, bar)


def _compare_floats(c: Comparison, a: Any, b: Any, dtype: str, bar: Bar | None) -> Comparison:
    """Fill in `c` for the float64 (or complex128) arrays a, wanted, and b."""
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        c.reason = f"NaN in {int(np.isnan(b).sum())} places instead of {int(np.isnan(a).sum())}"
        return c
    infinite = np.isinf(a) | np.isinf(b)
    if not np.array_equal(a[infinite], b[infinite]):
        c.reason = f"{int((a[infinite] != b[infinite]).sum())} infinities differ"
        return c
    finite = np.isfinite(a) & np.isfinite(b)
    x, y = a[finite], b[finite]
    c.ok = True
    if x.size == 0:
        c.mse = c.max_abs = c.max_rel = 0.0
        return c
    gap = np.abs(x - y)
    size = np.abs(x)
    square = float((size**2).mean())
    c.mse, c.max_abs = float((gap**2).mean()), float(gap.max())
    # Relative to the element, but not to one that is itself lost in the rounding of the others.
    c.max_rel = float((gap / np.maximum(size, max(1e-6 * square**0.5, 1e-30))).max())
    if a.ndim == 2 and a.shape[1] > 1 and a.dtype.kind == "f" and bool(finite.all()):
        c.argmax = float((a.argmax(1) == b.argmax(1)).mean())
    if bar is not None:
        beyond = int((gap > bar.atol + bar.rtol * size).sum())
        c.ok = beyond == 0
        if beyond:
            c.reason = (
                f"{beyond} of {x.size} elements differ by more than {bar.atol:g} + {bar.rtol:g} |y|"
            )
        return c
    looser = _LOOSER.get(dtype, _LOOSER_FLOAT8 if dtype.startswith("float8") else 1.0)
    spread = max(
        float(x.var()), square * _FLOOR * min(looser * 10, 1e6) if looser > 1 else square * _FLOOR
    )
    if c.mse >= _MSE * looser * max(1.0, square):
        c.ok = False
        c.reason = f"mean squared error {c.mse:.3g}"
    elif c.mse > _MSE_OF_VARIANCE * spread:
        c.ok = False
        c.reason = f"mean squared error {c.mse:.3g} against a variance of {spread:.3g}"
    return c
