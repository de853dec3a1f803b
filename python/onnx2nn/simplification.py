"""Simplify and check: what is written computes what the model did, or nothing is written."""

import contextlib
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx2nn.api import simplify_unchecked
from onnx2nn.core import Axes, core_shapes, refused
from onnx2nn.errors import Error
from onnx2nn.log import step
from onnx2nn.source import Model, Source, as_source

if TYPE_CHECKING:
    from onnx2nn.check.verification import Report

__all__ = [
    "Outcome",
    "corresponding",
    "simplify",
    "simplify_checked",
    "size_of",
]

_SKIPPED_BN = "fuse-batch-norm"


@dataclass
class Outcome:
    """What `simplify_checked` did; `ok` is None where it was to be checked and could not be."""

    ok: bool | None
    result: dict[str, Any]
    reports: "list[Report]" = field(default_factory=list)
    skipped: str | None = None  # why nothing was checked
    died: bool = False  # whether the oracle's process ended over it
    # Where the answer is wrong: the rule at fault, and the node that it rewrote.
    culprit: tuple[str, str] | None = None


def corresponding(names: Iterable[str]) -> list[str]:
    """Our rules for these names, or for onnxsim's; those of onnxsim's to which none corresponds are
    left out: what they do is not done here."""
    from onnx2nn import _native

    return [rule for rule in map(_native.rule_of, names) if rule]


def size_of(text: str | None) -> int | None:
    """Bytes of a size such as 1KB, 100 or 1.5GB, in powers of 1024; None where there is none."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"a size is a str like 1KB, not {text!r}")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise Error(f"{text!r} is not a size like 1KB, 10MB or 1.5GB")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A new folder in a new hidden one beside `out`.

    The hidden one is locked while it is in use: what a killed run leaves is removed by the next.
    Whoever writes into a folder locks that one, and would wait for us were it the same.
    """
    parent = Path(os.path.realpath(out)).parent
    while True:
        folder = parent / f".onnx2nn-{secrets.token_hex(8)}"
        try:
            folder.mkdir()
        except OSError as error:
            raise Error(f"{out}: cannot write beside it: {error.strerror}") from error
        close = _locked(folder)
        if folder.exists():  # not taken for a leftover before it was locked
            break
        close()
    try:
        staged = folder / "staged"
        staged.mkdir()
        yield staged
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        close()


def _locked(folder: Path) -> Callable[[], None]:
    """Lock a folder; returns what unlocks it. On Windows folders have no lock."""
    if sys.platform == "win32":
        return lambda: None
    import fcntl

    lock = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):  # of file systems without locks
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lambda: os.close(lock)


