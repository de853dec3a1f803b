"""Builds the documentation as a site: usage: site.py [--to FOLDER]

It goes to build/site/html, with the reference made from the code (tools/reference.py) and the pages of the gallery
in full. A link or an anchor that leads nowhere fails it, and so does a page that would fetch anything from elsewhere.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import reference

ROOT = Path(__file__).parents[1]
# What is laid out for the site, besides docs/: what its pages link to.
_BESIDE = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "constraints.txt"),
    *("action.yml", "Dockerfile", ".pre-commit-hooks.yaml", "examples", "bench", "include"),
)
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.onnx", "*.npz", "build")
# Attributes by which a page fetches something as it opens, and tags of which href does.
_FETCHES = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
}


def lay_out(pages: Path) -> None:
    """Copy what the site is made of, and make what is generated."""
    shutil.copytree(ROOT / "docs", pages / "docs", ignore=_SKIPPED)
    for name in _BESIDE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, pages / name, ignore=_SKIPPED)
        elif source.exists():
            shutil.copy(source, pages / name)
    reference.write(pages / "docs" / "reference")
    gallery = pages / "docs" / "gallery"
    with (gallery / "README.md").open("a") as page:
        for file in sorted(gallery.glob("*.py")):
            page.write(f"\n## {file.name}\n\n```python\n{file.read_text()}```\n")


def settings(pages: Path) -> str:
    """zensical.toml, with pages that its navigation does not have under a heading of their own."""
    text = (ROOT / "zensical.toml").read_text()
    known = set(re.findall(r'^\s+"(.*\.md)"', text, re.MULTILINE))
    found = {str(p.relative_to(pages)) for p in pages.rglob("*.md")}
    more = "".join(f'    "{name}",\n' for name in sorted(found - known))
    if not more:
        return text
    return re.sub(r"(?m)^\]$", f'  {{ "More" = [\n{more}  ] }},\n]', text, count=1)


class _Page(HTMLParser):
    """The anchors of a page, and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetches: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        for name in ("id", "name"):
            if found.get(name):
                self.anchors.add(str(found[name]))
        for name in ("href", "src"):
            target = found.get(name)
            if not target:
                continue
            elsewhere = urlsplit(target).netloc != ""
            if not elsewhere:
                self.links.append(target)
            elif (tag, name) in _FETCHES and found.get("rel") != "canonical":
                self.fetches.append(target)


def faults(html: Path) -> Iterator[str]:
    """Links and anchors that lead nowhere, and what would be fetched from elsewhere."""
    pages = {p.resolve(): _Page(p.read_text()) for p in sorted(html.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(html.resolve())
        yield from (f"{where}: fetches {x}" for x in page.fetches)
        if path.name == "404.html":  # its links are those of the site's root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            target = target.resolve()
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                yield f"{where}: {link} leads nowhere"
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors and not anchor.startswith("__"):
                    yield f"{where}: {link} names no anchor"


def build(folder: Path) -> int:
    """Build the site into folder/html; returns an exit code."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    lay_out(pages)
    (folder / "zensical.toml").write_text(settings(pages))
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=folder, check=False)
    if done.returncode != 0:
        return done.returncode
    found = list(faults(folder / "html"))
    print("\n".join(found) or f"{folder / 'html' / 'index.html'} is the first page")
    return 1 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "site")
    sys.exit(build(parser.parse_args().to.resolve()))


if __name__ == "__main__":
    main()
