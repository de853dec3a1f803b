"""One random model, simplified and compared; by hand: `python tests/simplify_random/trial.py 0 20000`."""

import os
import random
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from onnx2nn import _native
from onnx2nn.check.compare import flatten

if __package__:
    from simplify_random.graphs import make
else:
    from graphs import make

ort.set_default_logger_severity(4)


@dataclass
class Found:
    """What is wrong with a simplified model, and the rule whose rewrite made it so."""

    what: str
    rule: str = ""
    node: str = ""


def run(model: bytes, feed: dict[str, Any]) -> list[Any]:
    """The outputs in ONNX Runtime, as the file says and not as it would optimise it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return list(session.run(None, {k: v for k, v in feed.items() if k in wanted}))


def differs(want: list[Any], got: list[Any]) -> str | None:
    """What is different between two lists of outputs."""
    for k, ((_, x), (_, y)) in enumerate(zip(flatten(want), flatten(got), strict=True)):
        if x.shape != y.shape or x.dtype != y.dtype:
            return f"{k}: {y.dtype}{list(y.shape)} instead of {x.dtype}{list(x.shape)}"
        if x.dtype.kind != "f":
            if not np.array_equal(x, y):
                return f"{k}: other {x.dtype} values"
            continue
        a, b = x.astype(np.float64), y.astype(np.float64)
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return f"{k}: other NaNs"
        # What overflows in one order of sums may stay just below infinity in another.
        big = float(np.finfo(x.dtype).max) / 4
        with np.errstate(all="ignore"):
            beyond = (np.abs(a) > big) | (np.abs(b) > big)
            if not np.array_equal(np.sign(a[beyond]), np.sign(b[beyond])):
                return f"{k}: other infinities"
            fine = np.isfinite(a) & np.isfinite(b) & ~beyond
            if not fine.any():
                continue
            p, q = a[fine], b[fine]
            # The rounding of a sum is relative to its largest terms.
            scale = np.abs(p) + float(np.abs(p).max()) * 1e-2 + 1e-2
            if float((np.abs(p - q) / scale).max()) > (1e-3 if x.dtype == np.float32 else 3e-2):
                return f"{k}: {float(np.abs(p - q).max()):.3g} apart"
    return None


def simplified(model: bytes, **options: Any) -> dict[str, Any]:
    """What the core says."""
    return dict(_native.simplify(model, None, options))


def checks(model: bytes) -> bool:
    """Whether the full checker takes a model."""
    try:
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    except Exception:  # the checker has error types of its own
        return False
    return True


def is_wrong(before: bytes, feed: dict[str, Any], want: list[Any], **options: Any) -> str | None:
    """What is wrong with the model simplified under these options."""
    result = simplified(before, **options)
    if not result["ok"]:
        return f"refused: {result['diagnostics'][0]['message']}"
    try:
        got = run(result["model"], feed)
    except Exception as error:  # each refusal is a finding
        return f"does not run: {str(error)[:300]}"
    return differs(want, got)


def trial(seed: int, size: int | None = None, thorough: bool = True) -> Found | bool:
    """What is wrong with the simplified model of a seed; False where nothing is, True where the model
    itself does not run."""
    model, feed = make(seed, size)
    before = model.SerializeToString()
    try:
        want = run(before, feed)
    except Exception:  # not a model to learn from
        return True
    what = is_wrong(before, feed, want)
    if what is not None:
        rule, node = culprit(before, feed, want)
        return Found(what, rule, node)
    what = wrong_of_nothing(model, feed, seed)
    if what is not None:
        return Found(what)
    result = simplified(before)
    again = simplified(result["model"])
    if again["model"] != result["model"]:
        return Found(f"changes when simplified again: {again['rules']}")
    if thorough:
        after = onnx.load_from_string(result["model"])
        for kind in ("input", "output"):
            old = [(v.name, v.type.tensor_type.elem_type) for v in getattr(model.graph, kind)]
            new = [(v.name, v.type.tensor_type.elem_type) for v in getattr(after.graph, kind)]
            if kind == "input":
                held = {t.name for m in (model, after) for t in m.graph.initializer}
                old, new = ([p for p in x if p[0] not in held] for x in (old, new))
            if old != new:
                return Found(f"{kind}s {new} instead of {old}")
        if after.opset_import != model.opset_import:
            return Found("another opset")
        if not checks(result["model"]) and checks(before):
            return Found("the checker refuses it")
    return raised(before, feed, want, model.opset_import[0].version, seed)


def wrong_of_nothing(model: onnx.ModelProto, feed: dict[str, Any], seed: int) -> str | None:
    """What is wrong where an open size is 0, of the models that take that."""
    places: dict[str, list[tuple[str, int]]] = {}
    for value in model.graph.input:
        for k, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and value.name in feed:
                key = dim.dim_param or f"{value.name} {k}"
                places.setdefault(key, []).append((value.name, k))
    if not places or seed % 8:
        return None
    empty = dict(feed)
    for name, k in random.Random(seed).choice(sorted(places.values())):
        empty[name] = np.take(empty[name], [], axis=k)
    before = model.SerializeToString()
    # ONNX Runtime does not survive all that are empty.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            what = is_wrong(before, empty, run(before, empty))
            os.write(write, (what or "").encode())
        finally:  # it does not take it, or that was all
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        what = said.read()
    os.waitpid(child, 0)
    return f"of empty tensors: {what}" if what else None


# What ONNX Runtime 1.32 has kernels for.
NEWEST = 25


def raised(
    before: bytes, feed: dict[str, Any], want: list[Any], opset: int, seed: int
) -> Found | bool:
    """What is wrong with a third of the models, brought to a newer opset."""
    if seed % 3 != 0 or opset >= NEWEST:
        return False
    newer = random.Random(seed).randint(opset + 1, NEWEST)
    what = is_wrong(before, feed, want, opset=newer)
    if what is None and checks(before):
        after = simplified(before, opset=newer)["model"]
        what = None if checks(after) else "the checker refuses it"
    return Found(f"opset {newer}: {what}", "upgrade-opset") if what is not None else False


def culprit(before: bytes, feed: dict[str, Any], want: list[Any]) -> tuple[str, str]:
    """The first rewrite after which the answer is wrong."""
    log = simplified(before).get("log", [])
    for k in range(len(log) + 1):
        if is_wrong(before, feed, want, stop_after=k) is not None:
            return log[k - 1] if k else ("none", "")
    return ("all together", "")


def smallest(seed: int) -> tuple[int, Found]:
    """The shortest beginning of a seed's model that is wrong too."""
    for size in range(1, 15):
        found = trial(seed, size)
        if isinstance(found, Found):
            return size, found
    found = trial(seed)
    assert isinstance(found, Found)
    return -1, found


if __name__ == "__main__":
    first, last = int(sys.argv[1]), int(sys.argv[2])
    unfit = 0
    for number in range(first, last):
        try:
            found = trial(number)
        except Exception as error:  # the generator's own faults are shown too
            print(number, "generator:", repr(error)[:300], flush=True)
            continue
        if found is True:
            unfit += 1
        elif found:
            size, found = smallest(number)
            print(number, size, found, flush=True)
    print(f"{unfit} of {last - first} did not run before")
