"""Prints what the package needs, a line each: `python tools/requirements.py [EXTRA ...]`, of pyproject.toml."""

import re
import sys
from pathlib import Path


def listed(text: str, name: str) -> list[str]:
    """The words of an array of strings; tomllib is newer than the oldest Python that serves."""
    found = re.search(rf"^{re.escape(name)} = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"pyproject.toml has no {name}")
    return re.findall(r'"([^"]+)"', found[1])


if __name__ == "__main__":
    toml = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("dependencies", *sys.argv[1:]):
        print(*listed(toml, name), sep="\n")
