"""Plays a newcomer: runs the first commands in a fresh clone and writes what was seen to docs/first-five-minutes.md.

    python tools/first_minutes.py [--commit HEAD] [--to docs/first-five-minutes.md]

The environment is empty but for a PATH of the system's own programs, the home a new folder: no compiler's cache, no
environment of Python, no package of pip's is there.
"""

import argparse
import os
import platform
import re
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SECONDS = 1800
_LINES = 60  # of one command's output

# (heading, what is said before it, the command)
STEPS = [
    (
        "One command",
        "It makes an environment in the checkout, installs, converts the example and checks what it wrote.",
        "./onnx2nn examples/digits.onnx",
    ),
    ("What was written", "", "cat digits.py"),
    (
        "Use it",
        "The page needs torch and safetensors, and nothing else.",
        ".venv/bin/python -c 'import torch; from digits import load; print(load()(torch.rand(2, 1, 8, 8)).argmax(1))'",
    ),
    ("What is in a model", "", "./onnx2nn inspect examples/digits.onnx"),
    ("A smaller ONNX file", "", "./onnx2nn simplify examples/digits.onnx small.onnx"),
    (
        "A model that is no model",
        "Errors say what is wrong; the exit code says of which kind.",
        'head -c 2000 examples/digits.onnx >cut.onnx; ./onnx2nn cut.onnx; echo "exit code $?"',
    ),
    ("And for a report of a fault", "", "./onnx2nn --version --verbose"),
]


def played(command: str, folder: Path, home: Path) -> tuple[str, float]:
    """What a command printed on both streams, as a terminal shows it, and the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={
            "HOME": str(home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "COLUMNS": "100",
            "LANG": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    seconds = time.perf_counter() - began
    text = done.stdout.replace(str(folder), "~/onnx2nn").replace(str(home), "~")
    return re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip(), seconds


def shown(text: str) -> str:
    """Output for a page: long ones lose their middle."""
    lines = text.splitlines()
    if len(lines) <= _LINES:
        return "\n".join(lines)
    half = _LINES // 2
    return "\n".join([*lines[:half], f"[{len(lines) - 2 * half} lines more]", *lines[-half:]])


def transcript(commit: str) -> str:
    """The page."""
    with tempfile.TemporaryDirectory(prefix="newcomer-") as there:
        home = Path(there)
        folder = home / "onnx2nn"
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        subprocess.run(["git", "-C", folder, "checkout", "-q", commit], check=True)
        parts = [
            "# The first five minutes\n",
            "What a newcomer sees, recorded by `python tools/first_minutes.py`: a fresh clone, an empty home, an environment "
            f"with nothing in it, on {os.cpu_count()} cores with Python {platform.python_version()}. "
            "Times are of that machine, which had other work to do.\n",
            "```text\n$ git clone ADDRESS onnx2nn && cd onnx2nn\n```\n",
        ]
        for heading, before, command in STEPS:
            text, seconds = played(command, folder, home)
            parts.append(f"## {heading}\n")
            if before:
                parts.append(before + "\n")
            time_taken = f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
            parts.append(f"```text\n$ {command}\n{shown(text)}\n```\n\n{time_taken}.\n")
        parts.append("From here: [the tutorials](tutorials/README.md).\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "first-five-minutes.md")
    a = parser.parse_args()
    a.to.write_text(transcript(a.commit))


if __name__ == "__main__":
    main()
