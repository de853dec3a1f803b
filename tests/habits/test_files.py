"""Files that other programs read: the citation, templates of issues, the Dockerfile."""

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from tests.backend.suite import ROOT

import onnx2nn

MIB = 2**20
# An allowance for python:3.12-slim-bookworm unpacked, and half of a gigabyte to spare.
_BASE, _SPARE = 150 * MIB, 500 * MIB


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == onnx2nn.__version__
    assert {"message", "title", "authors", "license"} <= set(citation)


TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize("path", [t for t in TEMPLATES if t.stem != "config"], ids=lambda p: p.stem)
def test_templates_are_forms_of_github(path: Path) -> None:
    form = read(str(path.relative_to(ROOT)))
    assert {"name", "description", "body"} <= set(form)
    ids = []
    for part in form["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["value" if part["type"] == "markdown" else "label"]
        ids += [part["id"]] if "id" in part else []
    assert len(ids) == len(set(ids))


def test_a_fault_of_a_model_is_told_by_inspect_and_versions() -> None:
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "model.yml").read_text()
    assert "onnx2nn inspect --json MODEL" in text
    assert "onnx2nn --version --verbose" in text


def installed(names: set[str]) -> dict[str, int]:
    """Bytes on the disk of packages and of all that they need, as they are installed here."""
    sizes: dict[str, int] = {}
    left = sorted(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in sizes:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed here")
        sizes[name] = sum(
            p.stat().st_size
            for f in package.files or []
            if (p := Path(str(package.locate_file(f)))).is_file()
        )
        for line in package.requires or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                left.append(wanted.name)
    return sizes


def test_the_image_stays_below_two_gigabytes() -> None:
    """No Docker is needed for this: what the last stage installs is weighed here, where torch is the CPU's too."""
    if "+cpu" not in metadata.version("torch"):
        pytest.skip("torch is not the build for CPUs here")
    last = (ROOT / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert last.startswith("python:3.12-slim-bookworm\n")
    assert "https://download.pytorch.org/whl/cpu torch" in last
    assert "apt-get" not in last
    commands = re.sub(r"\\\n", " ", last)
    names = set()
    for line in re.findall(r"^RUN pip install (.*)$", commands, re.MULTILINE):
        words = re.sub(r"--(?:constraint|index-url) \S+|--\S+|/tmp/\S+|&&.*", "", line).split()
        names |= set(words)
    assert {"torch", "numpy", "safetensors", "onnxruntime", "onnx", "rich", "bokeh"} <= names
    sizes = installed(names)
    total = sum(sizes.values()) + _BASE
    assert total < 2_000_000_000 - _SPARE, (total, sizes)


def test_the_image_has_what_the_package_wants() -> None:
    """The wheel is installed with the extras `verify` and `report`, by name."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], extras["verify"], extras["report"]]
    wanted = {re.split(r"[\[<>=]", r)[0] for some in lists for r in some} - {"onnx2nn"}
    text = (ROOT / "Dockerfile").read_text()
    assert not [name for name in wanted if not re.search(rf"\b{name}\b", text)]
