"""The site builds, without a broken link, and its reference is that of the code."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.backend.suite import ROOT

import onnx2nn
from onnx2nn import _native


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """tools/site.py, under a name that Python's own `site` does not have."""
    tools = str(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("site_builder", ROOT / "tools" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, tools)  # for what it imports from beside it, and no longer
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(tools)
    return module


def reference(folder: Path, seed: str) -> dict[str, str]:
    """The generated pages, by a process whose sets have another order."""
    subprocess.run(
        [sys.executable, ROOT / "tools" / "reference.py", folder],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "python")},
    )
    return {p.stem: p.read_text() for p in folder.glob("*.md")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return reference(tmp_path_factory.mktemp("reference"), "1")


def test_it_builds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "site.py", "--to", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "python")},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    html = tmp_path / "html"
    assert (html / "index.html").exists()
    text = (html / "docs" / "reference" / "python.html").read_text()
    assert "weights_for" in text
    assert "class Bottleneck" in re.sub(
        r"<[^>]*>", "", (html / "docs" / "gallery" / "index.html").read_text()
    )


def test_a_broken_link_fails_it(
    tmp_path: Path, site: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "docs" / "gallery").mkdir(parents=True)
    (root / "docs" / "gallery" / "README.md").write_text("# Gallery\n")
    (root / "docs" / "one.md").write_text(
        "# One\n\n[to](two.md) and [back](../README.md#nowhere)\n"
    )
    (root / "README.md").write_text("# First\n")
    text = (ROOT / "zensical.toml").read_text()
    text = re.sub(r"(?ms)^nav = \[.*?^\]", 'nav = [\n  "README.md",\n]', text)
    (root / "zensical.toml").write_text(text)
    monkeypatch.setattr(site, "ROOT", root)
    assert site.build(tmp_path / "site") == 1
    (root / "docs" / "two.md").write_text("# Two\n")
    (root / "docs" / "one.md").write_text("# One\n\n[to](two.md) and [back](../README.md#first)\n")
    css = root / "docs" / "site"
    css.mkdir()
    shutil.copy(ROOT / "docs" / "site" / "site.css", css)
    assert site.build(tmp_path / "site") == 0


def test_what_is_looked_for(tmp_path: Path, site: ModuleType) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="other/#there">a</a><a href="other/#gone">b</a><a href="lost/">c</a>'
        '<a href="https://example.com/">d</a><script src="https://example.com/x.js"></script>'
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h2 id="there">x</h2><a href="..">up</a>')
    assert list(site.faults(tmp_path)) == [
        "index.html: fetches https://example.com/x.js",
        "index.html: other/#gone names no anchor",
        "index.html: lost/ leads nowhere",
    ]


def test_every_page_is_in_the_navigation(tmp_path: Path, site: ModuleType) -> None:
    """One that nobody has put there stands under More."""
    site.lay_out(tmp_path)
    (tmp_path / "docs" / "new.md").write_text("# New\n")
    text = site.settings(tmp_path)
    listed = set(re.findall(r'^\s+"(.*\.md)"', text, re.MULTILINE))
    assert listed == {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.md")}
    assert text.index('"More"') < text.index('"docs/new.md"')


def test_the_reference_is_the_same_again(pages: dict[str, str], tmp_path: Path) -> None:
    assert reference(tmp_path, "2") == pages


def test_every_command_and_option_is_in_the_reference(pages: dict[str, str]) -> None:
    parts = re.split(r"^## onnx2nn (\S+)$", pages["command-line"], flags=re.MULTILINE)
    said = dict(zip(parts[1::2], parts[2::2]))
    commands = {c["name"]: c for c in _native.command_line()}
    assert set(said) == set(commands)
    for name, command in commands.items():
        for option in command["options"]:
            for spelling in option["spellings"] or [option["metavar"]]:
                assert spelling in said[name], (name, spelling)
            help_text = option["help"].replace("|", "\\|").replace("<", "&lt;")
            assert help_text in said[name], (name, option["name"])


def test_every_name_is_in_the_reference(pages: dict[str, str]) -> None:
    for name in onnx2nn.__all__:
        if not name.startswith("_"):
            assert f"## onnx2nn.{name}\n" in pages["python"]
    header = (ROOT / "include" / "onnx2nn" / "onnx2nn.h").read_text()
    for name in set(re.findall(r"^ONNX2NN_API .*?\b(onnx2nn_\w+)\(", header, re.MULTILINE)):
        assert re.search(rf"^### .*\b{name}\b", pages["c"], re.MULTILINE), name
    for path in (ROOT / "include" / "onnx2nn").glob("*.h"):
        for kind in re.findall(r"^(?:struct|class) (\w+) \{", path.read_text(), re.MULTILINE):
            assert f"### {kind}\n" in pages["cpp"], kind
