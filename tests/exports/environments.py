"""Programs that read what onnx2nn writes, each in a virtual environment of its own.

They want other versions than the project's, so they are installed once into `.cache/environments`, and shared by
the test processes. Where that cannot be done, as without a network, the tests are skipped and say why.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.backend.suite import ROOT, locked

PACKAGES = {
    "ncnn": ["pnnx==20261020", "ncnn==1.0.20261020", "torch==2.13.0"],
    "keras": ["keras==3.15.1", "tensorflow-cpu==2.21.0", "tf2onnx==1.17.0", "onnx==1.23.2"],
    "browser": ["netron==9.3.3", "selenium==4.51.0"],
    "transformers": ["transformers==5.24.0", "torch==2.13.0", "numpy", "safetensors"],
    "executorch": ["executorch==1.5.1", "torch==2.13.0", "onnx==1.23.2"],
}
_INSTALL_S = 900


def environment(name: str) -> Path:
    """The folder with the programs of an environment."""
    wanted = PACKAGES[name]
    digest = hashlib.sha256(" ".join([*wanted, sys.version]).encode()).hexdigest()[:12]
    folder = ROOT / ".cache" / "environments" / f"{name}-{digest}"
    with locked(folder):
        if not (folder / "done").exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", folder],
                [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted],
            ):
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=_INSTALL_S
                )
                if done.returncode != 0:
                    pytest.skip(f"{', '.join(wanted)} cannot be installed: {done.stderr[-300:]}")
            (folder / "done").touch()
    return folder / "bin"


def chromium() -> Path:
    """The Python of an environment that drives Debian's Chromium; a test that it is not there for is skipped."""
    missing = [p for p in ("chromium", "chromedriver") if shutil.which(p) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found (Debian: chromium chromium-driver)")
    return environment("browser") / "python"


def run(name: str, code: str, folder: Path, *arguments: str, timeout: float = 280) -> Any:
    """Runs Python code in an environment, in a folder; what it prints last is JSON."""
    done = subprocess.run(
        [environment(name) / "python", "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=os.environ
        | {"PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
