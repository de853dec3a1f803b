"""Tutorials that want packages of their own."""

from pathlib import Path

import pytest
from tests.exports.environments import environment
from tests.site.pages import DOCS, run_page
from tests.site.test_tutorials import EVERY


@pytest.mark.parametrize("name", [n for n, how in EVERY.items() if how.environment])
def test_page(tmp_path: Path, name: str) -> None:
    how = EVERY[name]
    assert how.environment is not None
    run_page(DOCS / f"{name}.md", how, tmp_path, environment(how.environment) / "python")