def simplify_checked(
    model: Model,
    out: str | os.PathLike[str],
    *,
    check_n: int = 3,
    check: dict[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Outcome:
    """Simplify `model` to `out`, and compare the two in ONNX Runtime before `out` is there.

    check_n: how many random inputs to compare on; 0 checks nothing.
    check: `inputs`, `input_shapes`, `seed`, `nodes`, `atol`, ...; see `Original`.
    progress: called with "check" when the simplified model is there.
    options: of the simplification: `input_shapes`, `disabled`, `only`, `external_data`, ...
    """
    source = as_source(model)
    final = Path(out)
    if check_n < 1:
        result = simplify_unchecked(source, final, **options)
        return Outcome(True, result, skipped="not asked for")
    if options.get("input_shapes") is not None:
        core_shapes(options["input_shapes"])
    given = dict(check or {})
    limits = given.pop("oracle_timeout", None), given.pop("oracle_memory", None)
    shapes = {**(options.get("input_shapes") or {}), **(given.pop("input_shapes", None) or {})}
    from onnx2nn.check import process
    from onnx2nn.check.equivalence import Original
    from onnx2nn.check.readable import readable

    with process.allowing(*limits), _staging(final) as folder:
        aside = folder / final.name
        result = simplify_unchecked(source, final, staging=folder, **options)
        staged = result.pop("staged")
        if progress is not None:
            progress("check")
        original = Original(
            readable(
                source,
                options.get("data_roots") or (),
                options.get("drop_undefined_outputs", False),
            ),
            check_n,
            input_shapes=shapes or None,
            **given,
        )
        outcome = Outcome(None, result, skipped=original.skipped, died=original.died)
        if original.skipped is None:
            freed = {k: options[k] for k in ("dynamic_batch", "dynamic") if options.get(k)}
            with step(f"compare {final.name} with {source.name}"):
                outcome.reports = original.compare(Source(str(aside)), **freed)
            last = outcome.reports[-1]
            outcome.ok, outcome.skipped, outcome.died = last.ok, last.skipped, last.died
        if outcome.ok is False:

            def is_right(target: Path) -> bool:
                return original.compare(Source(str(target)), **freed)[-1].ok is not False

            outcome.culprit = _find_culprit(source, aside, result, options, is_right)
            return outcome
        process.let_go_of_files()
        result["files"], diagnostics = staged.publish()
        if not result["files"]:
            raise refused(Source(str(final)), diagnostics)
    return outcome


def _find_culprit(
    source: Source,
    aside: Path,
    result: dict[str, Any],
    options: dict[str, Any],
    is_right: Callable[[Path], bool],
) -> tuple[str, str] | None:
    """The first rewrite after which the answer is wrong: (rule, node).

    None where the answer is wrong without any rule, or still wrong without this one.
    """
    options = {**options, "force": True}  # `aside` is ours
    log = list(result.get("log", []))
    good, bad = 0, len(log)
    simplify_unchecked(source, aside, **{**options, "stop_after": 0})
    if not log or not is_right(aside):
        # Wrong without any rule.
        return ("upgrade-opset", "") if options.get("opset") is not None else None
    while bad - good > 1:
        middle = (good + bad) // 2
        simplify_unchecked(source, aside, **{**options, "stop_after": middle})
        if is_right(aside):
            good = middle
        else:
            bad = middle
    rule, node = map(str, log[bad - 1])
    disabled = [*(options.get("disabled") or []), rule]
    simplify_unchecked(source, aside, **{**options, "disabled": disabled})
    return (rule, node) if is_right(aside) else None


def simplify(
    model: Model,
    check_n: int = 3,
    perform_optimization: bool = True,
    skip_fuse_bn: bool = False,
    overwrite_input_shapes: dict[str, list[int]] | None = None,
    test_input_shapes: dict[str, list[int]] | list[str] | None = None,
    skipped_optimizers: list[str] | bool | None = None,
    skip_constant_folding: bool | dict[str, Any] | None = False,
    skip_shape_inference: bool = False,
    input_data: dict[str, Any] | str | None = None,
    dynamic_input_shape: bool = False,
    custom_lib: str | None = None,
    include_subgraph: bool = True,
    unused_output: list[str] | None = None,
    tensor_size_threshold: str | None = None,
    mutable_initializer: bool = False,
    *,
    input_shapes: dict[str, list[int]] | None = None,
    opset: int | None = None,
    dynamic_batch: bool = False,
    dynamic: Axes | None = None,
) -> tuple[Any, bool]:
    """Simplify a model in memory; the signature is the one that users of onnxsim have.

    model: a path, bytes or an onnx.ModelProto; it stays as it is.
    check_n: how many random inputs to compare on in ONNX Runtime; 0 checks nothing.
    perform_optimization: False only folds constants.
    skip_fuse_bn: leave BatchNormalization where it is.
    overwrite_input_shapes (or input_shapes): fixes shapes, by input name.
    test_input_shapes, input_data: what to check with.
    skipped_optimizers: rules to leave out, by our names or onnxsim's.
    skip_constant_folding: leave operators of constants as they are.
    custom_lib: a library of operators for ONNX Runtime, to check with.
    unused_output: names of outputs to leave out.
    tensor_size_threshold: folding makes no constant above this size, such as "1MB".
    opset: the opset of ai.onnx to bring the model to, a newer one than its own.
    dynamic_batch, dynamic: dims to open, as in `convert`.
    skip_shape_inference, dynamic_input_shape, include_subgraph: of no effect. No inferred shape is
    written, dynamic shapes need no word, and nested graphs are always simplified.
    The positions may also be those that onnxsim had up to 0.3: (..., skip_fuse_bn, input_shapes,
    skipped_optimizers, skip_shape_inference, input_data, dynamic_input_shape, custom_lib).
    Returns (the simplified onnx.ModelProto, whether it was found to compute the same); the model as
    it was where it does not. Raises Error for a model
    that cannot be read, a rule that does not exist, or initialisers that are to stay mutable.
    """
    import onnx

    names, folding_skipped = skipped_optimizers, skip_constant_folding
    tests = test_input_shapes
    if isinstance(tests, (list, tuple, set)) or isinstance(names, bool):
        # onnxsim up to 0.3: one place further on stands what came after the shapes.
        data, custom_lib = (
            folding_skipped,
            input_data if isinstance(input_data, str) else custom_lib,
        )
        names, tests = list(tests or []), None
        folding_skipped, input_data = False, data if isinstance(data, dict) else None
    if mutable_initializer:
        raise Error("mutable_initializer: weights that may change cannot be simplified")
    disabled = corresponding([] if names is None or isinstance(names, bool) else names)
    if skip_fuse_bn:
        disabled.append(_SKIPPED_BN)
    folding = {"fold-shapes", "fold-constants"}
    if folding_skipped:
        disabled += folding
    options: dict[str, Any] = {
        "input_shapes": overwrite_input_shapes or input_shapes,
        "disabled": sorted(set(disabled)),
        "only": None if perform_optimization else sorted({*folding, "fold-identity"}),
        "max_constant": size_of(tensor_size_threshold),
        "opset": opset,
        "dynamic_batch": dynamic_batch,
        "dynamic": dynamic,
    }
    if unused_output:
        model = _without_outputs(model, unused_output)
    check = {"inputs": input_data, "input_shapes": tests, "custom_lib": custom_lib}
    with tempfile.TemporaryDirectory(prefix="onnx2nn-") as folder:
        out = Path(folder) / "model.onnx"
        outcome = simplify_checked(model, out, check_n=check_n, check=check, **options)
        if outcome.ok is False:
            proto = model if hasattr(model, "graph") else onnx.load(_loadable(model))
            return proto, False
        return onnx.load(str(out)), bool(outcome.ok)


def _without_outputs(model: Model, names: Iterable[str]) -> Any:
    """A copy of the model that lacks these outputs."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model if hasattr(model, "graph") else onnx.load(_loadable(model)))
    known = [o.name for o in copy.graph.output]
    unknown = sorted(set(names) - set(known))
    if unknown or len(set(names)) == len(known):
        wrong = f"the model has no output {unknown[0]!r}" if unknown else "none would be left"
        raise Error(f"unused_output: {wrong}; its outputs are {', '.join(known)}")
    kept = [o for o in copy.graph.output if o.name not in set(names)]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy


def _loadable(model: Model) -> Any:
    import io

    data = as_source(model).data
    return io.BytesIO(data) if isinstance(data, bytes) else data
