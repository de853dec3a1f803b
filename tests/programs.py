"""The two programs, as tests run them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["PROGRAM", "ROOT", "SCHEMA", "Run", "native"]

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "build/ci/bin/onnx2nn"
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/json.schema.json").read_text())

# Words in; exit code, output and errors out.
Run = Callable[..., tuple[int, str, str]]


def native(*words: object) -> tuple[int, str, str]:
    """Run the native program; the test is skipped where it is not built."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built")
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()
