"""The reference pages of the site, made from what they describe: usage: reference.py FOLDER

`command-line.md` is made from the programs' own help, `python.md` from signatures and docstrings, `c.md` and
`cpp.md` from the headers in include/onnx2nn. tools/site.py runs this, so that no page can be behind the code.
"""

import argparse
import ast
import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx2nn
import onnx2nn.backend
import onnx2nn.log
from onnx2nn.cli.parser import parse

ROOT = Path(__file__).parents[1]
HEADERS = ROOT / "include" / "onnx2nn"
_CPP = sorted(p.name for p in HEADERS.glob("*.h") if p.name != "onnx2nn.h")
_LABELS = 24  # the column of help's explanations, as in src/cli/help.cpp


def _help(*words: str) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        text = parse([*words, "--help"]).text
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    assert text, words
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# ---- The command line ----


def _entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Labels and what they mean, of one section of help."""
    label, words = "", []
    for line in lines:
        if re.match(r"  \S", line):
            if label:
                yield label, " ".join(words)
            beside = len(line) > _LABELS and line[_LABELS - 2 : _LABELS] == "  "
            label, rest = (line[:_LABELS], line[_LABELS:]) if beside else (line, "")
            label, words = label.strip(), rest.split()
        else:
            words += line.split()
    if label:
        yield label, " ".join(words)


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Title and lines of each section of help; the text before the first has no title."""
    title, lines = "", []
    for line in text.splitlines():
        found = re.fullmatch(r"([A-Z][^:]*):", line)
        if found:
            yield title, lines
            title, lines = found[1], []
        else:
            lines.append(line)
    yield title, lines


def _help_page(text: str) -> Iterator[str]:
    for title, lines in _sections(text):
        if not title:
            for line in filter(str.strip, lines):
                if line.startswith(("Usage:", "      ")):
                    yield f"    {line}"
                else:
                    yield f"{line}\n"
            yield ""
            continue
        yield f"**{title}**\n"
        if title == "Examples":
            for command, what in _entries(lines):
                yield f"* `{command}`: {_cell(what)}"
        else:
            rows = list(_entries(lines))
            tail = [line for line in lines if line and not line.startswith(" ")]
            yield "| | |\n|---|---|"
            for label, meaning in rows:
                for line in tail:
                    meaning = meaning.removesuffix(line).rstrip()
                yield f"| `{label}` | {_cell(meaning)} |"
            if tail:
                yield "\n" + " ".join(tail)
        yield ""


def command_line() -> str:
    """Help of the program and of each command, as tables."""
    overview = _help()
    commands = [label for label, _ in _entries(dict(_sections(overview))["Commands"])]
    out = [
        "# The command line\n",
        "The Python program has all of this. The native one (`bin/onnx2nn` of an installation by CMake) has the "
        "same commands and options but for the check and what needs torch.\n",
        *_help_page(overview),
    ]
    for name in commands:
        out += [f"## onnx2nn {name}\n", *_help_page(_help(name))]
    return "\n".join(out) + "\n"


# ---- Python ----


def _unquoted(node: ast.expr) -> str:
    """An annotation as text; one that stands in quotes is the text in them."""
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return str(node.value) if is_text else ast.unparse(node)


def _signature(name: str, function: Callable[..., Any]) -> str:
    """`name(arguments) -> type` as the source has it, one argument a line where it is long."""
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(node, ast.FunctionDef)

    def shown(argument: ast.arg, default: ast.expr | None = None) -> str:
        kind = f": {_unquoted(argument.annotation)}" if argument.annotation else ""
        return argument.arg + kind + (f" = {ast.unparse(default)}" if default is not None else "")

    plain = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(plain) - len(node.args.defaults)) + list(node.args.defaults)
    parts = [shown(a, d) for a, d in zip(plain, defaults) if a.arg != "self"]
    if node.args.vararg:
        parts.append("*" + shown(node.args.vararg))
    elif node.args.kwonlyargs:
        parts.append("*")
    parts += [shown(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults)]
    if node.args.kwarg:
        parts.append("**" + shown(node.args.kwarg))
    tail = f" -> {_unquoted(node.returns)}" if node.returns else ""
    line = f"{name}({', '.join(parts)}){tail}"
    if len(line) <= 88:
        return line
    return f"{name}(\n" + "".join(f"    {p},\n" for p in parts) + f"){tail}"


def _prose(doc: str) -> str:
    """A docstring as Markdown: lines such as `name: what it is` become a list."""
    out: list[str] = []
    for line in inspect.cleandoc(doc).splitlines():
        found = re.match(r"([a-z_]+(?:, [a-z_]+)*): (.*)", line)
        if found:
            if out and out[-1] and not out[-1].startswith(("* ", "  ")):
                out.append("")
            names = ", ".join(f"`{n}`" for n in found[1].split(", "))
            out.append(f"* {names}: {found[2]}")
        elif line.startswith("    ") and out and out[-1].startswith(("* ", "  ")):
            out.append("  " + line.strip())
        else:
            if line and out and out[-1].startswith(("* ", "  ")) and not line.startswith(" "):
                out.append("")
            out.append(line)
    return "\n".join(out).strip()


