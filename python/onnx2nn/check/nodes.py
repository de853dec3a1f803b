"""Node by node: each operator on the oracle's own inputs.

A traced conversion calls a hook with every value that the model names. The hook compares the value with
the oracle's and gives the oracle's back, so that whatever comes next starts from equal inputs: an error
is seen where it is made and nowhere else, and rounding does not grow from node to node.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx2nn.check.compare import Comparison, Random, compare, flatten, is_float
from onnx2nn.check.result import Answer, Difference, Report, describe
from onnx2nn.check.values import NodeValues, NoValues
from onnx2nn.check.written import call_module, emitted_line, run_module, seeded
from onnx2nn.core import run_native
from onnx2nn.errors import described
from onnx2nn.source import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from onnx2nn.check.bounds import Tape

__all__ = [
    "Hook",
    "Stop",
    "Traced",
    "check_nodes",
    "compare_node",
    "difference",
    "given_back",
    "node_values",
    "take_weights",
    "trace",
]

# What the intermediates of one run may hold together.
_BATCH_BYTES = 512 * 2**20
# A difference of so many units in the last place of an element, or of the root mean square of all, needs
# no analysis: no fault is as small. Sums of many products round by more, as a random walk goes.
_LAST_PLACES = 2.0
# ONNX Runtime computes on half precision in float32 and may keep what it would have rounded.
_KEPT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


class Stop(Exception):  # noqa: N818
    """Raised by a hook that has seen all that it is about."""


@dataclass
class Hook:
    """What emitted code calls for each value: measures it, or compares it and gives the oracle's back.

    want: the right values by name, None to measure. give: values to go on with instead of those.
    left: the names that are still to come; it `stops` after the last of them.
    """

    tape: "Tape"
    check_dtype: bool = True
    want: dict[str, Any] | None = None
    give: dict[str, Any] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    stops: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    found: dict[str, Comparison] = field(default_factory=dict)

    def __call__(self, name: str, value: Any) -> Any:
        """Called as `x = _trace("name of x", x)`."""
        if self.want is None:
            self.sizes[name] = _size(value)
            return value
        if name not in self.want:
            return value
        want = self.want[name]
        if name not in self.found:
            self.found[name] = compare_node(name, want, value, self.tape, self.check_dtype)
        self.left.discard(name)
        if self.stops and not self.left:
            raise Stop
        bare = want.value if isinstance(want, Random) else want
        return given_back(self.give.get(name, bare), value, self.tape)


def _size(value: Any) -> int:
    import torch

    tensors = value if isinstance(value, (list, tuple)) else [value]
    return sum(t.numel() * t.element_size() if isinstance(t, torch.Tensor) else 8 for t in tensors)


def given_back(want: Any, value: Any, tape: "Tape") -> Any:
    """The oracle's value in the form that emitted code has there: tensor, list or number."""
    import torch

    from onnx2nn.tensors import to_torch

    if isinstance(value, torch.Tensor):
        new = to_torch(want)
        if not isinstance(new, torch.Tensor) or new.shape != value.shape:
            return new
        new = new.to(value.dtype) if new.dtype != value.dtype else new
        kept = _KEPT.get(str(new.dtype).removeprefix("torch."))
        tape.given(new, 0.0 if kept is None else new.abs().to(torch.float64) * kept)
        return new
    if isinstance(want, np.ndarray):
        # A shape that is kept as Python integers, or a number.
        plain = want.tolist()
        if isinstance(value, (list, tuple)):
            return type(value)(plain if isinstance(plain, list) else [plain])
        if isinstance(value, (bool, int, float)):
            return type(value)(plain if not isinstance(plain, list) else plain[0])
        return value
    if isinstance(value, (list, tuple)) and isinstance(want, list) and len(want) == len(value):
        return type(value)(given_back(w, v, tape) for w, v in zip(want, value, strict=True))
    return value


