"""Runs many seeds by hand: `python -m tests.differential --ops Add,Pad --seeds 0:200`.

`python -m tests.differential show OP OPSET SEED` prints one case: the node, the source, all answers.
"""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from typing import Any

import numpy as np
import onnx

import onnx2nn._native as native

from .engine import (
    FORMS,
    Case,
    cases,
    draw_case,
    reference_answer,
    run_case,
    run_form,
    runtime_answer,
)
from .table import ROWS, opsets_of

_SECONDS = 20


def main() -> None:
    if sys.argv[1:2] == ["show"]:
        show(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--ops", default="")
    parser.add_argument("--seeds", default="0:50")
    parser.add_argument("--opset", type=int, default=0)
    parser.add_argument("--shown", type=int, default=3)
    args = parser.parse_args()
    chosen = [o for o in args.ops.split(",") if o]
    first, last = (int(x) for x in args.seeds.split(":"))
    totals: Counter[str] = Counter()
    start = time.time()
    for domain, op_type in ROWS:
        if chosen and op_type not in chosen:
            continue
        for opset in opsets_of(op_type, domain):
            if args.opset and opset != args.opset:
                continue
            totals += in_child(op_type, domain, opset, range(first, last), args.shown)
    print(dict(totals), f"{time.time() - start:.0f} s")


def in_child(op_type: str, domain: str, opset: int, seeds: range, shown: int) -> Counter[str]:
    """All seeds of one operator at one opset, in a process that may crash."""
    counts: Counter[str] = Counter()
    messages: Counter[str] = Counter()
    at = seeds.start
    while at < seeds.stop:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            with os.fdopen(write, "w") as out:
                try:
                    work(op_type, domain, opset, range(at, seeds.stop), out)
                except Exception as e:
                    last = traceback.extract_tb(e.__traceback__)[-1]
                    print(f"{op_type} {opset}: {e!r} at {last.filename}:{last.lineno}", flush=True)
                    os._exit(0)
            os._exit(0)
        os.close(write)
        last = at
        with os.fdopen(read) as lines:
            for line in lines:
                r = json.loads(line)
                last = r["seed"]
                if r["status"] == "start":
                    continue
                counts[r["status"]] += 1
                if r["status"] == "ok":
                    counts["by " + r["oracle"]] += 1
                    continue
                key = f"{r['status']} {r['form']} {r['message'][:40]}"
                messages[key] += 1
                if r["status"] == "failed" and messages[key] <= shown:
                    print(
                        f"{op_type} {opset} {r['seed']} [{r['form']}, {r['oracle']}] {r['message'][:400]}",
                        flush=True,
                    )
        _, status = os.waitpid(pid, 0)
        if status == 0:
            break
        counts["crashed"] += 1
        print(f"{op_type} {opset} {last} CRASHED or hung (status {status})", flush=True)
        at = last + 1
    if counts["ok"] == 0 or counts["unchecked"] > counts["ok"]:
        top = [m for m, _ in messages.most_common(2)]
        print(f"{op_type} {opset}: {dict(counts)} {top}", flush=True)
    return counts


def work(op_type: str, domain: str, opset: int, seeds: range, out: Any) -> None:
    row = ROWS[domain, op_type]
    signal.alarm(_SECONDS)
    for seed, case in cases(op_type, domain, opset, seeds, row):
        signal.alarm(_SECONDS)
        print(json.dumps({"seed": seed, "status": "start"}), file=out, flush=True)
        r = run_case(case, row)
        print(json.dumps({"seed": seed} | vars(r)), file=out, flush=True)


def show(op_type: str, opset: int, seed: int) -> None:
    domain = next(d for d, t in ROWS if t == op_type)
    row = ROWS[domain, op_type]
    case = draw_case(op_type, domain, opset, seed, row)
    np.set_printoptions(linewidth=140, threshold=100)
    print(onnx.printer.to_text(case.model))
    for name, value in case.feeds.items():
        print(name, getattr(value, "dtype", ""), getattr(value, "shape", ""), value)
    print(native.convert(case.model.SerializeToString(), {"simplify": False}).source)
    for name, ask in (("runtime", runtime_answer), ("reference", reference_answer)):
        attempt(name, lambda ask=ask: ask(case))
    if case.node.expected is not None:
        print("expected", case.node.expected)
    for form in FORMS:
        attempt(form, lambda form=form: run_form(case, form))
    c = native.convert(case.model.SerializeToString(), {"simplify": False})
    print(c.outputs, c.diagnostics_text)
    print(run_case(case, row))


def attempt(name: str, ask: Any) -> None:
    try:
        got = ask()
        print(name, [(getattr(g, "dtype", ""), getattr(g, "shape", "")) for g in got or []], got)
    except Exception as e:
        print(name, type(e).__name__, str(e)[:1500])


__all__ = ["Case"]

if __name__ == "__main__":
    main()
