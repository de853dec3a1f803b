"""`verify`: a conversion compared with ONNX Runtime, whole and node by node."""

import functools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnx2nn.check import process
from onnx2nn.check.compare import Bar, Comparison, compare, identical
from onnx2nn.check.drawn import Drawing, Drawn, check_on_drawn
from onnx2nn.check.freed import check_freed
from onnx2nn.check.given import check_shapes, given_inputs
from onnx2nn.check.inputs import Unfit, candidates
from onnx2nn.check.nested import laid_out
from onnx2nn.check.nodes import Traced, check_nodes, difference, take_weights, trace
from onnx2nn.check.oracle import (
    OracleDied,
    Reference,
    Runtime,
    kernels_for,
    model_folder,
    oracle_model,
    read_proto,
)
from onnx2nn.check.pieces import Graph
from onnx2nn.check.readable import readable
from onnx2nn.check.result import Answer, Difference, Report, Values, describe
from onnx2nn.check.roles import free_zeros
from onnx2nn.check.search import BATCH, Refused, is_empty, larger_batch, mark_random, search
from onnx2nn.check.stretches import compare_stretches
from onnx2nn.check.values import NodeValues, NoValues, has_random_op
from onnx2nn.check.written import emitted_line, is_program, load_written, run_module, seeded
from onnx2nn.core import Axes, InputShapes, run_native
from onnx2nn.errors import Error, described, first_line
from onnx2nn.log import Steps, step
from onnx2nn.source import Model, Source, as_source

if TYPE_CHECKING:
    from torch import nn

# An oracle quicker than this is always run twice, so that whatever is random in it is noticed.
_QUICK_S = 1.0
# Where the runs take longer and agree, nodes are not looked at one by one.
_PATIENCE_S = 10.0


