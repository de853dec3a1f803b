"""Plays a newcomer: installs the wheel, runs the first commands and writes what was seen to docs/first-five-minutes.md.

    python tools/wheel.py && python tools/first_minutes.py [--wheels dist] [--commit HEAD] [--to FILE]

The environment is empty but for a PATH of the system's own programs, the home a new folder: no compiler's cache, no
environment of Python, no package of pip's is there. At last the same is made from a fresh clone, without a wheel.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SECONDS = 1800
_LINES = 60  # of one command's output

# (heading, what is said before it, the command); WHEEL stands for the file.
STEPS = [
    (
        "Installing",
        "One wheel serves every Python. Nearly all of the time is torch's.",
        "python3 -m venv env && . env/bin/activate && pip install -q 'WHEEL[verify]'",
    ),
    (
        "One command",
        "It converts the model, and checks what it wrote against ONNX Runtime.",
        "onnx2nn digits.onnx",
    ),
    ("What was written", "", "cat digits.py"),
    (
        "Use it",
        "The page needs torch and safetensors, and nothing else.",
        "python -c 'import torch; from digits import load; print(load()(torch.rand(2, 1, 8, 8)).argmax(1))'",
    ),
    ("What is in a model", "", "onnx2nn inspect digits.onnx"),
    ("A smaller ONNX file", "", "onnx2nn simplify digits.onnx small.onnx"),
    (
        "A model that is no model",
        "Errors say what is wrong; the exit code says of which kind.",
        'head -c 2000 digits.onnx >cut.onnx; onnx2nn cut.onnx; echo "exit code $?"',
    ),
    ("For a report of a fault", "", "onnx2nn --version --verbose"),
]
FROM_A_CLONE = (
    "From a checkout instead",
    "Where no wheel lies in its `dist/`, it compiles one for itself. The packages are still in pip's cache.",
    "git clone -q ADDRESS onnx2nn && cd onnx2nn && ./onnx2nn examples/digits.onnx",
)


def played(command: str, folder: Path, home: Path) -> tuple[str, float]:
    """What a command printed on both streams, as a terminal shows it, and the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={
            "HOME": str(home),
            "PATH": f"{folder / 'env' / 'bin'}:/usr/local/bin:/usr/bin:/bin",
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
    text = done.stdout.replace(str(home), "~")
    return re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip(), seconds


def shown(text: str) -> str:
    """Output for a page: long ones lose their middle."""
    lines = text.splitlines()
    if len(lines) <= _LINES:
        return "\n".join(lines)
    half = _LINES // 2
    return "\n".join([*lines[:half], f"[{len(lines) - 2 * half} lines more]", *lines[-half:]])


def transcript(wheel: Path, commit: str) -> str:
    """The page."""
    with tempfile.TemporaryDirectory(prefix="newcomer-") as there:
        home = Path(there)
        folder = home / "models"
        folder.mkdir()
        shutil.copy(wheel, folder)
        shutil.copy(ROOT / "examples" / "digits.onnx", folder)
        address = home / "address"
        subprocess.run(["git", "clone", "-q", ROOT, address], check=True)
        subprocess.run(["git", "-C", address, "checkout", "-q", commit], check=True)
        parts = [
            "# The first five minutes\n",
            "What a newcomer sees, recorded by `python tools/first_minutes.py`: an empty home, an environment with nothing in it, a "
            f"folder with a wheel and a model, on {os.cpu_count()} cores with Python {platform.python_version()}.\n",
        ]
        for heading, before, command in [*STEPS, FROM_A_CLONE]:
            text, seconds = played(
                command.replace("WHEEL", f"./{wheel.name}").replace("ADDRESS", str(address)),
                folder,
                home,
            )
            parts.append(f"## {heading}\n")
            if before:
                parts.append(before + "\n")
            time_taken = f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
            said = command.replace("WHEEL", f"./{wheel.name}")
            parts.append(f"```text\n$ {said}\n{shown(text)}".rstrip() + f"\n```\n\n{time_taken}.\n")
        parts.append("From here: [the tutorials](tutorials/README.md).\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist")
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "first-five-minutes.md")
    a = parser.parse_args()
    (wheel,) = a.wheels.glob("*-manylinux_*_x86_64.whl")
    a.to.write_text(transcript(wheel, a.commit))


if __name__ == "__main__":
    main()
