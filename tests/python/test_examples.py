"""What the README's examples print."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_converted_model_is_fine_tuned() -> None:
    command = [sys.executable, str(EXAMPLES / "finetune.py"), "--epochs", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    accuracy = dict(re.findall(r"(before|after): +([0-9.]+)%", done.stdout))
    assert float(accuracy["before"]) < 30, done.stdout
    assert float(accuracy["after"]) > 90, done.stdout


def test_a_decoder_counts_on(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "generate.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-2:] == ["3 4 5 6 7 8 9 0 1", "7 8 9 0 1 2 3 4 5"]
