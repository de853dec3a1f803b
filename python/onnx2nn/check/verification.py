"""`verify`: a conversion compared with ONNX Runtime, whole and node by node."""

import importlib.util
import inspect
import itertools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnx2nn.api import Error, InputShapes, Model, Source, as_source, run_native
from onnx2nn.check import process
from onnx2nn.check.compare import Comparison, Random, agree, compare
from onnx2nn.check.inputs import (
    candidates,
    fixed_shapes,
    named_inputs,
    read_inputs,
    unfit,
    wanted_inputs,
)
from onnx2nn.check.oracle import (
    OracleDied,
    Reference,
    Runtime,
    first_line,
    model_folder,
    multiplies_bytes,
    read_proto,
    with_outputs,
)
from onnx2nn.check.rounding import rounded_sigmoids

if TYPE_CHECKING:
    from torch import nn

_RANDOM_OPS = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
# An oracle quicker than this is always run twice, so that whatever is random in it is noticed.
_QUICK_S = 1.0
# What the intermediates of one node-by-node run may hold together.
_BATCH_BYTES = 512 * 2**20
# A second batch size, to find one that was baked in; left out where one run is slow.
_BATCH = 3
_SLOW_S = 5.0
# When to stop looking for inputs that the model accepts.
_SEARCH_S = 30.0
_counter = itertools.count(1)


@dataclass
class Difference:
    """The first node whose output is wrong: what it is, and what it was given."""

    node: str
    op_type: str
    output: str
    inputs: list[tuple[str, str, list[int] | None]]
    comparison: Comparison | None
    index: int = 0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "node": self.node,
            "op_type": self.op_type,
            "output": self.output,
            "inputs": [{"name": n, "dtype": d, "shape": s} for n, d, s in self.inputs],
            "index": self.index,
            "error": self.error,
            "comparison": self.comparison.to_dict() if self.comparison else None,
        }