@process.within_limits
def verify(
    model: Model,
    target: "str | os.PathLike[str] | nn.Module | None" = None,
    *,
    inputs: dict[str, Any] | str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    seed: int = 0,
    per_node: bool = False,
    nodes: Literal["always", "auto", "never"] = "auto",
    atol: float | None = None,
    rtol: float | None = None,
    threads: int = 0,
    oracle_timeout: float | None = None,
    oracle_memory: int | None = None,
    progress: Callable[[str], None] | None = None,
    dynamic_batch: bool = False,
    dynamic: Axes | None = None,
    simplify: bool = True,
    class_name: str | None = None,
    allow_unknown: bool = False,
    fuse: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
    keep_values: bool = False,
) -> Report:
    """Compare a conversion with ONNX Runtime on random inputs, or on those given.

    model: a path, bytes or an onnx.ModelProto.
    target: what to compare: a written `x.py` (weights beside it), an `x.pth` (source beside it), an
        `x.pt` (TorchScript), `x.pt2` (torch.export), another `.onnx`, an nn.Module; None converts the
        model in memory.
    inputs: values by name, or an .npz file of them; what is missing is drawn with `seed`.
    input_shapes: dims by input name, for what is drawn.
    nodes: run each node on the oracle's own inputs too: "auto" does so unless the runs take long and
        the outputs agree.
    per_node: keep the comparison of every intermediate value in the report.
    atol, rtol: a bar of one's own for the outputs, in place of the one below.
    threads: how many ONNX Runtime may use; 0 leaves it to it.
    oracle_timeout, oracle_memory: seconds and bytes that it may take.
    keep_values: keep the inputs and both sides' outputs in the report.
    The other options are those of `convert`.

    An output is right when its mean squared error is below 1e-7 (scaled by its mean square where
    that is above 1) and below 1e-4 of its variance; integers, booleans and strings must be equal.
    Where rounding has grown past that, it is right if each node is right on the oracle's own inputs,
    within what that node's arithmetic may round. A node that is wrong on them makes the report wrong,
    whatever the outputs say. What differs between two runs of ONNX Runtime itself is compared by shape
    only. Where ONNX Runtime cannot run the model, ONNX's reference evaluator is asked. Raises Error
    for a model that cannot be read or converted, or a target that cannot be loaded.
    """
    start = time.perf_counter()
    steps = Steps()

    def tell(stage: str) -> None:
        steps(stage)
        if progress is not None:
            progress(stage)

    source = as_source(model)
    process.start()
    options: dict[str, Any] = {
        "simplify": simplify,
        "dynamic_batch": dynamic_batch,
        "dynamic": dynamic,
        "class_name": class_name,
        "allow_unknown": allow_unknown,
        "fuse": fuse,
        "data_roots": data_roots,
        "drop_undefined_outputs": drop_undefined_outputs,
    }
    bar = None if atol is None and rtol is None else Bar(atol or 0.0, rtol or 0.0)
    tell("read")
    source = readable(source, data_roots, drop_undefined_outputs)
    proto = read_proto(source)
    report = Report(ok=None)
    report.kinds = {o: n.op_type for n in proto.graph.node for o in n.output}
    try:
        given = given_inputs(proto, inputs)
        check_shapes(proto, input_shapes)
        tell("ask for the right answer")
        answer = find_answer(source, proto, given, input_shapes, seed, threads, report)
    except Unfit as unfit:
        report.skipped = str(unfit)
        answer = None
    if answer is None:
        steps.end()
        report.seconds = time.perf_counter() - start
        return report
    tell("check")
    began = time.perf_counter() - answer.seconds
    other = _is_onnx(target)
    net = None if other else _as_module(source, target, options)

    def compare_with(answer: Answer) -> None:
        began = time.perf_counter()
        try:
            if net is None:
                assert isinstance(target, (str, os.PathLike))
                got = _run_onnx(as_source(target), answer, threads, proto)
            else:
                got = run_module(net, answer.feed, proto)
            seconds = time.perf_counter() - began
        except OracleDied as error:
            report.ok = None
            report.skipped, report.died = f"{target}: {error}", True
        except Exception as error:  # whatever emitted code raises is a finding
            report.ok = False
            report.error = f"{described(error)}{emitted_line(error)}"
        else:
            _compare_outputs(report, answer, got, proto, bar)
            if keep_values and report.values is None:
                names = [o.name for o in proto.graph.output]
                report.values = Values(
                    answer.oracle.name, answer.feed, names, answer.outputs, got, net, seconds
                )
            if net is not None and not report.ok and bar is None:
                from onnx2nn.check.double import note_double

                report.notes += note_double(
                    net, answer.feed, proto, answer.outputs, got, report.outputs
                )

    compare_with(answer)
    larger = larger_batch(proto, answer, given, input_shapes, seed) if report.ok else None
    if larger is not None:
        first, first_inputs = report.outputs, report.inputs
        report.inputs = [describe(n, v) for n, v in larger.feed.items()]
        compare_with(larger)
        if report.ok:
            report.outputs, report.inputs = first, first_inputs
            report.notes.append(f"right with a batch of {BATCH} too")
        else:
            answer = larger
            report.notes.append(f"right with a batch of 1, wrong with one of {BATCH}")
    if report.ok and net is not None and (dynamic_batch or dynamic):
        run = functools.partial(run_module, net, proto=proto)
        check_freed(proto, answer, run, report, dynamic_batch, dynamic, bar)
    if _wants_nodes(nodes, per_node, report, time.perf_counter() - began):
        tell("check node by node")
        values = NodeValues(source, proto, answer, threads)
        try:
            if net is not None:
                _check_by_nodes(report, values, answer, options, target, net, bar)
            else:
                assert isinstance(target, (str, os.PathLike))
                _check_by_stretches(report, values, answer, as_source(target), bar)
        except NoValues as error:
            report.notes.append(f"not checked node by node: {error}")
    shown = any(c.shape is not None and 0 not in c.shape for c in report.nodes)
    if report.ok and answer.outputs and is_empty(answer.outputs) and not shown:
        report.ok = None
        report.skipped = (
            "every output is empty for the inputs that the model takes: give others (--input)"
        )
    steps.end()
    report.seconds = time.perf_counter() - start
    return report


def find_answer(
    source: Source,
    proto: Any,
    given: dict[str, Any] | None,
    shapes: InputShapes | None,
    seed: int,
    threads: int,
    report: Report,
) -> Answer | None:
    """Inputs that the model accepts, with the right outputs; None, and a reason, without any.

    Outputs that are all empty show nothing: inputs that give more are looked for first.
    """
    reasons: list[str] = []
    folder = model_folder(source)
    data = proto.SerializeToString() if free_zeros(proto) else oracle_model(source)
    makers: list[Callable[[], Runtime | Reference]] = [
        lambda: Runtime(data, folder, threads, kernels=kernels_for(proto)),
        lambda: Reference(source, threads),
    ]
    for make in makers:
        name = "ONNX Runtime" if make is makers[0] else Reference.name
        try:
            oracle = make()
        except ImportError:
            reasons.append(f"{name} is not installed")
            continue
        except Exception as error:  # each runtime has error types of its own
            reasons.append(f"{name}: {first_line(error)}")
            report.died |= isinstance(error, OracleDied)
            if isinstance(error, OracleDied) and error.timed_out:
                break  # another would take longer still
            continue

        def ask(feed: dict[str, Any], oracle: Runtime | Reference = oracle) -> Answer:
            began = time.perf_counter()
            with step(f"run {oracle.name}"):
                outputs = oracle.run(feed)
            took = time.perf_counter() - began
            if took < _QUICK_S or has_random_op(proto):
                outputs = mark_random(outputs, oracle.run(feed))
            return Answer(oracle, feed, outputs, took)

        try:
            found = search(ask, candidates(proto, seed, given, shapes))
        except (OracleDied, Refused) as error:
            reasons.append(f"{name}: {error}")
            report.died |= isinstance(error, OracleDied)
            if isinstance(error, OracleDied) and error.timed_out:
                break
            continue
        report.oracle = oracle.name
        report.inputs = [describe(n, v) for n, v in found.feed.items()]
        report.notes += reasons
        report.died = False
        return found
    report.skipped = "; ".join(reasons)
    return None


