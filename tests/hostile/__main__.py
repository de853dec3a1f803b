"""Hostile models through a build that watches itself, `fuzz/stream`: none may end badly.

    python -m tests.hostile build/fuzz/bin/convert_stream                      as ./test runs it
    python -m tests.hostile DRIVER --kind sweep --seed 1 --cases 1000000       by hand
    python -m tests.hostile DRIVER --kind mutants --seed 0 --only 17 --save x.onnx

Models of findings are kept in --keep.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .cases import STREAMS, stream

# In ./test: what two cores do in under a minute and a half.
CASES = {"sweep": 20_000, "mutants": 3_000}


class Part:
    """Every `step`th case from `first` on, in one process that makes them and one that takes them."""

    def __init__(self, args: argparse.Namespace, kind: str, numbers: range) -> None:
        self.args = args
        self.kind = kind
        self.numbers = numbers
        self.findings: list[tuple[int, str, str]] = []
        self.summary = ""
        self.refused_sources = 0

    def run(self) -> "Part":
        maker = [sys.executable, "-m", "tests.hostile", "-", "--kind", self.kind]
        maker += ["--seed", str(self.args.seed), "--numbers"]
        maker += [f"{self.numbers.start}:{self.numbers.stop}:{self.numbers.step}"]
        limits = ["--seconds", str(self.args.seconds), "--megabytes", str(self.args.megabytes)]
        limits += ["--sources", str(self.args.sources)]
        made = subprocess.Popen(maker, stdout=subprocess.PIPE)
        driver = subprocess.Popen(
            [self.args.driver, *limits], stdin=made.stdout, stdout=-1, text=True
        )
        assert made.stdout is not None
        assert driver.stdout is not None
        made.stdout.close()
        for line in driver.stdout:
            self.take(line.rstrip("\n"))
        if made.wait() != 0 or driver.wait() not in (0, 1) or not self.summary:
            self.findings.append((-1, "died", f"{self.kind}: the stream ended early"))
        return self

    def take(self, line: str) -> None:
        what, number, rest = line.split(" ", 2)
        if what == "done":
            self.summary = f"{number} {rest}"
            return
        case = self.numbers[int(number)]
        if what == "finding":
            kind, text = rest.split(" ", 1)
            self.findings.append((case, kind, json.loads(text)))
            return
        try:
            compile(json.loads(rest), "source", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            self.findings.append((case, "python", f"{type(e).__name__}: {e}"))


def write_stream(kind: str, seed: int, numbers: range) -> None:
    for _, model in stream(kind, seed, numbers):
        sys.stdout.buffer.write(len(model).to_bytes(4, "little") + model)
    sys.stdout.buffer.flush()


def kinds_of(findings: Iterator[tuple[int, str, str]]) -> dict[str, list[int]]:
    grouped: dict[str, list[int]] = {}
    for case, kind, text in findings:
        lines = [line for line in text.splitlines() if "==" not in line[:3]]
        grouped.setdefault(f"{kind}: " + "\n    ".join(lines[:5]), []).append(case)
    return grouped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("driver")
    parser.add_argument("--kind", choices=list(STREAMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=int, default=10, help="that a model may take")
    parser.add_argument("--megabytes", type=int, default=768, help="that a model may take")
    parser.add_argument("--sources", type=int, default=20, help="compile one source of so many")
    parser.add_argument("--only", type=int, help="one case")
    parser.add_argument("--save", type=Path, help="write the one case there, and do nothing else")
    parser.add_argument("--keep", type=Path, default=Path("build/hostile"))
    parser.add_argument("--numbers", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.numbers:
        write_stream(args.kind, args.seed, range(*map(int, args.numbers.split(":"))))
        return 0
    if args.only is not None:
        name, model = STREAMS[args.kind](args.seed, args.only)
        print(name)
        (args.save or Path("case.onnx")).write_bytes(model)
        return 0
    failed = 0
    for kind in [args.kind] if args.kind else list(STREAMS):
        start, first = time.monotonic(), args.first
        end = first + (args.cases or CASES[kind])
        parts = [Part(args, kind, range(first + j, end, args.jobs)) for j in range(args.jobs)]
        with ThreadPoolExecutor(args.jobs) as pool:
            done = list(pool.map(Part.run, parts))
        findings = [f for part in done for f in part.findings]
        counts = [sum(x) for x in zip(*(map(int, p.summary.split()) for p in done), strict=True)]
        print(f"{kind}, seed {args.seed}: cases, conversions, simplifications:", *counts, end="; ")
        print(f"{len(findings)} findings, {time.monotonic() - start:.0f} s")
        for text, cases in sorted(kinds_of(iter(findings)).items(), key=lambda k: -len(k[1])):
            print(f"  {len(cases)} times, {kind} {cases[:5]}:\n    {text}")
            for case in cases[:2] if cases[0] >= 0 else ():
                args.keep.mkdir(parents=True, exist_ok=True)
                saved = args.keep / f"{kind}-{args.seed}-{case}.onnx"
                saved.write_bytes(STREAMS[kind](args.seed, case)[1])
        failed += len(findings)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