def compare_node(
    name: str,
    want: Any,
    value: Any,
    tape: "Tape",
    check_dtype: bool = True,
) -> Comparison:
    """Compare what a node made of the oracle's inputs, within what its arithmetic may round.

    want: the oracle's value; one that is Random is compared by shape. value: as emitted code has it.
    """
    from onnx2nn.tensors import to_numpy

    bare = want.value if isinstance(want, Random) else want
    dtype = bare.dtype.name if isinstance(bare, np.ndarray) else None
    got = to_numpy(value, dtype)
    if isinstance(bare, np.ndarray) and not hasattr(value, "shape"):
        # Python integers have no rank of their own.
        got = np.asarray(got)
        if got.size == bare.size:
            got = got.reshape(bare.shape).astype(bare.dtype)
    if isinstance(want, np.ndarray) and isinstance(got, np.ndarray) and _is_same(want, got):
        return Comparison(name, True, want.dtype.name, want.shape, 0.0, 0.0, 0.0, allowed=0.0)
    c = compare(name, want, got, check_dtype)
    if isinstance(want, Random) or (c.mse is None and c.reason is not None):
        return c  # another shape, type or place of NaN
    wants, gots = list(flatten(bare)), list(flatten(got))
    tensors = [*_tensors(value)]
    c.ok, c.reason, c.allowed = True, None, 0.0
    for (path, w), (_, g) in zip(wants, gots, strict=True):
        if path.endswith((".len", ".key", ".none")) or w.dtype.kind in "OUST":
            continue
        tensor = tensors.pop(0) if tensors else None
        _hold(c, w, g, tensor, tape)
        if not c.ok:
            break
    return c


def _is_same(x: Any, y: Any) -> bool:
    """Whether two arrays hold the same numbers; most that a quantiser makes do."""
    return x.dtype == y.dtype and x.shape == y.shape and bool((x == y).all())


def _tensors(value: Any) -> Iterable[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)


def _hold(c: Comparison, want: Any, got: Any, tensor: Any, tape: "Tape") -> None:
    """Hold one array to what rounding may explain; fills in `c`."""
    import torch

    if want.size == 0:
        return
    kind = np.complex128 if want.dtype.kind == "c" else np.float64
    x, y = want.astype(kind), got.astype(kind)
    finite = np.isfinite(x) & np.isfinite(y)
    with np.errstate(all="ignore"):
        gap = np.where(finite, np.abs(x - y), 0.0)
    worst = float(gap.max())
    if worst == 0.0:
        return
    size = np.where(finite, np.abs(x), 0.0)
    if is_float(want.dtype):
        unit = _LAST_PLACES * _epsilon(want.dtype.name)
        terms = tape.terms(tensor) if tensor is not None else 1.0
        mean = float((size**2).mean()) ** 0.5
        if worst <= 2 * unit * mean * terms**0.5 or bool((gap <= unit * size).all()):
            return
    bound: Any = tape.bound(tensor) if tensor is not None else 0.0
    if isinstance(bound, torch.Tensor):
        bound = bound.numpy()
    with np.errstate(all="ignore"):
        ratio = np.where(gap > 0, gap / np.maximum(bound, 1e-300), 0.0)
    c.allowed = max(c.allowed or 0.0, float(ratio.max()))
    if c.allowed > 1.0:
        at = np.unravel_index(int(ratio.argmax()), ratio.shape)
        place = "[" + ", ".join(map(str, (int(k) for k in at))) + "]"
        limit = float(np.broadcast_to(bound, ratio.shape)[at])
        wrong = int((ratio > 1.0).sum())
        c.ok = False
        c.reason = (
            f"{wrong} of {want.size} elements differ by more than rounding explains; at {place} "
            f"{got[at]:.7g} instead of {want[at]:.7g}, where {limit:.2g} may be rounding"
        )


