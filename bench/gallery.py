"""Lines and calls of the gallery's pages beside the source of torchvision and transformers for the same parts.

usage: gallery.py

Runs in the zoo's virtual environment and prints a table in Markdown. Counted on both sides: the classes that the network is
made of, of each only what a forward in eval mode runs through (`__init__`, `forward`, and methods and functions of the same
file that these name), without blank lines, comments and docstrings. Calls are those of the syntax tree. On their side a class
counts once however often it is there, as on ours.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn
from zoo_networks import NETWORKS

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
PAGES = {"resnet50": "resnet50", "bert": "bert-24", "llama": "llama-24"}


def counts(trees: Iterable[ast.AST]) -> tuple[int, int]:
    """(lines that hold code, calls) of pieces of syntax tree."""
    lines: set[tuple[int, int]] = set()
    calls = 0
    for k, tree in enumerate(trees):
        docstrings = {
            id(n.body[0].value)
            for n in ast.walk(tree)
            if isinstance(n, (ast.FunctionDef, ast.ClassDef))
            and isinstance(n.body[0], ast.Expr)
            and isinstance(n.body[0].value, ast.Constant)
        }
        for n in ast.walk(tree):
            calls += isinstance(n, ast.Call)
            if id(n) in docstrings or (isinstance(n, ast.Expr) and id(n.value) in docstrings):
                continue
            if isinstance(n, (ast.expr, ast.stmt, ast.arg)):
                lines.add((k, n.lineno))
                if not isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.For, ast.If, ast.With)):
                    lines.update((k, i) for i in range(n.lineno, (n.end_lineno or n.lineno) + 1))
    return len(lines), calls


def parsed(thing: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def named(tree: ast.AST) -> set[str]:
    """Names that a function calls or hands on: f of f(x) and g of self.g(x)."""
    return {
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(tree)
        if isinstance(n, (ast.Name, ast.Attribute))
    }


def original(kind: type[nn.Module]) -> dict[str, ast.AST]:
    """What a forward of the class runs through, by name."""
    module = sys.modules[kind.__module__]
    found: dict[str, ast.AST] = {}
    todo = ["__init__", "forward"]
    while todo:
        name = todo.pop()
        thing = vars(kind).get(name)
        if thing is None:
            thing = vars(module).get(name)
            if not isinstance(thing, FunctionType) or thing.__module__ != kind.__module__:
                continue
        if isinstance(thing, (staticmethod, classmethod)):
            thing = thing.__func__
        thing = inspect.unwrap(thing) if callable(thing) else thing
        if not isinstance(thing, FunctionType) or name in found:
            continue
        found[name] = parsed(thing)
        todo += named(found[name])
    return {f"{kind.__qualname__}.{k}" if k in vars(kind) else k: v for k, v in found.items()}


def theirs(net: nn.Module) -> dict[str, ast.AST]:
    """By class and function; activations and other classes of the library's own count too."""
    out: dict[str, ast.AST] = {}
    for kind in dict.fromkeys(type(m) for m in net.modules()):
        if not kind.__module__.startswith("torch."):
            out |= original(kind)
    return out


def ours(page: Path) -> list[ast.AST]:
    return [
        n
        for n in ast.parse(page.read_text()).body
        if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name != "load"
    ]


def main() -> int:
    print("| page | lines | calls | theirs: lines | calls | ratio of lines | of calls |")
    print("|---|---|---|---|---|---|---|")
    for page, network in PAGES.items():
        lines, calls = counts(ours(GALLERY / f"{page}.py"))
        their_lines, their_calls = counts(theirs(NETWORKS[network].make()).values())
        print(
            f"| [{page}.py]({page}.py) | {lines} | {calls} | {their_lines} | {their_calls} "
            f"| {lines / their_lines:.2f} | {calls / their_calls:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
