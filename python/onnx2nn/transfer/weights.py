"""`weights_for`: the weights of an ONNX model under the keys and in the layouts of another module."""

import contextlib
import copy
import inspect
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from onnx2nn.check import process
from onnx2nn.check.inputs import Unfit, candidates
from onnx2nn.check.oracle import read_proto
from onnx2nn.check.readable import readable
from onnx2nn.check.result import Report
from onnx2nn.check.verification import verify
from onnx2nn.core import InputShapes
from onnx2nn.errors import Error, first_line, printable
from onnx2nn.loading import load
from onnx2nn.log import LOGGER, step
from onnx2nn.source import Model, Source, as_source
from onnx2nn.tensors import to_torch
from onnx2nn.transfer.align import Alignment, align, constants_of
from onnx2nn.transfer.graph import graph_of
from onnx2nn.transfer.marks import Marks
from onnx2nn.transfer.values import View

__all__ = ["Transfer", "transfer", "weights_for"]


# How many weights, and how many differences, a message names.
_SHOWN, _SHOWN_DIFFERENCES = 10, 3


@dataclass
class Transfer:
    """Weights for a module, and how they were found.

    how: "names" or "structure". kept: keys whose values no output depends on; they stay the module's.
    partly: keys of which that holds for some values, such as the rows of a table of positions that are
    past the model's. folded: how many batch norms were found in the weights before them, and became the identity.
    """

    state: dict[str, Tensor]
    how: str
    report: Report
    kept: list[str] = field(default_factory=list)
    partly: list[str] = field(default_factory=list)
    folded: int = 0


def weights_for(
    module: nn.Module,
    model: Model,
    *,
    inputs: dict[str, Any] | str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    seed: int = 0,
    data_roots: Iterable[str | os.PathLike[str]] = (),
) -> dict[str, Tensor]:
    """The weights of an ONNX model as a state_dict for a module that computes the same.

    module: an nn.Module whose forward takes the model's inputs, by name or in their order; it stays as
        it is.
    model: a path, bytes or an onnx.ModelProto.
    inputs, input_shapes, seed: what to run both on; see `verify`.
    data_roots: folders below which external data may lie, besides the model's own.

    Where the model has a weight for each key, these are taken. Else both are brought to one form and
    laid side by side from their outputs: weights that were renamed, transposed, joined, split or
    reordered are found by what they do, in whichever steps and layouts (attention in one call or by
    hand, channels first or last). A batch norm that was folded into weights becomes the identity. What
    no output depends on stays as the module has it, with a warning. The module with the weights is
    compared with ONNX Runtime. Raises Error, and names what has no counterpart, where it does not come to the same.
    """
    found = transfer(
        module,
        model,
        inputs=inputs,
        input_shapes=input_shapes,
        seed=seed,
        data_roots=data_roots,
    )
    if found.kept:
        LOGGER.warning("no output depends on %s: left as the module has them", _listed(found.kept))
    if found.partly:
        LOGGER.warning(
            "no output depends on some values of %s: left as the module has them",
            _listed(found.partly),
        )
    if found.report.skipped is not None:
        LOGGER.warning("the weights are not checked: %s", found.report.skipped)
    return found.state


def transfer(
    module: nn.Module,
    model: Model,
    *,
    inputs: dict[str, Any] | str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    seed: int = 0,
    data_roots: Iterable[str | os.PathLike[str]] = (),
) -> Transfer:
    """`weights_for`, with how the weights were found."""
    source = as_source(model)
    process.start()
    net = load(source, data_roots=data_roots)
    source = readable(source, data_roots, False)
    proto = read_proto(source)
    from onnx2nn.check.given import given_inputs

    try:
        given = given_inputs(proto, inputs)
        feeds = list(candidates(proto, seed, given, input_shapes))
    except Unfit as unfit:
        raise Error(f"{source.name}: {unfit}") from unfit
    names = [i.name for i in proto.graph.input]
    user = _Positional(module, [n for n in names if not feeds or n in feeds[0]])

    def check(state: Mapping[str, Tensor]) -> Report:
        ready = copy.deepcopy(user)
        ready.module.load_state_dict(state, strict=True)
        options: dict[str, Any] = {"data_roots": data_roots, "nodes": "never", "seed": seed}
        return verify(source, ready, inputs=inputs, input_shapes=input_shapes, **options)

    own = module.state_dict()
    wanted = {k for k, v in own.items() if v.is_floating_point()}
    named = {
        k: v.detach().clone().to(own[k].dtype)
        for k, v in net.state_dict().items()
        if k in wanted and v.shape == own[k].shape
    }
    if named.keys() == wanted:
        report = check({**own, **named})
        if report.ok is not False:
            return Transfer({**own, **named}, "names", report)
    with step("lay the two side by side"):
        return _by_structure(user, net, source, feeds, check)