@dataclass(repr=False)
class Report:
    """What `verify` found. `ok` is True where every output was compared and is right, None where
    nothing was compared.

    `skipped` says why nothing was compared; `error` what the converted module raised;
    `nodes` holds a Comparison for each intermediate value where they were asked for.
    """

    ok: bool | None
    oracle: str | None = None
    inputs: list[tuple[str, str, list[int] | None]] = field(default_factory=list)
    outputs: list[Comparison] = field(default_factory=list)
    nodes: list[Comparison] = field(default_factory=list)
    first_difference: Difference | None = None
    skipped: str | None = None
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.ok)

    def __repr__(self) -> str:
        if self.skipped is not None:
            return f"<Report: NOT CHECKED, {self.skipped}>"
        wrong = [c.name for c in self.outputs if not c.ok]
        what = f"{len(self.outputs)} outputs" if self.ok else ", ".join(wrong) or self.error
        return f"<Report: {'right' if self.ok else 'WRONG'}, {what}, against {self.oracle}>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        first = self.first_difference
        return {
            "ok": self.ok,
            "oracle": self.oracle,
            "skipped": self.skipped,
            "error": self.error,
            "inputs": [{"name": n, "dtype": d, "shape": s} for n, d, s in self.inputs],
            "outputs": [c.to_dict() for c in self.outputs],
            "first_difference": first.to_dict() if first else None,
            "nodes": [c.to_dict() for c in self.nodes],
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Answer:
    """What the oracle says: for which inputs, and the outputs by name."""

    oracle: Runtime | Reference
    feed: dict[str, Any]
    outputs: list[Any]
    seconds: float


@process.within_limits
def verify(
    model: Model,
    target: "str | os.PathLike[str] | nn.Module | None" = None,
    *,
    inputs: dict[str, Any] | str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    seed: int = 0,
    per_node: bool | None = None,
    nodes: Literal["always", "auto", "never"] = "auto",
    atol: float | None = None,
    rtol: float | None = None,
    threads: int = 0,
    oracle_timeout: float | None = None,
    oracle_memory: int | None = None,
    progress: Callable[[str], None] | None = None,
    simplify: bool = True,
    class_name: str | None = None,
    allow_unknown: bool = False,
    fuse: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
) -> Report:
    """Compare a conversion with ONNX Runtime on random inputs, or on those given.

    model: a path, bytes or an onnx.ModelProto.
    target: what to compare: a written `x.py` (weights beside it), an `x.pth` (source beside it),
        another `.onnx`, an nn.Module; None converts the model in memory.
    inputs: values by name, or an .npz file of them; what is missing is drawn with `seed`.
    input_shapes: dims by input name, for what is drawn.
    per_node: compare every intermediate value too; None does so only on a failure.
    nodes: whether to check each node on the oracle's own inputs.
    atol, rtol: a bar of one's own, in place of the one below.
    threads: how many ONNX Runtime may use; 0 leaves it to it.
    oracle_timeout, oracle_memory: seconds and bytes that it may take.
    The other options are those of `convert`.

    An output is right when its mean squared error is below 1e-7 (scaled by its mean square where
    that is above 1) and below 1e-4 of its variance; integers, booleans and strings must be equal.
    What differs between two runs of ONNX Runtime itself is compared by shape only. Where ONNX Runtime
    cannot run the model, ONNX's reference evaluator is asked. Raises Error for a model that cannot
    be read or converted, or a target that cannot be loaded.
    """
    start = time.perf_counter()
    tell = progress or (lambda stage: None)
    source = as_source(model)
    process.start()
    options: dict[str, Any] = {
        "simplify": simplify,
        "class_name": class_name,
        "allow_unknown": allow_unknown,
        "fuse": fuse,
        "data_roots": data_roots,
        "drop_undefined_outputs": drop_undefined_outputs,
    }
    tell("read")
    proto = read_proto(source)
    if isinstance(inputs, (str, os.PathLike)):
        inputs = read_inputs(os.fspath(inputs))
    inputs = named_inputs(proto, inputs)
    report = Report(ok=None, skipped=unfit(proto, inputs))
    if report.skipped is not None:
        return report
    shapes = fixed_shapes(input_shapes)
    tell("ask for the right answer")
    answer = find_answer(source, proto, inputs, shapes, seed, threads, report)
    if answer is None:
        report.seconds = time.perf_counter() - start
        return report
    tell("check")
    other = _is_onnx(target)
    net = None if other else _as_module(source, target, options)

    def compare_with(answer: Answer) -> None:
        try:
            if net is None:
                assert isinstance(target, (str, os.PathLike))
                got = _run_onnx(as_source(target), answer, threads, proto)
            else:
                got = run_module(net, answer.feed, proto)
        except OracleDied as error:
            report.ok = None
            report.skipped = f"{target}: {error}"
        except Exception as error:  # whatever emitted code raises is a finding
            report.ok = False
            report.error = f"{type(error).__name__}: {first_line(error)}{_emitted_line(error)}"
        else:
            _compare_outputs(report, answer, got, proto)

    compare_with(answer)
    larger = larger_batch(proto, answer, inputs, shapes, seed) if report.ok else None
    if larger is not None:
        first, first_inputs = report.outputs, report.inputs
        report.inputs = [describe(n, v) for n, v in larger.feed.items()]
        compare_with(larger)
        if report.ok:
            report.outputs, report.inputs = first, first_inputs
            report.notes.append(f"right with a batch of {_BATCH} too")
        else:
            answer = larger
            report.notes.append(f"right with a batch of 1, wrong with one of {_BATCH}")
    if per_node or (per_node is None and nodes != "never" and report.ok is False):
        tell("check node by node")
        if other:
            assert isinstance(target, (str, os.PathLike))
            _compare_onnx_nodes(report, source, proto, answer, as_source(target), threads)
        else:
            state = net.state_dict() if net is not None and target is not None else None
            _compare_nodes(report, source, proto, answer, options, state, threads)
        if not report.ok:
            _forgive_rounding(report, proto)
    report.seconds = time.perf_counter() - start
    return report


def find_answer(
    source: Source,
    proto: Any,
    given: dict[str, Any] | None,
    shapes: dict[str, list[int]] | None,
    seed: int,
    threads: int,
    report: Report,
) -> Answer | None:
    """Inputs that the model accepts, with the right outputs; None, and a reason, without any."""
    reasons: list[str] = []
    folder = model_folder(source)
    makers: list[Callable[[], Runtime | Reference]] = [
        lambda: Runtime(source.data, folder, threads, exact=multiplies_bytes(proto)),
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
            if isinstance(error, OracleDied) and error.timed_out:
                break  # another would take longer still
            continue
        first = ""
        timed_out = False
        deadline = time.perf_counter() + _SEARCH_S
        for feed in candidates(proto, seed, given, shapes):
            try:
                began = time.perf_counter()
                outputs = oracle.run(feed)
                took = time.perf_counter() - began
                if took < _QUICK_S or has_random_op(proto):
                    outputs = mark_random(outputs, oracle.run(feed))
            except OracleDied as error:
                first, timed_out = str(error), error.timed_out
                break
            except Exception as error:
                first = first or first_line(error)
                if time.perf_counter() > deadline:
                    break
                continue
            report.oracle = oracle.name
            report.inputs = [describe(n, v) for n, v in feed.items()]
            report.notes += reasons
            return Answer(oracle, feed, outputs, took)
        reasons.append(f"{name}: {first or 'no inputs to try'}")
        if timed_out:
            break
    report.skipped = "; ".join(reasons)
    return None


def larger_batch(
    proto: Any,
    answer: Answer,
    given: dict[str, Any] | None,
    shapes: dict[str, list[int]] | None,
    seed: int,
) -> Answer | None:
    """The answer for a larger batch, where the model leaves that free and the oracle takes it."""
    random = any(isinstance(y, Random) for y in answer.outputs) or has_random_op(proto)
    if given or shapes or random or answer.seconds > _SLOW_S:
        return None
    free = {
        w.name: [_BATCH, *answer.feed[w.name].shape[1:]]
        for w in wanted_inputs(proto)
        if w.dims and isinstance(w.dims[0], str) and isinstance(answer.feed[w.name], np.ndarray)
    }
    if not free or any(answer.feed[name].shape[0] != 1 for name in free):
        return None
    fixed = {n: list(v.shape) for n, v in answer.feed.items() if isinstance(v, np.ndarray)}
    feed = next(candidates(proto, seed, None, {**fixed, **free}), None)
    if feed is None:
        return None
    try:
        return Answer(answer.oracle, feed, answer.oracle.run(feed), answer.seconds)
    except Exception:  # the first dim was no batch, or some other input would have to grow too
        return None


def has_random_op(proto: Any) -> bool:
    """Whether an operator of the model, its nested graphs or functions draws random numbers."""

    def in_graph(graph: Any) -> bool:
        for node in graph.node:
            if node.op_type in _RANDOM_OPS:
                return True
            for a in node.attribute:
                if any(in_graph(g) for g in [*([a.g] if a.HasField("g") else []), *a.graphs]):
                    return True
        return False

    return in_graph(proto.graph) or any(in_graph(f) for f in proto.functions)


def mark_random(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    """The first run's outputs, marked where the second gave others."""
    return [
        x if isinstance(x, Random) or agree(x, y) else Random(x)
        for x, y in zip(first, second, strict=True)
    ]


def describe(name: str, value: Any) -> tuple[str, str, list[int] | None]:
    """(name, type, shape) of a value, for people."""
    if isinstance(value, Random):
        value = value.value
    if isinstance(value, np.ndarray):
        return name, "string" if value.dtype.kind in "OUST" else value.dtype.name, list(value.shape)
    if isinstance(value, (list, tuple)):
        return name, f"sequence of {len(value)}", None
    return name, type(value).__name__, None


def _is_onnx(target: Any) -> bool:
    return isinstance(target, (str, os.PathLike)) and Path(target).suffix.lower() == ".onnx"


def _as_module(source: Source, target: Any, options: dict[str, Any]) -> "nn.Module":
    from torch import nn

    from onnx2nn.loading import load

    if target is None:
        return load(source, **options)
    if isinstance(target, nn.Module):
        return target.eval()
    return load_written(target)


def load_written(target: str | os.PathLike[str]) -> "nn.Module":
    """The module in the files of a conversion, executed in a namespace of its own.

    target: `x.py`, with x.safetensors (or its index) or x.pth beside it; or `x.pth`.
    Raises Error where a file is missing or cannot be loaded.
    """
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix in (".pt", ".pt2"):
        raise Error(f"{target}: {suffix} files cannot be checked; give the .py or .pth", usage=True)
    if suffix not in (".py", ".pth", ".safetensors"):
        raise Error(f"{target}: not a .py, .pth or .onnx file", usage=True)
    code = path.with_suffix(".py")
    if not code.is_file():
        raise Error(f"{code}: does not exist; it holds the source", unreadable=True)
    from onnx2nn.loading import keep_while_alive

    name = f"onnx2nn_written_{next(_counter)}"
    module = _import_file(name, code)
    try:
        # Without an argument it takes the weights that it was written with.
        net = module.load() if suffix == ".py" else _load_weights(module, path)
    except Exception as error:
        raise Error(
            f"{code}: cannot be loaded: {type(error).__name__}: {first_line(error)}"
        ) from error
    from torch import nn

    if not isinstance(net, nn.Module):
        raise Error(f"{code}: its load() gave a {type(net).__name__}, not a module")
    if type(net).__module__ == name:
        keep_while_alive(name, str(code), type(net))
    else:
        del sys.modules[name]
    return net.eval()


def _import_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # What was just written must be read, whatever a cache of the same second says.
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise Error(
            f"{path}: cannot be executed: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        sys.dont_write_bytecode = keep
    return module


def _load_weights(module: ModuleType, weights: Path) -> Any:
    """A written module with the weights of another file than its own."""
    default = inspect.signature(module.load).parameters["weights"].default
    if Path(default).suffix == weights.suffix:
        return module.load(weights)
    import torch
    from torch import nn

    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, nn.Module) and c.__module__ == module.__name__
    ]
    with torch.device("meta"):
        net = classes[-1]()
    if weights.suffix == ".pth":
        state = torch.load(weights, weights_only=True, mmap=True)
    else:
        from safetensors.torch import load_file

        state = load_file(weights)
    net.load_state_dict(state, assign=True)
    return net


def run_module(net: "nn.Module", feed: dict[str, Any], proto: Any) -> list[Any]:
    """A converted module's outputs, as numpy, for inputs by ONNX name."""
    import torch

    from onnx2nn.tensors import as_outputs, to_numpy, to_torch

    with torch.no_grad():
        result = net(*[to_torch(v) for v in feed.values()])
    outputs = as_outputs(result, len(proto.graph.output))
    return [
        to_numpy(y, _declared(o))
        for y, o in itertools.zip_longest(outputs, proto.graph.output[: len(outputs)])
    ]


def _declared(value_info: Any) -> str | None:
    from onnx2nn.check.inputs import _tensor_type
    from onnx2nn.tensors import DTYPE_NAMES

    tensor = _tensor_type(value_info.type) if value_info is not None else None
    return DTYPE_NAMES.get(tensor.elem_type) if tensor is not None else None


def _run_onnx(target: Source, answer: Answer, threads: int, proto: Any) -> list[Any]:
    """Another ONNX file's outputs, by the same oracle, in the model's order."""
    if isinstance(answer.oracle, Runtime):
        oracle: Runtime | Reference = Runtime(
            target.data, model_folder(target), threads, exact=multiplies_bytes(proto)
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


def _compare_outputs(report: Report, answer: Answer, got: list[Any], proto: Any) -> None:
    names = [o.name for o in proto.graph.output]
    if len(got) != len(names):
        report.error = f"{len(got)} outputs instead of {len(names)}"
        return
    rounded = _rounded_outputs(proto)
    report.outputs = [
        compare(n, w, g, answer.oracle.check_dtype, rounded.get(n))
        for n, w, g in zip(names, answer.outputs, got, strict=True)
    ]
    report.ok = all(c.ok for c in report.outputs)
    random = [c.name for c in report.outputs if c.random]
    if random:
        report.notes.append(
            f"{', '.join(random)}: random, it differs between two runs of {answer.oracle.name}; "
            f"compared by shape only"
        )


def _forgive_rounding(report: Report, proto: Any) -> None:
    """Take outputs for right that differ only because the oracle's Sigmoid rounds."""
    rounded = rounded_sigmoids(proto, report.outputs, report.nodes)
    if not rounded or report.error is not None:
        return
    for c in rounded:
        c.ok, c.reason = True, None
    report.ok, report.first_difference = True, None
    names = ", ".join(c.name for c in rounded)
    worst = max(c.max_abs or 0.0 for c in rounded)
    report.notes.append(
        f"{names}: what goes into the Sigmoid is right; its value is so small that the rounding of "
        f"{report.oracle}, {worst:.1e}, is much of it"
    )


def _emitted_line(error: BaseException) -> str:
    """Where in emitted source an exception came from."""
    prefixes = ("onnx2nn_loaded_", "onnx2nn_written_")
    # A copy, made at once: modules that are collected meanwhile leave sys.modules.
    modules = sys.modules.copy()
    files = {m.__file__ for name, m in modules.items() if name.startswith(prefixes)}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return f" (line {frame.lineno}: {frame.line})"
    return ""


# Node by node.


def _node_values(proto: Any) -> list[tuple[int, Any, str]]:
    """(place, node, output name) of every value that a node of the main graph makes, in order."""
    return [
        (k, node, name) for k, node in enumerate(proto.graph.node) for name in node.output if name
    ]


class _Trace:
    """What emitted code with `trace` calls for each value: measures it, or compares it."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.want: dict[str, Any] | None = None
        self.found: dict[str, Comparison] = {}
        self.check_dtype = True

    def __call__(self, name: str, value: Any) -> None:
        import torch

        from onnx2nn.tensors import to_numpy

        if self.want is None:
            tensors = value if isinstance(value, (list, tuple)) else [value]
            self.sizes[name] = sum(
                t.numel() * t.element_size() if isinstance(t, torch.Tensor) else 8 for t in tensors
            )
            return
        want = self.want.get(name)
        if name not in self.want or name in self.found:
            return
        bare = want.value if isinstance(want, Random) else want
        dtype = bare.dtype.name if isinstance(bare, np.ndarray) else None
        got = to_numpy(value, dtype)
        if not isinstance(value, torch.Tensor) and isinstance(bare, np.ndarray):
            # A shape that is kept as Python integers has no rank of its own.
            got = np.asarray(got)
            if got.size == bare.size:
                got = got.reshape(bare.shape).astype(bare.dtype)
        self.found[name] = compare(name, want, got, self.check_dtype)


def _compare_nodes(
    report: Report,
    source: Source,
    proto: Any,
    answer: Answer,
    options: dict[str, Any],
    state: dict[str, Any] | None,
    threads: int,
) -> None:
    """Compare every traced value with the oracle's, and name the first that differs."""
    from onnx2nn.loading import build

    trace = _Trace()
    trace.check_dtype = answer.oracle.check_dtype
    conversion = run_native(source, {**options, "trace": True})
    net = build(conversion, {"_trace": trace})
    if state is not None:
        _take_weights(report, net, state)
    failure = _try_run(net, answer, proto)
    order = [(k, node, name) for k, node, name in _node_values(proto) if name in trace.sizes]
    found: dict[str, Comparison] = {}
    values: dict[str, tuple[str, str, list[int] | None]] = {}
    for batch in _batches([name for _, _, name in order], trace.sizes):
        want = _intermediates(source, proto, answer, batch, threads)
        values.update({n: describe(n, v) for n, v in want.items()})
        trace.want, trace.found = want, {}
        _try_run(net, answer, proto)
        found.update(trace.found)
        if any(not c.ok for c in trace.found.values()):
            break
    report.nodes = [found[name] for _, _, name in order if name in found]
    for k, node, name in order:
        if name in found and not found[name].ok:
            report.first_difference = _difference(
                source, proto, answer, values, k, node, name, threads
            )
            report.first_difference.comparison = found[name]
            return
    if failure is not None:
        reached = [k for k, _, name in order if name in trace.sizes]
        k = min(max(reached, default=-1) + 1, len(proto.graph.node) - 1)
        if k >= 0:
            node = proto.graph.node[k]
            report.first_difference = _difference(
                source, proto, answer, values, k, node, node.output[0], threads
            )
            report.first_difference.error = failure
    elif not report.ok and state is not None:
        report.notes.append(
            "node by node, this version's conversion with the file's weights is right: "
            "the written source differs from it"
        )


def _take_weights(report: Report, net: "nn.Module", state: dict[str, Any]) -> None:
    """Use a written file's weights in the traced module, where both have them."""
    own = net.state_dict()
    same = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    net.load_state_dict(same, strict=False)
    if len(same) < len(own):
        report.notes.append(
            f"node by node, {len(own) - len(same)} of {len(own)} weights are the model's own: "
            f"the file has none of that name and shape"
        )


def _try_run(net: "nn.Module", answer: Answer, proto: Any) -> str | None:
    try:
        run_module(net, answer.feed, proto)
    except Exception as error:  # whatever emitted code raises is a finding
        return f"{type(error).__name__}: {first_line(error)}{_emitted_line(error)}"
    return None


def _batches(names: list[str], sizes: dict[str, int]) -> Iterable[list[str]]:
    batch: list[str] = []
    total = 0
    for name in names:
        if batch and total + sizes[name] > _BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += sizes[name]
    if batch:
        yield batch


def _intermediates(
    source: Source, proto: Any, answer: Answer, names: list[str], threads: int
) -> dict[str, Any]:
    """The right values of these names, from one run of the oracle; random ones are marked."""
    if isinstance(answer.oracle, Reference):
        everything = answer.oracle.run_all(answer.feed)
        return {n: everything[n] for n in names if n in everything}
    oracle = Runtime(
        with_outputs(proto, names), model_folder(source), threads, exact=multiplies_bytes(proto)
    )
    values = oracle.run(answer.feed)
    if has_random_op(proto):
        values = mark_random(values, oracle.run(answer.feed))
    return dict(zip(oracle.outputs, values, strict=True))


def _difference(
    source: Source,
    proto: Any,
    answer: Answer,
    values: dict[str, tuple[str, str, list[int] | None]],
    index: int,
    node: Any,
    output: str,
    threads: int,
) -> Difference:
    """The node at fault, with the types and shapes of its inputs."""
    known = dict(values)
    known.update({n: describe(n, v) for n, v in answer.feed.items()})
    from onnx2nn.tensors import DTYPE_NAMES

    for t in proto.graph.initializer:
        known[t.name] = (t.name, DTYPE_NAMES.get(t.data_type, "?"), list(t.dims))
    missing = [n for n in node.input if n and n not in known]
    if missing:
        try:
            found = _intermediates(source, proto, answer, missing, threads)
            known.update({n: describe(n, v) for n, v in found.items()})
        except Exception:  # the node is named all the same
            known.update({n: (n, "?", None) for n in missing})
    inputs = [known.get(n, (n, "?", None)) for n in node.input if n]
    return Difference(node.name, node.op_type, output, inputs, None, index)


def _compare_onnx_nodes(
    report: Report, source: Source, proto: Any, answer: Answer, target: Source, threads: int
) -> None:
    """Compare the values that two ONNX files have under one name."""
    if not isinstance(answer.oracle, Runtime):
        return
    other = read_proto(target)
    theirs = {name for _, _, name in _node_values(other)}
    order = [(k, node, name) for k, node, name in _node_values(proto) if name in theirs]
    names = [name for _, _, name in order]
    if not names:
        return
    want = _intermediates(source, proto, answer, names, threads)
    got = _intermediates(target, other, answer, names, threads)
    report.nodes = [compare(n, want[n], got[n]) for n in names if n in want and n in got]
    values = {n: describe(n, v) for n, v in want.items()}
    for (k, node, name), c in zip(order, report.nodes, strict=True):
        if not c.ok:
            report.first_difference = _difference(
                source, proto, answer, values, k, node, name, threads
            )
            report.first_difference.comparison = c
            return