def _members(kind: type) -> Iterator[str]:
    """Fields, properties and methods of a class that have something to say."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    fields = {
        x.target.id: _unquoted(x.annotation)
        for x in body.body
        if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)
    }
    if fields:
        yield "| field | type |\n|---|---|"
        yield from (f"| `{n}` | `{_cell(t)}` |" for n, t in fields.items())
        yield ""
    for name, value in vars(kind).items():
        if name.startswith("_") or name in fields or not inspect.getdoc(value):
            continue
        if isinstance(value, property):
            yield f"**`{name}`**: {_prose(inspect.getdoc(value) or '')}\n"
        elif inspect.isfunction(value):
            shown = _signature(name, value)
            yield f"```python\n{shown}\n```\n\n{_prose(inspect.getdoc(value) or '')}\n"


def _entry(name: str, value: Any) -> str:
    out = [f"## {name}\n"]
    if inspect.isclass(value):
        out += [_prose(inspect.getdoc(value) or ""), "", *_members(value)]
    else:
        out += [f"```python\n{_signature(name, value)}\n```\n", _prose(inspect.getdoc(value) or "")]
    return "\n".join(out) + "\n"


def python() -> str:
    """All that the package exports, and its backend."""
    out = ["# Python\n", inspect.getdoc(onnx2nn) or "", ""]
    names = [n for n in onnx2nn.__all__ if not n.startswith("_")]
    out += [_entry(f"onnx2nn.{n}", getattr(onnx2nn, n)) for n in names]
    backend: ModuleType = onnx2nn.backend
    out += [f"## onnx2nn.backend\n\n{_prose(inspect.getdoc(backend) or '')}\n"]
    out += [
        "## Logging\n",
        inspect.getdoc(onnx2nn.log) or "",
        "\nThe program shows these lines on stderr with `--verbose`, or with `ONNX2NN_LOG=debug` in the environment.\n",
    ]
    return "\n".join(out)


# ---- C and C++ ----


def _comment(lines: list[str]) -> str:
    """The text of a comment, without its marks; what is set in by less than code is set in as code."""
    text = re.sub(r"^/\*|\*/$", "", "\n".join(lines).strip())
    bare = [re.sub(r"^\s?(?:\*|///?)? ?", "", line).rstrip() for line in text.splitlines()]
    paragraphs = "\n".join(bare).strip().split("\n\n")
    return "\n\n".join(
        textwrap.indent(p, "    ") if re.match(r"  [^ ]", p) else p for p in paragraphs
    )


def _chunks(text: str) -> Iterator[tuple[str, str]]:
    """(comment, declaration) of what stands between blank lines outside of braces."""
    chunk: list[str] = []
    depth = 0
    for line in [*text.splitlines(), ""]:
        code = re.sub(r"//.*|/\*.*?\*/|\"[^\"]*\"", "", line)
        if line.strip() or depth > 0:
            chunk.append(line)
            if not re.match(r"(?:inline )?namespace |extern \"C\"|}\s*(?:$|//)", line.strip()):
                depth += code.count("{") - code.count("}")
            continue
        if chunk:
            yield _split(chunk)
        chunk = []


def _split(chunk: list[str]) -> tuple[str, str]:
    end, block = 0, False
    for line in chunk:
        stripped = line.strip()
        if not (block or stripped.startswith(("//", "/*"))):
            break
        if stripped.startswith("/*"):
            block = True
        if block and "*/" in stripped:
            block = False
        end += 1
    return _comment(chunk[:end]), "\n".join(chunk[end:]).strip()


def _is_noise(declaration: str) -> bool:
    """Guards, includes and the borders of namespaces."""
    lines = [x.strip() for x in declaration.splitlines()]
    noise = (r"#.*", r"namespace .*\{", r"\}.*namespace.*", r'extern "C" \{', r"\}")
    return all(any(re.fullmatch(n, x) for n in noise) for x in lines)


def _title(declaration: str) -> str:
    """What is declared: a type, or each of some functions or names."""
    found = re.match(r"(?:typedef )?(?:struct|class|enum(?: class)?)\s+(\w+)", declaration)
    if found:
        return found[1]
    lines = "\n".join(x for x in declaration.splitlines() if not x.startswith((" ", "//")))
    names = re.findall(r"using (\w+) =|\b(\w+)(?:\(| = )", lines)
    return ", ".join(dict.fromkeys(a or b for a, b in names))


def header(name: str) -> str:
    """What a header declares, each with its comment."""
    out: list[str] = []
    for i, (comment, declaration) in enumerate(_chunks((HEADERS / name).read_text())):
        declaration = re.sub(r"\bONNX2NN_API ", "", declaration)
        if not declaration or _is_noise(declaration):
            if i == 0 and comment:
                out.append(comment + "\n")
            continue
        out.append(f"### {_title(declaration)}\n")
        if comment:
            out.append(comment + "\n")
        out.append(f"```cpp\n{declaration}\n```\n")
    return "\n".join(out)


def c() -> str:
    """The C interface."""
    return (
        "# C\n\n`#include <onnx2nn/onnx2nn.h>`, and link `onnx2nn::c` of `find_package(onnx2nn)`.\n\n"
        + header("onnx2nn.h")
    )


def cpp() -> str:
    """The C++ interface."""
    out = ["# C++\n", "Link `onnx2nn::onnx2nn` of `find_package(onnx2nn)`.\n"]
    out += [f"## {name}\n\n`#include <onnx2nn/{name}>`\n\n{header(name)}" for name in _CPP]
    return "\n".join(out)


PAGES = {"command-line": command_line, "python": python, "c": c, "cpp": cpp}


def write(folder: Path) -> None:
    """Write all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / f"{name}.md").write_text(make())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
