"""Each operator on inputs that are drawn for it.

The values that a model happens to have may hide a fault: where all numbers are positive, no activation's
other half is seen, and next to large variances no epsilon is. So the model is cut open at its values of
floating point: each becomes an input, and every operator is asked for its answer to numbers of two sizes,
in one run of the oracle and one of the traced conversion.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx2nn.check.compare import Comparison
from onnx2nn.check.nodes import Traced, difference
from onnx2nn.check.oracle import Runtime
from onnx2nn.check.result import Answer, Report, describe
from onnx2nn.check.values import NodeValues, has_random_op

# The sizes of the drawn numbers: around the knees of activations, and below the usual epsilons.
_SIZES = (2.0, 1e-3)
# How many of the larger ones are larger still, to pass the limits of activations, and by how much.
_FAR, _FARTHER = 1 / 8, 8.0
# What the drawn values may hold together.
_MAX_BYTES = 256 * 2**20
# Values of so few elements are rather settings than data: scales, sizes, thresholds.
_FEW = 8
# What takes numbers for sizes, places or limits: they stay as they are.
_SETTINGS = {"CenterCropPad", "GridSample", "If", "Loop", "NonMaxSuppression", "Range", "Resize"}
_SETTINGS |= {
    "RoiAlign",
    "Scan",
    "SequenceAt",
    "Upsample",
    "OneHot",
    "Pad",
    "Clip",
    "BlackmanWindow",
}
# How many values before one that differs are gone back to, and how many that differ are looked at.
_FARTHEST, _ALARMS = 3, 8


@dataclass
class Drawn:
    """Drawn values by name, and what the operators make of them; `size` is that of the numbers.

    feed: the model's inputs, drawn ones among them.
    """

    size: float
    give: dict[str, Any]
    want: dict[str, Any]
    feed: dict[str, Any]


class Drawing:
    """Draws values in place of a model's own, and asks the oracle what its operators make of them.

    names: the values that can be given to the converted module.
    """

    def __init__(self, values: NodeValues, names: list[str], answer: Answer) -> None:
        self._values, self._names, self._feed = values, names, answer.feed
        self._real: dict[str, Any] = {}
        self._steps: dict[str, tuple[Any, Any]] = {}
        proto = values.proto
        if has_random_op(proto) or not isinstance(answer.oracle, Runtime):
            return
        real = values.right(names)
        if sum(v.nbytes for v in real.values() if isinstance(v, np.ndarray)) > _MAX_BYTES:
            return
        settings = {
            n for node in proto.graph.node if node.op_type in _SETTINGS for n in node.input if n
        }
        self._steps = _quantized(proto)
        known = {**real, **answer.feed}
        self._real = {n: v for n, v in known.items() if n not in settings and _is_data(v)}

    def all(self) -> Iterator[Drawn]:
        """Every value drawn at once, in the sizes that show the most."""
        if self._real:
            yield from self._ask(list(self._real), _SIZES)

    def before(self, name: str, size: float) -> Iterator[Drawn]:
        """Only the values that lie so many values before this one, for some such numbers."""
        needs = self._values.needs([*self._names, *self._feed])
        level = needs.get(name, set())
        for _ in range(_FARTHEST):
            further = {m for n in level for m in needs.get(n, set())} or level
            level = {*further, *(n for n in level if n in self._feed)}
            chosen = [n for n in level if n in self._real]
            if chosen:
                yield from self._ask(chosen, [size])

    def _ask(self, chosen: list[str], sizes: Iterable[float]) -> Iterator[Drawn]:
        """What the oracle refuses to run on drawn values tells nothing."""
        inner = [n for n in chosen if n not in self._feed]
        try:
            opened = self._values.opened(inner, self._names, self._real)
        except Exception:  # each runtime has error types of its own
            return
        for size in sizes:
            rng = np.random.default_rng(int(1 / size))
            give = {n: _like(rng, self._real[n], size) for n in chosen}
            for n in give.keys() & self._steps.keys():
                give[n] = _rounded(give[n], *self._steps[n])
            try:
                want = opened.run({**self._feed, **give})
            except Exception:  # some operator takes no such numbers
                continue
            feed = {n: give.get(n, v) for n, v in self._feed.items()}
            yield Drawn(size, give, want, feed)


def check_on_drawn(
    traced: Traced,
    answers: list[Drawn],
    drawing: Drawing,
    values: NodeValues,
    answer: Answer,
    report: Report,
) -> bool:
    """Compare the operators on drawn inputs; the first that is wrong is reported. Whether all agree."""
    for drawn in answers:
        found = _run(traced, drawn)
        wrong = [n for n in traced.names if n in found and not found[n].ok]
        for name in wrong[:_ALARMS]:
            # A conversion may take a value from farther back than the model does: with values that are
            # drawn there it is right after all.
            again = (_run(traced, d).get(name) for d in drawing.before(name, drawn.size))
            if all(c is not None and not c.ok for c in again):
                return not report_drawn(found, [name], drawn, values, answer, report)
    return True


def _run(traced: Traced, drawn: Drawn) -> dict[str, Comparison]:
    hook = traced.hook
    hook.want, hook.give, hook.found = drawn.want, drawn.give, {}
    traced.run(drawn.feed)
    hook.want, hook.give = None, {}
    return hook.found


def report_drawn(
    found: dict[str, Comparison],
    names: list[str],
    drawn: Drawn,
    values: NodeValues,
    answer: Answer,
    report: Report,
) -> bool:
    """Report the first of these comparisons that is wrong; whether there is one."""
    wrong = next((found[n] for n in names if n in found and not found[n].ok), None)
    if wrong is None:
        return False
    shown = {n: describe(n, v) for n, v in drawn.give.items()}
    report.first_difference = difference(values, answer, shown, wrong.name)
    report.first_difference.comparison = wrong
    report.notes.append(
        f"{wrong.name} differs on inputs of size {drawn.size:g} that were drawn for its node"
    )
    return True


def _is_data(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype.name in ("float32", "float64", "float16")
        and value.ndim > 0
        and value.size > _FEW
    )


def _quantized(proto: Any) -> dict[str, tuple[Any, Any]]:
    """What DequantizeLinear gives, by name: its one scale in float32, and its zero point.

    Nothing else than whole steps may be there: what follows need not round it to them again.
    """
    from onnx import numpy_helper

    nodes = [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and len(n.input) == 3]
    wanted = {i for n in nodes for i in n.input[1:]}
    numbers = {
        t.name: numpy_helper.to_array(t).reshape(())
        for t in proto.graph.initializer
        if t.name in wanted and all(d == 1 for d in t.dims) and not t.external_data
    }
    found = {n.output[0]: (numbers.get(n.input[1]), numbers.get(n.input[2])) for n in nodes}
    return {
        name: (scale, zero)
        for name, (scale, zero) in found.items()
        if scale is not None
        and zero is not None
        and scale.dtype == np.float32
        and zero.dtype.name in ("int8", "uint8", "int16", "uint16")
    }


def _rounded(x: Any, scale: Any, zero: Any) -> Any:
    """The nearest whole steps that the zero point's type holds."""
    limits = np.iinfo(zero.dtype)
    steps = np.rint(x / scale) + np.float32(zero)
    return (np.clip(steps, limits.min, limits.max) - np.float32(zero)).astype(x.dtype) * scale


def _like(rng: np.random.Generator, value: Any, size: float) -> Any:
    """Numbers of the same shape, type and sign, and inside [0, 1] where those are."""
    x = rng.standard_normal(value.shape) * size
    if size >= 1.0:
        x = np.where(rng.random(value.shape) < _FAR, x * _FARTHER, x)
    finite = value[np.isfinite(value)]
    if finite.size and float(finite.min()) >= 0.0:
        x = rng.uniform(0.0, 1.0, value.shape) if float(finite.max()) <= 1.0 else np.abs(x)
    elif finite.size and float(finite.max()) <= 0.0:
        x = -np.abs(x)
    return x.astype(value.dtype)


__all__ = ["Drawing", "Drawn", "check_on_drawn", "report_drawn"]
