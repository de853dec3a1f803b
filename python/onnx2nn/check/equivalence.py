"""Whether two ONNX files compute the same, by running both: one session each, on several inputs."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from onnx2nn.api import Error, InputShapes, Source
from onnx2nn.check.compare import Comparison, compare, is_float
from onnx2nn.check.inputs import candidates, named_inputs, unfit
from onnx2nn.check.oracle import Reference, Runtime, first_line, read_proto
from onnx2nn.check.skeleton import Skeleton
from onnx2nn.check.verification import (
    Answer,
    Report,
    describe,
    has_random_op,
    larger_batch,
    mark_random,
)

# The reference evaluator computes in Python: larger models would take it hours.
_REFERENCE_BYTES = 256 * 2**20
# When to stop looking for inputs that the model accepts.
_SEARCH_S = 30.0
# How often a model with random operators is asked again.
_RANDOM_RUNS = 4
# By how much more than a last digit of the inputs reordered sums may move an output.
_NOISE = 16.0


class Original:
    """A model's answers to several inputs, and others compared with them.

    inputs: values by name, for one comparison; without them `count` sets are drawn from `seed` on.
    input_shapes: dims by name, for what is drawn. custom_lib: a library of operators to register.
    `skipped` says why there is no answer.
    """

    def __init__(
        self,
        source: Source,
        count: int = 3,
        *,
        inputs: dict[str, Any] | None = None,
        input_shapes: InputShapes | None = None,
        seed: int = 0,
        threads: int = 0,
        custom_lib: str | None = None,
    ) -> None:
        self._threads, self._custom_lib = threads, custom_lib
        self._model = _open(source)
        self._proto = read_proto(_readable(source, self._model))
        inputs = named_inputs(self._proto, inputs)
        self.skipped: str | None = unfit(self._proto, inputs)
        self.answers: list[Answer] = []
        self.notes: list[str] = []
        self._noise: dict[int, list[float]] = {}
        if self.skipped is not None:
            return
        reasons: list[str] = []
        for name, oracle in self._oracles(source, reasons):
            first = self._search(oracle, seed, inputs, input_shapes)
            if isinstance(first, Answer):
                self.answers = [first]
                break
            reasons.append(f"{name}: {first}")
        if not self.answers:
            self.skipped = "; ".join(reasons)
        elif not inputs or count > 1:
            self._draw_others(count, seed, inputs, input_shapes)
        self.notes = reasons if self.answers else []

    def _oracles(
        self, source: Source, reasons: list[str]
    ) -> Iterator[tuple[str, Runtime | Reference]]:
        try:
            yield (
                "ONNX Runtime",
                Runtime(self._model, threads=self._threads, custom_lib=self._custom_lib),
            )
        except Error:
            raise  # the library of operators, which is the caller's
        except Exception as error:  # each runtime has error types of its own
            reasons.append(f"ONNX Runtime: {first_line(error)}")
        if self._proto.ByteSize() + _mapped_bytes(self._model) > _REFERENCE_BYTES:
            reasons.append(f"{Reference.name}: the model is too large for it")
            return
        try:
            yield Reference.name, Reference(source)
        except Exception as error:
            reasons.append(f"{Reference.name}: {first_line(error)}")

    def _search(
        self,
        oracle: Runtime | Reference,
        seed: int,
        inputs: dict[str, Any] | None,
        shapes: InputShapes | None,
    ) -> Answer | str:
        """The first drawn inputs that the model accepts; else what it says to the likeliest."""
        first = ""
        empty: Answer | None = None
        deadline = time.perf_counter() + _SEARCH_S
        for feed in candidates(self._proto, seed, inputs, shapes):
            began = time.perf_counter()
            try:
                outputs = oracle.run(feed)
                # A few drawn truths are alike by chance.
                for _ in range(_RANDOM_RUNS if self._is_random else 0):
                    outputs = mark_random(outputs, oracle.run(feed))
            except Exception as error:
                first = first or first_line(error)
                if time.perf_counter() > deadline:
                    break
                continue
            answer = Answer(oracle, feed, outputs, time.perf_counter() - began)
            if _says_something(answer):
                return answer
            # Nothing to compare: drawn sizes of 0, say. Other inputs may give more.
            empty = empty or answer
            if time.perf_counter() > deadline:
                break
        return empty or first or "no inputs to try"

    @property
    def _is_random(self) -> bool:
        return has_random_op(self._proto)

    def _draw_others(
        self,
        count: int,
        seed: int,
        inputs: dict[str, Any] | None,
        shapes: InputShapes | None,
    ) -> None:
        first = self.answers[0]
        if inputs and set(first.feed) <= set(inputs):
            return
        fixed = {n: list(v.shape) for n, v in first.feed.items() if isinstance(v, np.ndarray)}
        fixed = {n: s for n, s in fixed.items() if not inputs or n not in inputs}
        for k in range(1, count):
            # The last inputs are of another batch size, to find one that was baked in.
            if k == count - 1:
                wider = larger_batch(self._proto, first, inputs, shapes, seed + k)
                if wider is not None:
                    self.answers.append(wider)
                    continue
            found = self._search(first.oracle, seed + k, inputs, fixed)
            if isinstance(found, Answer) and (_says_something(found) or not _says_something(first)):
                self.answers.append(found)

    def compare(self, target: Source) -> list[Report]:
        """A report for each set of inputs, up to the first that finds `target` wrong."""
        reports: list[Report] = []
        oracle: Runtime | Reference | None = None
        for k, answer in enumerate(self.answers):
            report = Report(False, answer.oracle.name, notes=list(self.notes))
            report.inputs = [describe(n, v) for n, v in answer.feed.items()]
            began = time.perf_counter()
            try:
                if oracle is None:
                    oracle = self._like(answer.oracle, target)
                found = dict(zip(oracle.outputs, oracle.run(answer.feed), strict=True))
            except Exception as error:  # whatever it raises is a finding
                report.error = f"{type(error).__name__}: {first_line(error)}"
            else:
                self._judge(report, k, found)
            report.seconds = time.perf_counter() - began + answer.seconds
            reports.append(report)
            if not report.ok:
                break
        return reports

    def _like(self, oracle: Runtime | Reference, target: Source) -> Runtime | Reference:
        if isinstance(oracle, Reference):
            return Reference(target)
        return Runtime(_open(target), threads=self._threads, custom_lib=self._custom_lib)

    def _judge(self, report: Report, k: int, found: dict[str, Any]) -> None:
        names = [o.name for o in self._proto.graph.output]
        missing = [n for n in names if n not in found]
        if missing:
            report.error = f"the output {missing[0]!r} is gone"
            return
        answer = self.answers[k]
        for i, name in enumerate(names):
            c = compare(name, answer.outputs[i], found[name], answer.oracle.check_dtype)
            if not c.ok and self._is_noise(k, i, c):
                c.ok, c.reason = True, None
                report.notes.append(
                    f"{name}: differs by its last digits, as it does where the inputs' last digits do"
                )
            report.outputs.append(c)
        report.ok = all(c.ok for c in report.outputs)
        random = [c.name for c in report.outputs if c.random]
        if random:
            report.notes.append(f"{', '.join(random)}: random; compared by shape only")

    def _is_noise(self, k: int, i: int, c: Comparison) -> bool:
        """Whether an output, small by the standard of all numbers, moves no more than the original's
        own does when each input moves by one unit in its last place: what cancels leaves so many
        digits and no more. A difference that is large in itself never passes."""
        if not c.near or c.mse is None:
            return False
        if k not in self._noise:
            self._noise[k] = self._measure_noise(self.answers[k])
        noise = self._noise[k]
        return i < len(noise) and c.mse <= _NOISE**2 * noise[i]

    def _measure_noise(self, answer: Answer) -> list[float]:
        """The mean square by which each output moves with its inputs' last digits."""
        most = [0.0] * len(answer.outputs)
        for towards in (np.inf, -np.inf):
            moved = {n: _nudged(v, towards) for n, v in answer.feed.items()}
            try:
                outputs = answer.oracle.run(moved)
            except Exception:  # a domain's edge: no measure, no excuse
                return [0.0] * len(most)
            for i, (x, y) in enumerate(zip(answer.outputs, outputs, strict=True)):
                if isinstance(x, np.ndarray) and is_float(x.dtype) and x.shape == np.shape(y):
                    with np.errstate(all="ignore"):
                        gap = (x.astype(np.float64) - y.astype(np.float64)) ** 2
                    gap = gap[np.isfinite(gap)]
                    most[i] = max(most[i], float(gap.mean()) if gap.size else 0.0)
        return most


def _nudged(value: Any, towards: float) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.nextafter(value, value.dtype.type(towards))
    return value


def _open(source: Source) -> Skeleton | bytes:
    if isinstance(source.data, bytes) and source.readable is None:
        return source.data
    return Skeleton(source.name, source.readable)


def _readable(source: Source, model: Skeleton | bytes) -> Source:
    """What the protobuf reader is given: nothing large where that can be left out."""
    if isinstance(model, Skeleton) and isinstance(model.model, bytes):
        return Source(model.model)
    return source


def _mapped_bytes(model: Skeleton | bytes) -> int:
    return sum(p.nbytes for p in model.places) if isinstance(model, Skeleton) else 0


def _says_something(answer: Answer) -> bool:
    """Whether any output has elements."""
    return any(not isinstance(x, np.ndarray) or x.size for x in answer.outputs)