def _by_structure(
    user: "_Positional", net: nn.Module, source: Source, feeds: list[dict[str, Any]], check: Any
) -> Transfer:
    own = user.module.state_dict()
    args = _accepted(user, net, source, feeds)
    best: tuple[Marks, Alignment] | None = None
    reasons: list[str] = []
    for how, make in _FORMS.items():
        marks = Marks(user.module)
        marked = copy.deepcopy(user)
        marks.put(marked.module)
        try:
            form = make(marked, args)
        except Exception as error:  # each exporter has error types of its own
            reasons.append(f"{how}: {first_line(error)}")
            continue
        for patches in (False, True):
            marks = Marks(user.module)
            ours, theirs = (graph_of(m, list(args), patches) for m in (net, form))
            if len(theirs) != len(ours):
                reasons.append(f"{how}: {len(theirs)} outputs, where the model has {len(ours)}")
                break
            marks.use(constants_of(theirs))
            found = align(ours, theirs, marks)
            if best is None or len(marks.missing()) < len(best[0].missing()):
                best = marks, found
            if marks.missing() or marks.unequal:
                continue
            partly = marks.partly()
            state = {**own, **marks.found(), **partly}
            report = check(state)
            if report.ok is not False:
                kept = sorted(marks.keys.keys() - marks.found().keys() - partly.keys())
                folded = found.folded
                return Transfer(state, "structure", report, kept, sorted(partly), folded)
            best = marks, found
            reasons.append(f"{how}: with the weights that were found {_wrong(report)}")
    if best is None:
        raise Error("the module cannot be compared with the model: " + "; ".join(reasons))
    raise Error(_refusal(*best, reasons))


def _wrong(report: Report) -> str:
    if report.error is not None:
        return f"the module fails: {report.error}"
    first = next((c for c in report.outputs if not c.ok), None)
    return f"the module answers otherwise: {first.name}: {first.reason}" if first else "no answer"


def _refusal(marks: Marks, found: Alignment, reasons: list[str]) -> str:
    lines = []
    if marks.missing():
        lines.append(f"the model has no counterpart for {_listed(sorted(marks.missing()))}")
    if marks.unequal:
        lines.append(
            f"the module ties what is not equal in the model: {_listed(sorted(marks.unequal))}"
        )
    for a, b in found.differences[:_SHOWN_DIFFERENCES]:
        lines.append(f"    where the model has {_shown(a)}, the module has {_shown(b)}")
    return "\n".join(lines + reasons) or "the module computes something else than the model"


def _shown(v: View) -> str:
    what = "a constant" if v.is_constant else " and ".join(sorted({x.op for x in v.values}))
    return f"{what} of shape {list(v.shape)}"


def _listed(keys: list[str]) -> str:
    text = ", ".join(map(printable, keys[:_SHOWN]))
    return text if len(keys) <= _SHOWN else f"{text} and {len(keys) - _SHOWN} more"


class _Positional(nn.Module):
    """A module that takes its inputs in the model's order, and gives a tuple of tensors."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).eval()
        parameters = inspect.signature(module.forward).parameters
        self._names = names if set(names) <= set(parameters) else None

    def forward(self, *inputs: Any) -> tuple[Tensor, ...]:
        if self._names is not None:
            result = self.module(**dict(zip(self._names, inputs, strict=True)))
        else:
            result = self.module(*inputs)
        leaves = _pytree.tree_leaves(result)
        return tuple(x for x in leaves if isinstance(x, Tensor))


def _accepted(
    user: _Positional, net: nn.Module, source: Source, feeds: list[dict[str, Any]]
) -> tuple[Any, ...]:
    """Inputs that both take."""
    reason = "no inputs to try"
    for feed in feeds:
        args = tuple(map(to_torch, feed.values()))
        for who, module in (
            (source.name, net),
            ("the module does not take the model's inputs", user),
        ):
            try:
                with torch.no_grad():
                    module(*args)
            except Exception as error:  # whatever a module raises
                reason = f"{who}: {first_line(error)}"
                break
        else:
            return args
    raise Error(reason)


# ---- The module in the form of the model ----


def _exported(dynamo: bool, net: nn.Module, args: tuple[Any, ...]) -> nn.Module:
    """The module by way of an exporter of torch and our own conversion; weights stay as they are."""
    options: dict[str, Any] = {"dynamo": dynamo}
    if dynamo:
        options |= {"optimize": False, "verbose": False}
    else:
        options |= {
            "do_constant_folding": False,
            "training": torch.onnx.TrainingMode.PRESERVE,
            "opset_version": 17,
        }
    # Windows removes no file whose weights are mapped, and leaves it to whoever empties that folder.
    aside = tempfile.TemporaryDirectory(prefix="onnx2nn-", ignore_cleanup_errors=True)
    with aside as folder, _silent():
        path = os.path.join(folder, "module.onnx")
        torch.onnx.export(net, args, path, **options)
        return load(path)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the exporters tell whoever wants a file of them."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


_FORMS: dict[str, Callable[[nn.Module, tuple[Any, ...]], nn.Module]] = {
    "as it runs": lambda net, _args: net,
    "exported by way of TorchScript": lambda net, args: _exported(False, net, args),
    "exported by way of torch.export": lambda net, args: _exported(True, net, args),
}
