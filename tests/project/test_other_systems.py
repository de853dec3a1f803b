"""What a test on this system can say of others: that the package asks for nothing that they lack."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_that_windows_lacks_is_asked_for() -> None:
    # No stubs of other packages are read: this is about what the standard library has there.
    options = ("--no-incremental", "--follow-imports=skip", "--ignore-missing-imports")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--platform=win32", *options]
        + ["--disable-error-code=valid-type", "--disable-error-code=var-annotated"]
        + ["python/onnx2nn"],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
