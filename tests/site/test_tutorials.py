"""Tutorials and how-tos do what they say."""

from pathlib import Path

import pytest
from tests.site.pages import DOCS, Page, blocks, fits, run_page

DIGITS = ["examples/digits.onnx"]
TUTORIALS = {
    "convert": Page(DIGITS),
    "fine-tune": Page(DIGITS),
    "quantise": Page(DIGITS),
    "phone": Page(DIGITS, environment="executorch", imports=r""),
    "processes": Page(DIGITS),
    "generate": Page(["examples/generate.py"]),
    "operator": Page(),
    "ci": Page([*DIGITS, "examples/digits_sample.npz"]),
}
ORIGINS = {
    "keras": Page(environment="keras", imports=r"^(?:import|from) (?:keras|tensorflow)"),
    "sklearn": Page(),
    "hugging-face": Page(not_run="it downloads a model, and optimum wants packages of a gigabyte"),
    "yolo": Page(not_run="it downloads weights; ultralytics brings OpenCV and polars with it"),
    "paddle": Page(not_run="paddlepaddle is large, and the model is the reader's own"),
    "matlab": Page(not_run="MATLAB is not free software"),
}
EVERY = {
    **{f"tutorials/{name}": how for name, how in TUTORIALS.items()},
    **{f"origins/{name}": how for name, how in ORIGINS.items()},
}
HERE = [n for n, how in EVERY.items() if how.environment is None and not how.not_run]


def test_every_page_is_run_or_says_why_not() -> None:
    found = {
        f"{folder}/{p.stem}"
        for folder in ("tutorials", "origins")
        for p in (DOCS / folder).glob("*.md")
        if p.stem != "README"
    }
    assert found == set(EVERY)
    assert all(blocks(DOCS / f"{n}.md") for n, how in EVERY.items() if not how.not_run)


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_page(tmp_path: Path, name: str) -> None:
    run_page(DOCS / f"{name}.md", EVERY[name], tmp_path)


def test_what_a_page_says_is_compared() -> None:
    assert fits("a\n...\nb 3.5... s\n", "a\nx\nb 3.52 s\n")
    assert not fits("a\nb\n", "b\na\n")
    assert not fits("b 3.5 s\n", "b 305 s\n")