def _epsilon(dtype: str) -> float:
    known = {"float64": 2.0**-52, "complex128": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
    if dtype.startswith(("float8", "float6", "float4")):
        return 0.0
    return known.get(dtype, 2.0**-23)


@dataclass
class Traced:
    """A traced conversion with its hook: what is compared, in the model's order."""

    net: "nn.Module"
    proto: Any
    hook: Hook
    tape: "Tape"
    names: list[str] = field(default_factory=list)
    failure: str | None = None
    # What it gives for the oracle's inputs by itself, drawing from a generator of seed 0.
    outputs: list[Any] = field(default_factory=list)

    def run(self, feed: dict[str, Any]) -> str | None:
        """Run it on these inputs; what it raised, as text."""
        from onnx2nn.check.bounds import unfused

        try:
            with unfused(self.net), self.tape:
                call_module(self.net, feed)
        except Stop:
            return None
        except Exception as error:  # whatever emitted code raises is a finding
            return f"{described(error)}{emitted_line(error)}"
        return None


def trace(
    source: Source,
    proto: Any,
    answer: Answer,
    options: dict[str, Any],
    state: dict[str, Any] | None,
    report: Report,
) -> Traced:
    """The model's traced conversion, after a first run that measures its values.

    state: weights of a written file, to be used instead of the model's where they fit.
    """
    from onnx2nn.check.bounds import Tape
    from onnx2nn.loading import build

    tape = Tape()
    hook = Hook(tape, answer.oracle.check_dtype)
    conversion = run_native(source, {**options, "trace": True})
    # Of one set of names each means the same, and the model's own weights need not be read.
    same = state is not None and all(w["key"] in state for w in conversion.weights)
    net = build(conversion, {"_trace": hook}, state if same else None)
    if state is not None:
        take_weights(net, state, report)
    traced = Traced(net, proto, hook, tape)
    try:
        with seeded():
            traced.outputs = run_module(net, answer.feed, proto)
    except Exception as error:  # whatever emitted code raises is a finding
        traced.failure = f"{described(error)}{emitted_line(error)}"
    traced.names = [name for _, _, name in node_values(proto) if name in hook.sizes]
    return traced


def take_weights(net: "nn.Module", state: dict[str, Any], report: Report | None = None) -> None:
    """Use a written file's weights in a module of the model, where both have them.

    Where the file has other names too, its numbers ("linear_2.weight") may be others than here: what it calls
    differently is then no weight that was changed.
    """
    own = net.state_dict()
    taken = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    missing = len(own) - len(taken)
    if missing > 0:
        ours = {_digest(w) for w in own.values()}
        changed = {k for k, v in state.items() if _digest(v) not in ours}
        taken = {k: v for k, v in taken.items() if k in changed}
        if report is not None and changed:
            report.notes.append(
                f"node by node, {missing} of {len(own)} weights are the model's own: "
                f"the file has none of that name and shape"
            )
    net.load_state_dict(taken, strict=False, assign=True)


def _digest(weight: "torch.Tensor") -> tuple[str, bytes]:
    """What tells a weight from others: its type and its bytes."""
    import torch

    data = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return f"{weight.dtype} {weight.shape}", hashlib.sha256(data).digest()


def node_values(proto: Any) -> list[tuple[int, Any, str]]:
    """(place, node, output name) of every value that a node of the main graph makes, in order."""
    return [
        (k, node, name) for k, node in enumerate(proto.graph.node) for name in node.output if name
    ]


def check_nodes(traced: Traced, values: NodeValues, answer: Answer, report: Report) -> bool:
    """Compare every traced value on the oracle's inputs; the first that is wrong is reported.

    Fills in `report.nodes`, and `report.first_difference` where one differs. Returns whether all agree.
    """
    hook, proto = traced.hook, traced.proto
    needs = values.needs(traced.names)
    found: dict[str, Comparison] = {}
    shown: dict[str, tuple[str, str, list[int] | None]] = {}
    for batch in _batches(traced.names, hook.sizes):
        inside = set(batch)
        before = sorted({n for name in batch for n in needs[name]} - inside)
        want = values.right([*before, *batch])
        shown.update({n: describe(n, v) for n, v in want.items()})
        hook.want, hook.found, hook.left, hook.stops = want, {}, set(batch), True
        for name in before:
            hook.found[name] = Comparison(name, True)
        traced.run(answer.feed)
        found.update({n: c for n, c in hook.found.items() if n in inside})
        if any(not c.ok for n, c in hook.found.items() if n in inside):
            break
    hook.want, hook.stops = None, False
    report.nodes = [found[n] for n in traced.names if n in found]
    wrong = next((c for c in report.nodes if not c.ok), None)
    if wrong is not None:
        report.first_difference = difference(values, answer, shown, wrong.name)
        report.first_difference.comparison = wrong
        return False
    if traced.failure is not None:
        reached = [k for k, _, name in node_values(proto) if name in hook.sizes]
        k = min(max(reached, default=-1) + 1, len(proto.graph.node) - 1)
        if k >= 0:
            made = next((o for o in proto.graph.node[k].output if o), "")
            report.first_difference = difference(values, answer, shown, made)
            report.first_difference.error = traced.failure
        return False
    return True


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


def difference(
    values: NodeValues,
    answer: Answer,
    shown: dict[str, tuple[str, str, list[int] | None]],
    output: str,
) -> Difference:
    """The node that makes `output`, with the types and shapes of its inputs."""
    from onnx2nn.tensors import DTYPE_NAMES

    index, node = next((k, n) for k, n, name in node_values(values.proto) if name == output)
    index = values.places[index] if values.places is not None else index
    known = dict(shown)
    known.update({n: describe(n, v) for n, v in answer.feed.items()})
    for t in values.proto.graph.initializer:
        known[t.name] = (t.name, DTYPE_NAMES.get(t.data_type, "?"), list(t.dims))
    missing = [n for n in node.input if n and n not in known]
    if missing:
        try:
            known.update({n: describe(n, v) for n, v in values.right(missing).items()})
        except NoValues:  # the node is named all the same
            known.update({n: (n, "?", None) for n in missing})
    inputs = [known.get(n, (n, "?", None)) for n in node.input if n]
    return Difference(node.name, node.op_type, output, inputs, None, index)
