"""Whether two ONNX files compute the same, by running both: one session each, on several inputs."""

import functools
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from onnx2nn.check.compare import Bar, Comparison, Random, agree, compare
from onnx2nn.check.freed import check_freed
from onnx2nn.check.given import check_shapes, given_inputs
from onnx2nn.check.inputs import Unfit, candidates
from onnx2nn.check.oracle import OracleDied, Reference, Runtime
from onnx2nn.check.pieces import Graph
from onnx2nn.check.result import Answer, Report, Values, describe
from onnx2nn.check.search import Refused, is_empty, larger_batch, mark_random, search
from onnx2nn.check.stretches import Allowance, compare_stretches, rounding
from onnx2nn.check.values import has_random_op
from onnx2nn.core import Axes, InputShapes
from onnx2nn.errors import Error, first_line
from onnx2nn.source import Source

__all__ = ["Original"]

# The reference evaluator computes in Python: larger models would take it hours.
_REFERENCE_BYTES = 256 * 2**20
# How often a model with random operators is asked again: a few drawn truths are alike by chance.
_RANDOM_RUNS = 4
# Where one run takes longer, it is not repeated for other inputs, but for one of another batch size.
_SLOW_S = 0.25


class Original:
    """A model's answers to several inputs, and others compared with them.

    inputs: values by name or a file of them, for one comparison; without them `count` sets are drawn
    from `seed` on. input_shapes: dims by name, for what is drawn. custom_lib: a library of operators
    to register. nodes: whether to compare the values on the way too; "auto" does so where outputs
    differ, or numbers are drawn at random. atol, rtol: a bar of one's own for the outputs.
    allowance: what rounding is allowed; see `onnx2nn.check.stretches`. keep_values: keep inputs and both
    sides' outputs in the reports.
    `skipped` says why there is no answer, `died` that the oracle's process ended over it.
    """

    def __init__(
        self,
        source: Source,
        count: int = 3,
        *,
        inputs: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        input_shapes: InputShapes | None = None,
        seed: int = 0,
        threads: int = 0,
        custom_lib: str | None = None,
        nodes: Literal["always", "auto", "never"] = "auto",
        atol: float | None = None,
        rtol: float | None = None,
        allowance: Allowance = rounding,
        keep_values: bool = False,
    ) -> None:
        self._bar = None if atol is None and rtol is None else Bar(atol or 0.0, rtol or 0.0)
        self._nodes = nodes
        self._threads, self._custom_lib = threads, custom_lib
        self._allowance = allowance
        self._keep_values = keep_values
        self._graph = Graph(source, threads, custom_lib)
        self._proto = self._graph.proto
        self.skipped: str | None = None
        self.died = False
        self.answers: list[Answer] = []
        self.notes: list[str] = []
        try:
            given = given_inputs(self._proto, inputs)
            check_shapes(self._proto, input_shapes)
            self._ask(count, given, input_shapes, seed)
        except Unfit as unfit:
            self.skipped = str(unfit)

    def _ask(
        self,
        count: int,
        inputs: dict[str, Any],
        input_shapes: InputShapes | None,
        seed: int,
    ) -> None:
        reasons: list[str] = []
        for name, oracle in self._oracles(reasons):
            try:
                self.answers = [self._search(oracle, seed, inputs, input_shapes)]
                break
            except (OracleDied, Refused) as error:
                reasons.append(f"{name}: {error}")
                self.died |= isinstance(error, OracleDied)
                if isinstance(error, OracleDied) and error.timed_out:
                    break  # another would take longer still
        if not self.answers:
            self.skipped = "; ".join(reasons)
            return
        self.died = False
        self.notes = reasons
        if is_empty(self.answers[0].outputs) and self.answers[0].outputs:
            self.skipped = (
                "every output is empty for the inputs that the model takes: give others (--input)"
            )
        elif not inputs or count > 1:
            self._draw_others(count, seed, inputs, input_shapes)

    def _oracles(self, reasons: list[str]) -> Iterator[tuple[str, Runtime | Reference]]:
        try:
            oracle = self._graph.open()
        except Error:
            raise  # the library of operators, which is the caller's
        except OracleDied as died:
            reasons.append(f"ONNX Runtime: {died}")
            self.died = True
            if died.timed_out:
                return
        except Exception as error:  # each runtime has error types of its own
            reasons.append(f"ONNX Runtime: {first_line(error)}")
        else:
            yield "ONNX Runtime", oracle
        if self._proto.ByteSize() + self._graph.weight_bytes > _REFERENCE_BYTES:
            reasons.append(f"{Reference.name}: the model is too large for it")
            return
        try:
            self._graph = Graph(self._graph.source, whole=True)
            yield Reference.name, self._graph.open()
        except Exception as error:
            reasons.append(f"{Reference.name}: {first_line(error)}")

    def _search(
        self,
        oracle: Runtime | Reference,
        seed: int,
        inputs: dict[str, Any],
        shapes: InputShapes | None,
    ) -> Answer:
        feeds = candidates(self._proto, seed, inputs, shapes)
        return search(lambda feed: self._answer(oracle, feed), feeds)

    def _answer(self, oracle: Runtime | Reference, feed: dict[str, Any]) -> Answer:
        """The outputs for one set of inputs, and what random operators drew for them."""
        began = time.perf_counter()
        outputs = oracle.run(feed)
        took = time.perf_counter() - began
        if not has_random_op(self._proto):
            return Answer(oracle, feed, outputs, took)
        names = self._graph.outputs
        random = [o for o in self._graph.drawn if o not in names]
        piece = self._graph.piece([*names, *random], {})
        values = piece(feed)
        drawn: dict[str, Any] = {}
        for _ in range(_RANDOM_RUNS):
            other = piece(feed)
            drawn.update({n: values[n] for n in random if not agree(values[n], other[n])})
        outputs = [values[n] for n in names]
        # What is drawn inside nested graphs, or given out as it is, is random all the same.
        piece = self._graph.piece(names, drawn)
        for _ in range(_RANDOM_RUNS):
            outputs = mark_random(outputs, piece({**feed, **drawn}).values())
        return Answer(oracle, feed, outputs, took, drawn)

    def _draw_others(
        self,
        count: int,
        seed: int,
        inputs: dict[str, Any],
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
            if first.seconds > _SLOW_S:
                continue
            try:
                self.answers.append(self._search(first.oracle, seed + k, inputs, fixed))
            except OracleDied:
                return  # the first answer stands
            except Refused:
                continue

    def compare(
        self, target: Source, dynamic_batch: bool = False, dynamic: Axes | None = None
    ) -> list[Report]:
        """A report for each set of inputs, up to the first that finds `target` wrong.

        dynamic_batch, dynamic: dims that were opened in it, to be tried in another size.
        `ok` is None where the oracle ran out of time or memory over the target.
        """
        reports: list[Report] = []
        try:
            graph = Graph(target, self._threads, self._custom_lib, whole=self._by_reference)
        except Error as error:
            return [Report(False, self.answers[0].oracle.name, error=first_line(error))]
        oracle: Runtime | Reference | None = None
        for answer in self.answers:
            report = Report(False, answer.oracle.name, notes=list(self.notes))
            report.inputs = [describe(n, v) for n, v in answer.feed.items()]
            began = time.perf_counter()
            # What the target no longer draws it has to compute as it was.
            drawn = {n: v for n, v in answer.drawn.items() if n in graph.drawn}
            try:
                if drawn:
                    found = graph.run(graph.outputs, drawn, answer.feed)
                else:
                    oracle = oracle or graph.open()
                    found = dict(zip(oracle.outputs, oracle.run(answer.feed), strict=True))
                self._judge(report, graph, answer, found, drawn)
                if report.ok and oracle is not None and (dynamic_batch or dynamic):
                    check_freed(
                        self._proto,
                        answer,
                        functools.partial(_outputs, oracle, self._graph.outputs),
                        report,
                        dynamic_batch,
                        dynamic,
                        self._bar,
                    )
            except OracleDied as died:
                report.ok = None if died.timed_out else False
                report.skipped = str(died) if died.timed_out else None
                report.died = True
                report.error = None if died.timed_out else str(died)
            except Exception as error:  # whatever it raises is a finding
                report.error = first_line(error)
            report.seconds = time.perf_counter() - began + answer.seconds
            reports.append(report)
            if not report.ok:
                break
        return reports

    @property
    def _by_reference(self) -> bool:
        return isinstance(self.answers[0].oracle, Reference)

    def _judge(
        self,
        report: Report,
        graph: Graph,
        answer: Answer,
        found: dict[str, Any],
        drawn: dict[str, Any],
    ) -> None:
        names = self._graph.outputs
        missing = [n for n in names if n not in found]
        if missing:
            report.error = f"the output {missing[0]!r} is gone"
            return
        report.outputs = self._compare_outputs(answer, found)
        report.ok = all(c.ok for c in report.outputs)
        if self._keep_values:
            got = [found[n] for n in names]
            report.values = Values(answer.oracle.name, answer.feed, names, answer.outputs, got)
        if not report.ok:
            self._ask_again(report, answer, found)
        if self._wants_stretches(report):
            self._compare_stretches(report, graph, answer, drawn)
        random = [c.name for c in report.outputs if c.random]
        if random:
            report.notes.append(f"{', '.join(random)}: random; compared by shape only")

    def _wants_stretches(self, report: Report) -> bool:
        if self._nodes != "auto":
            return self._nodes == "always"
        return not report.ok or has_random_op(self._proto)

    def _compare_outputs(self, answer: Answer, found: dict[str, Any]) -> list[Comparison]:
        return [
            compare(n, w, found[n], answer.oracle.check_dtype, bar=self._bar)
            for n, w in zip(self._graph.outputs, answer.outputs, strict=True)
        ]

    def _ask_again(self, report: Report, answer: Answer, found: dict[str, Any]) -> None:
        """Leave out what the oracle itself answers differently to the same inputs."""
        piece = self._graph.piece(self._graph.outputs, answer.drawn)
        outputs = answer.outputs
        for _ in range(2):
            outputs = mark_random(outputs, piece({**answer.feed, **answer.drawn}).values())
        new = [
            n
            for n, x, y in zip(self._graph.outputs, answer.outputs, outputs, strict=True)
            if isinstance(y, Random) and not isinstance(x, Random)
        ]
        if new:
            answer.outputs = outputs
            report.outputs = self._compare_outputs(answer, found)
            report.ok = all(c.ok for c in report.outputs)
            report.notes.append(
                f"{', '.join(new)}: {answer.oracle.name} itself answers differently twice"
            )

    def _compare_stretches(
        self, report: Report, graph: Graph, answer: Answer, drawn: dict[str, Any]
    ) -> None:
        """Judge by what lies between the values that both graphs name, on equal inputs."""
        try:
            found = compare_stretches(self._graph, graph, answer.feed, drawn, self._allowance)
        except OracleDied:
            raise
        except Exception as error:  # the outputs' own verdict stands
            report.notes.append(
                f"the graphs cannot be compared piece by piece: {first_line(error)}"
            )
            return
        report.nodes = found.compared
        if found.wrong:
            first = found.wrong[0]
            if report.ok:  # what is drawn at random hides it from the outputs
                report.error = f"{first.name}, on the way to the outputs: {first.reason}"
            report.ok = False
            report.notes.append(f"{first.name} is the first value that differs: {first.reason}")
        elif (
            not report.ok
            and self._bar is None
            and {c.name for c in found.compared} >= {c.name for c in report.outputs if not c.ok}
        ):
            wrong = [c for c in report.outputs if not c.ok]
            most = max(c.max_rel or 0.0 for c in wrong)
            for c in wrong:
                c.ok, c.rounding, c.reason = True, True, None
            report.ok = True
            report.notes.append(
                f"{', '.join(c.name for c in wrong)}: differ by rounding that grows, {most:.0e} relative; "
                f"each of {len(found.compared)} stretches agrees on equal inputs"
            )
        if found.unstable:
            names = ", ".join(found.unstable[:3]) + (", ..." if len(found.unstable) > 3 else "")
            report.notes.append(f"{names}: {answer.oracle.name} itself answers differently twice")


def _outputs(oracle: Runtime | Reference, names: list[str], feed: dict[str, Any]) -> list[Any]:
    found = dict(zip(oracle.outputs, oracle.run(feed), strict=True))
    return [found[n] for n in names]