def _is_onnx(target: Any) -> bool:
    return isinstance(target, (str, os.PathLike)) and Path(target).suffix.lower() == ".onnx"


def _is_program(target: Any) -> bool:
    """Whether it is no source that is edited: it is held to the operators' answers as ours is."""
    is_file = isinstance(target, (str, os.PathLike))
    return is_file and Path(target).suffix.lower() in (".pt", ".pt2")


def _as_module(source: Source, target: Any, options: dict[str, Any]) -> "nn.Module":
    with step("import torch"):
        from torch import nn

        from onnx2nn.loading import load

    if target is None:
        return load(source, **options)
    if isinstance(target, nn.Module):
        return target.eval()
    return load_written(target)


def _run_onnx(target: Source, answer: Answer, threads: int, proto: Any) -> list[Any]:
    """Another ONNX file's outputs, by the same oracle, in the model's order."""
    if isinstance(answer.oracle, Runtime):
        oracle: Runtime | Reference = Runtime(
            oracle_model(target), model_folder(target), threads, kernels=kernels_for(proto)
        )
    else:
        oracle = Reference(target)
    found = dict(zip(oracle.outputs, oracle.run(answer.feed), strict=True))
    return [found[o.name] for o in proto.graph.output if o.name in found]


def _rounded_outputs(proto: Any) -> dict[str, str]:
    """Outputs that a model in half precision gives out in full, no more exact for it; the type."""
    halves = {10: "float16", 16: "bfloat16"}
    kinds = {halves[t.data_type] for t in proto.graph.initializer if t.data_type in halves}
    if len(kinds) != 1:
        return {}
    casts = {n.output[0] for n in proto.graph.node if n.op_type == "Cast"}
    return dict.fromkeys((o.name for o in proto.graph.output if o.name in casts), kinds.pop())


def _compare_outputs(
    report: Report, answer: Answer, got: list[Any], proto: Any, bar: Bar | None
) -> None:
    names = [o.name for o in proto.graph.output]
    if len(got) != len(names):
        report.error = f"{len(got)} outputs instead of {len(names)}"
        return
    rounded = _rounded_outputs(proto)
    report.outputs = [
        compare(n, w, g, answer.oracle.check_dtype, rounded.get(n), bar)
        for n, w, g in zip(names, answer.outputs, got, strict=True)
    ]
    report.ok = all(c.ok for c in report.outputs)
    random = [c.name for c in report.outputs if c.random]
    if random:
        report.notes.append(
            f"{', '.join(random)}: random, it differs between two runs of {answer.oracle.name}; "
            f"compared by shape only"
        )


def _wants_nodes(nodes: str, per_node: bool, report: Report, seconds: float) -> bool:
    """Whether to look at each node; `seconds` is what the runs took."""
    if per_node or nodes == "always":
        return True
    return nodes == "auto" and (not report.ok or seconds < _PATIENCE_S)


def _check_by_nodes(
    report: Report,
    values: NodeValues,
    answer: Answer,
    options: dict[str, Any],
    target: Any,
    net: "nn.Module",
    bar: Bar | None,
) -> None:
    """Run each node on the oracle's own inputs: what they say is the verdict."""
    source = values.source
    state = net.state_dict() if target is not None else None
    views = _views(values, answer, options, state, report)
    agree = all(_agrees(view, answer, report) for view in views)
    view = views[0]
    if agree and len(views) > 1:
        inner = {c.name for c in view.nodes}
        report.nodes = [*view.nodes, *(c for c in views[1].nodes if c.name not in inner)]
    # A module of the caller's own may well compute by other steps: its outputs count, while they are right.
    held = target is not None and (not report.ok or isinstance(target, (str, os.PathLike)))
    ours = target is None or _is_program(target)
    ours = ours or (agree and held and _is_conversion(target, source, options))
    if agree and held and not ours:
        from onnx2nn.check.recognised import check_recognised
        from onnx2nn.loading import load

        converted = load(view.values.source, **view.options)
        take_weights(converted, net.state_dict())
        file = str(Path(target).with_suffix(".py")) if not hasattr(target, "forward") else None
        agree = check_recognised(
            net, converted, view.traced.names, view.drawn, view.values, answer, report, file
        )
    if not agree:
        report.ok = False
    elif report.error is None and not report.ok and bar is None:
        # The nodes were those of one flat function: the classes must compute just that.
        if not ours or _computes_as_flat(net, views[-1].traced, answer):
            _forgive(report)
        else:
            report.error = "the classes of the source compute otherwise than its operators do"


