"""Simplify and check: what is written computes what the model did, or nothing is written."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx2nn.api import Error, Model, Source, as_source, simplify_unchecked

if TYPE_CHECKING:
    from onnx2nn.verification import Report

# The rules behind the names that users of onnxsim know.
_SKIPPED_BN = "fuse-batch-norm"
_KNOWN_OPTIMIZERS = {
    "fuse_bn_into_conv": "fuse-batch-norm",
    "fuse_add_bias_into_conv": "fuse-arithmetic",
    "fuse_pad_into_conv": "fuse-pad",
    "fuse_matmul_add_bias_into_gemm": "fuse-matmul-bias",
    "fuse_transpose_into_gemm": "fuse-transpose",
    "eliminate_nop_cast": "remove-cast",
    "eliminate_nop_dropout": "remove-dropout",
    "eliminate_nop_pad": "remove-pad",
    "eliminate_nop_transpose": "remove-transpose",
    "eliminate_identity": "fold-identity",
    "fuse_consecutive_transposes": "collapse-transposes",
    "fuse_consecutive_reshapes": "collapse-reshapes",
    "eliminate_common_subexpression": "merge-equal-nodes",
    "eliminate_duplicate_initializer": "merge-equal-initializers",
}


@dataclass
class Outcome:
    """What `simplify_checked` did."""

    ok: bool
    result: dict[str, Any]
    reports: "list[Report]" = field(default_factory=list)
    skipped: str | None = None  # why nothing was checked
    # Where the answer is wrong: the rule at fault, and the node that it rewrote.
    culprit: tuple[str, str] | None = None


def rule_of(name: str) -> str:
    """Our rule for one of our names, or for one of onnxsim's."""
    return _KNOWN_OPTIMIZERS.get(name, name)


@contextlib.contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A path of the same name in a new folder beside `out`: external data refers to names."""
    try:
        folder = tempfile.mkdtemp(prefix=".onnx2nn-", dir=out.parent)
    except OSError as error:
        raise Error(f"{out}: cannot write beside it: {error.strerror}") from error
    try:
        yield Path(folder) / out.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def simplify_checked(
    model: Model,
    out: str | os.PathLike[str],
    *,
    check_n: int = 3,
    check: dict[str, Any] | None = None,
    **options: Any,
) -> Outcome:
    """Simplify `model` to `out`, and compare the two in ONNX Runtime before `out` is there.

    check_n: how many random inputs to compare on; 0 checks nothing.
    check: `inputs`, `input_shapes`, `seed`, `threads`, `custom_lib`; see `Original`.
    options: of the simplification: `input_shapes`, `disabled`, `only`, `external_data`, ...
    """
    source = as_source(model)
    final = Path(out)
    if check_n < 1:
        result = simplify_unchecked(source, final, **options)
        return Outcome(True, result, skipped="not asked for")
    given = dict(check or {})
    shapes = {**(options.get("input_shapes") or {}), **(given.pop("input_shapes", None) or {})}
    given["inputs"] = _read_inputs(given.get("inputs"))
    from onnx2nn.equivalence import Original

    with _aside(final) as aside:
        result = simplify_unchecked(source, aside, **options)
        original = Original(source, check_n, input_shapes=shapes or None, **given)
        outcome = Outcome(True, result, skipped=original.skipped)
        if original.skipped is None:
            outcome.reports = original.compare(Source(str(aside)))
            outcome.ok = all(report.ok for report in outcome.reports)
        if not outcome.ok:

            def is_right(target: Path) -> bool:
                return all(report.ok for report in original.compare(Source(str(target))))

            outcome.culprit = _find_culprit(source, aside, result, options, is_right)
            return outcome
        for file in sorted(result["files"], reverse=True):  # the data before the model
            os.replace(file, final.parent / Path(file).name)
        result["files"] = [str(final.parent / Path(f).name) for f in result["files"]]
    return outcome


def _read_inputs(inputs: Any) -> dict[str, Any] | None:
    if isinstance(inputs, (str, os.PathLike)):
        from onnx2nn.inputs import read_npz

        return read_npz(os.fspath(inputs))
    return dict(inputs) if inputs else None


def _find_culprit(
    source: Source,
    aside: Path,
    result: dict[str, Any],
    options: dict[str, Any],
    is_right: Callable[[Path], bool],
) -> tuple[str, str] | None:
    """The first rewrite after which the answer is wrong: (rule, node)."""
    log = list(result.get("log", []))
    good, bad = 0, len(log)
    simplify_unchecked(source, aside, **{**options, "stop_after": 0})
    if not log or not is_right(aside):
        return None  # wrong without any rule
    while bad - good > 1:
        middle = (good + bad) // 2
        simplify_unchecked(source, aside, **{**options, "stop_after": middle})
        if is_right(aside):
            good = middle
        else:
            bad = middle
    rule, node = log[bad - 1]
    return str(rule), str(node)


def simplify(
    model: Model,
    check_n: int = 3,
    perform_optimization: bool = True,
    skip_fuse_bn: bool = False,
    overwrite_input_shapes: dict[str, list[int]] | None = None,
    test_input_shapes: dict[str, list[int]] | None = None,
    skipped_optimizers: list[str] | None = None,
    skip_constant_folding: bool = False,
    skip_shape_inference: bool = False,
    input_data: dict[str, Any] | None = None,
    dynamic_input_shape: bool = False,
    custom_lib: str | None = None,
    include_subgraph: bool = True,
    unused_output: list[str] | None = None,
    *,
    input_shapes: dict[str, list[int]] | None = None,
    **_other: Any,
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
    The other arguments are accepted, and change nothing here.
    Returns (the simplified onnx.ModelProto, whether it computes the same). Raises Error for a model
    that cannot be read.
    """
    import onnx

    known = {str(name) for name in _rules()}
    disabled = [rule_of(name) for name in skipped_optimizers or []]
    if skip_fuse_bn:
        disabled.append(_SKIPPED_BN)
    folding = {"fold-shapes", "fold-constants"}
    if skip_constant_folding:
        disabled += folding
    options: dict[str, Any] = {
        "input_shapes": overwrite_input_shapes or input_shapes,
        "disabled": sorted(set(disabled) & known),
        "only": None if perform_optimization else sorted({*folding, "fold-identity"}),
    }
    with tempfile.TemporaryDirectory(prefix="onnx2nn-") as folder:
        out = Path(folder) / "model.onnx"
        outcome = simplify_checked(
            model,
            out,
            check_n=check_n,
            check={"inputs": input_data, "input_shapes": test_input_shapes},
            **options,
        )
        if not outcome.ok:
            proto = model if hasattr(model, "graph") else onnx.load(_loadable(model))
            return proto, False
        return onnx.load(str(out)), True


def _loadable(model: Model) -> Any:
    import io

    return io.BytesIO(bytes(model)) if isinstance(model, (bytes, bytearray)) else os.fspath(model)


def _rules() -> dict[str, str]:
    from onnx2nn.api import native

    return dict(native().simplify_rules())
