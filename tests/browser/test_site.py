"""The documentation in Chromium: nothing is asked of others, and a phone shows it all."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.backend.suite import ROOT
from tests.exports.environments import chromium


def test_every_page_fits_a_phone_and_asks_nobody(tmp_path: Path) -> None:
    driver = chromium()
    subprocess.run(
        [sys.executable, ROOT / "tools" / "site.py", "--to", tmp_path],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "python")},
    )
    done = subprocess.run(
        [driver, ROOT / "tools" / "site_pages.py", "--site", tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) > 30
    assert not {page: odd for page, odd in found.items() if odd}
