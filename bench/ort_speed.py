"""Time ONNX Runtime on models before and after simplification: one thread, all optimisations, runs interleaved.

usage: ort_speed.py FOLDER [--only PART] [--runs N] [--limit RATIO]

Each model of FOLDER that ONNX Runtime can run on random inputs is simplified without the check. Both sessions take
turns, and the medians are compared; what comes out over the limit is timed again with ten times as many runs before
it is believed. Prints one line a model, the slowest ratio last, and a summary.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onnx2nn import _native

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}
FREE = 2  # dimensions that the model leaves open
SECONDS = 1.0  # for each side of a first comparison


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(s: ort.InferenceSession) -> dict[str, Any]:
    random = np.random.default_rng(0)
    out = {}
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else FREE for d in i.shape]
        dtype = np.dtype(TYPES[i.type])
        high = 2 if dtype.kind in "iub" else 1
        drawn = random.random(shape) * high
        out[i.name] = np.asarray(drawn).astype(dtype)
    return out


def ratio(before: ort.InferenceSession, after: ort.InferenceSession, feed: Any, runs: int) -> float:
    """The median time after over the median time before; the sessions take turns at being first."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for n in range(runs + 1):
        for side in (0, 1) if n % 2 else (1, 0):
            start = time.perf_counter()
            (before, after)[side].run(None, feed)
            times[side].append(time.perf_counter() - start)
    return statistics.median(times[1][1:]) / statistics.median(times[0][1:])


def compare(path: Path, out: Path, most_runs: int, limit: float) -> float | None:
    try:
        before = session(path)
        feed = feeds(before)
        start = time.perf_counter()
        before.run(None, feed)
        one = time.perf_counter() - start
    except Exception:  # ONNX Runtime's errors share no class; such a model has no time
        return None
    if not _native.simplify(str(path), str(out), {})["ok"]:
        return None
    after = session(out)
    runs = max(7, min(most_runs, int(SECONDS / max(one, 1e-6))))
    found = ratio(before, after, feed, runs)
    for _ in range(3):
        if found <= limit:
            break
        found = min(found, ratio(before, after, feed, min(10 * runs, most_runs * 10)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="part of the path")
    parser.add_argument("--runs", type=int, default=201)
    parser.add_argument("--limit", type=float, default=1.03)
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(args.folder.rglob("*.onnx")):
            if args.only not in str(path):
                continue
            r = compare(path, Path(folder) / "after.onnx", args.runs, args.limit)
            if r is not None:
                found.append((r, str(path.relative_to(args.folder))))
                print(f"{r:6.3f} {found[-1][1]}", flush=True)
    over = [f for f in sorted(found) if f[0] > args.limit]
    print(
        f"{len(found)} models; median {statistics.median(r for r, _ in found):.3f}; {len(over)} over {args.limit}"
    )
    for r, name in over:
        print(f"{r:6.3f} {name}")


if __name__ == "__main__":
    main()
