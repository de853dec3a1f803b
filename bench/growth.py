"""Time the native program on models that grow, one kind for each thing of the format that can be many.

usage: growth.py PROGRAM [--sizes 5000,20000] [--runs 3] [--kinds concat,carried]

PROGRAM is onnx2nn's native program, built with the release preset. The kinds are those of tests/growth/models.py, by
parts of their names. Prints for each kind, converted, simplified, inspected and compared with one that has one less, the
least processor time in seconds, the most memory in MiB, and the exponent of the curve between the first size and the
last: 1 is straight, 2 is quadratic. What is refused as out of proportion is marked so.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from growth.models import GROWING

_COMMANDS = [["convert", "out.py"], ["simplify", "out.onnx"], ["inspect"], ["diff", "fewer.onnx"]]


def run(command: list[str]) -> tuple[float, float, int]:
    """Seconds that it computed, its most MiB, its exit code."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program")
    parser.add_argument("--sizes", default="5000,20000")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kinds", default="")
    args = parser.parse_args()
    sizes = [int(s) for s in args.sizes.split(",")]
    print(f"{'':36}" + "".join(f"{n:>19,}" for n in sizes) + "   exponent")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.onnx"
        start = min(run([args.program, "--version"])[0] for _ in range(args.runs))
        for kind, make in GROWING.items():
            if not any(part in kind for part in args.kinds.split(",")):
                continue
            for command, *other in _COMMANDS:
                line, times, codes = f"{kind:26} {command:9}", [], []
                for n in sizes:
                    path.write_bytes(make(n).SerializeToString())
                    path.with_name("fewer.onnx").write_bytes(make(n - 1).SerializeToString())
                    others = [str(path.with_name(name)) for name in other]
                    words = [args.program, command, str(path), *others, "-q"]
                    found = [run(words) for _ in range(args.runs)]
                    times.append(max(min(f[0] for f in found) - start, 1e-4))
                    codes.append(found[0][2])
                    line += f"{times[-1]:8.3f} s {max(f[1] for f in found):5.0f} MiB"
                exponent = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
                refused = any(codes) and command != "diff"
                line += f"{exponent:8.2f}" + (" refused" if refused else "")
                print(line, flush=True)


if __name__ == "__main__":
    main()