@dataclass
class _View:
    """The model as one graph to be looked at value by value, with its traced conversion.

    options: those of that conversion. nodes, drawn: what was compared, and drawn for it.
    """

    values: NodeValues
    options: dict[str, Any]
    traced: Traced
    nodes: list[Comparison] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)


def _views(
    values: NodeValues,
    answer: Answer,
    options: dict[str, Any],
    state: dict[str, Any] | None,
    report: Report,
) -> list[_View]:
    """The model with its nested graphs laid out, where it has any and that can be had, and as it is."""
    views: list[_View] = []
    why = None
    try:
        inner = laid_out(values, answer)
        if inner is not values:
            more = dict(options)
            if (folder := model_folder(inner.source)) is not None:
                more["data_roots"] = [*options["data_roots"], folder]
            traced = trace(inner.source, inner.proto, answer, more, state, report)
            why = traced.failure
            if why is None:
                inner.right(traced.names[-1:])
                views.append(_View(inner, more, traced))
    except (Error, NoValues) as error:
        why = first_line(error)
    if why is not None:
        report.notes.append(f"branches and bodies are checked as one with their node: {why}")
    traced = trace(values.source, values.proto, answer, options, state, report)
    return [*views, _View(values, options, traced)]


def _agrees(view: _View, answer: Answer, report: Report) -> bool:
    """Whether each operator is right on the oracle's own inputs, and on drawn ones."""
    agree = check_nodes(view.traced, view.values, answer, report)
    view.nodes = report.nodes
    if not agree:
        return False
    drawing = Drawing(view.values, view.traced.names, answer)
    view.drawn = list(drawing.all())
    return check_on_drawn(view.traced, view.drawn, drawing, view.values, answer, report)


def _computes_as_flat(net: "nn.Module", traced: Traced, answer: Answer) -> bool:
    """Whether a conversion's classes give what its statements give as one function."""
    with seeded():
        return identical(run_module(net, answer.feed, traced.proto), traced.outputs)


def _check_by_stretches(
    report: Report, values: NodeValues, answer: Answer, target: Source, bar: Bar | None
) -> None:
    """Run another ONNX file between the values that both name, on the oracle's own inputs."""
    whole = isinstance(answer.oracle, Reference)
    original = Graph(values.source, values.threads, whole=whole)
    other = Graph(target, values.threads, whole=whole)
    # What the other no longer draws it has to compute as it was.
    drawn = [n for n in original.drawn if n in other.makers]
    try:
        fixed = original.run(drawn, {}, answer.feed) if drawn else {}
        found = compare_stretches(original, other, answer.feed, fixed)
    except (Error, OracleDied):
        raise
    except Exception as error:  # each runtime has error types of its own
        raise NoValues(first_line(error)) from error
    report.nodes = found.compared
    if found.wrong:
        report.ok = False
        first = found.wrong[0]
        report.first_difference = difference(values, answer, {}, first.name)
        report.first_difference.comparison = first
    elif report.error is None and not report.ok and bar is None:
        _forgive(report)


def _is_conversion(target: Any, source: Source, options: dict[str, Any]) -> bool:
    """Whether a file holds the source that the model is converted to."""
    if not isinstance(target, (str, os.PathLike)):
        return False
    text = Path(target).with_suffix(".py").read_text(encoding="utf-8")
    options = {**options, "tp_plan": "\ndef tp_plan(" in text}
    return any(
        is_program(text, run_native(source, {**options, "flat": flat}).source)
        for flat in (False, True)
    )


def _forgive(report: Report) -> None:
    """Take outputs for right where each node is right on equal inputs.

    What they differ by is then rounding, or what follows from numbers that some node draws.
    """
    checked = {c.name for c in report.nodes}
    wrong = [c for c in report.outputs if not c.ok]
    if any(c.name not in checked or c.mse is None for c in wrong):
        return
    drawn = [c.name for c in report.nodes if c.random]
    worst = max(c.max_rel or 0.0 for c in wrong)
    for c in wrong:
        c.ok, c.rounding, c.reason = True, not drawn, None
    report.ok = True
    count = f"each of {len(report.nodes) - len(drawn):,} operators agrees on equal inputs"
    report.notes.append(
        f"{', '.join(drawn)}: drawn anew each time; {count}"
        if drawn
        else f"outputs differ by rounding that grows: {worst:.0e} relative; {count}"
    )


__all__ = [
    "Answer",
    "Difference",
    "Report",
    "describe",
    "find_answer",
    "has_random_op",
    "load_written",
    "verify",
]
