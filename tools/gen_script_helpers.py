"""Writes src/torch/script_helpers.txt: runtime helpers as TorchScript, for archives written without torch.

usage: python tools/gen_script_helpers.py [--check] [--why]

Each helper of python/onnx2nn/runtime is brought to what TorchScript's front end takes (no keyword-only
arguments, no `X | None`, no starred arguments, ...), compiled by torch.jit.script, and written as torch prints it
into archives. What torch does not compile is left out: the error for a node that needs it names the node.
--check says whether the file is as it would be written; --why says what torch refuses in each of the others.
"""

import argparse
import ast
import copy
import importlib
import linecache
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from script_dialect import Dialect
from script_options import spelled_out
from script_preamble import IN_ITS_PLACE, PREAMBLE
from script_types import callables, for_sequences

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = ROOT / "python" / "onnx2nn" / "runtime"
OUTPUT = ROOT / "src" / "torch" / "script_helpers.txt"
PREFIX = "__torch__.helpers."


def dialect_module() -> tuple[types.ModuleType, list[str]]:
    """All helpers, as a module that torch.jit.script can read the source of; their names."""
    text, constants = PREAMBLE, ""
    functions: dict[str, ast.FunctionDef] = {}
    for path in sorted(RUNTIME.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                constants += "try:\n    " + ast.unparse(node) + "\nexcept Exception:\n    pass\n"
    for key, source in IN_ITS_PLACE.items():
        replaced = ast.parse(source).body[0]
        assert isinstance(replaced, ast.FunctionDef)
        functions[key] = replaced
    for key in [*functions]:
        again = for_sequences(functions[key])
        if again is not None:
            functions[again.name] = again
    spelled_out(functions)
    originals = copy.deepcopy(functions)
    names = [*functions]
    for function in functions.values():
        made = ast.fix_missing_locations(Dialect(originals).visit(function))
        called = callables(originals[function.name])
        if called:
            made = as_method(made, [*called])
        text += "\n" + ast.unparse(made) + "\n"
    text = "from __future__ import annotations\n" + text + constants
    file = "<helpers of onnx2nn for TorchScript>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = types.ModuleType("helpers")
    sys.modules["helpers"] = module
    exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)
    return module, names


def as_method(function: ast.FunctionDef, called: list[str]) -> ast.ClassDef:
    """A module with the function as a method, next to methods of the kind that it calls."""
    text = f"class {function.name}(torch.nn.Module):\n"
    for key in called:
        text += (
            f"    def {key}(self, captured: List[Tensor], given: List[Tensor]) -> List[Tensor]:\n"
        )
        text += "        return given\n"
    made = ast.parse(text).body[0]
    assert isinstance(made, ast.ClassDef)
    function.decorator_list = [ast.parse("torch.jit.export", mode="eval").body]
    made.body.append(function)
    return ast.fix_missing_locations(made)


def plain(qualified: str) -> str:
    return re.sub(r"___torch_mangle_\d+\.", "", qualified)


def scripted(module: types.ModuleType, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The text of each function that torch compiles, with those that they call; why not, for the others."""
    texts: dict[str, str] = {}
    refused: dict[str, str] = {}

    def add(key: str, function: Any) -> None:
        if key in texts:
            return
        if isinstance(function, type):
            code = getattr(torch.jit.script(function()), key).code
        else:
            code = torch.jit.script(function).code
        if "CONSTANTS" in code:
            raise RuntimeError("it has constants that are no numbers")
        called = sorted(set(re.findall(r"__torch__\.[\w.]+", code)), key=len, reverse=True)
        inner = {}
        for q in called:
            path = plain(q).removeprefix("__torch__.")
            owner, _, base = path.rpartition(".")
            target = getattr(module if owner == "helpers" else importlib.import_module(owner), base)
            inner[q] = (base if owner == "helpers" else "torch_" + base.lstrip("_"), target)
        texts[key] = ""  # of what calls itself
        try:
            for other, target in inner.values():
                add(other, target)
        except Exception:
            del texts[key]
            raise
        for q in called:
            code = re.sub(re.escape(q) + r"\b", PREFIX + inner[q][0], code)
        head = re.match(r"def \w+\(", code)
        assert head is not None
        texts[key] = f"def {key}(" + code[head.end() :].rstrip("\n") + "\n"

    for n in names:
        try:
            add(n, getattr(module, n))
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            refused[n] = " | ".join(
                lines[:1] + [lines[i - 1] for i, line in enumerate(lines) if "HERE" in line][:1]
            )
    return texts, refused


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; 1 where it is not current"
    )
    parser.add_argument("--why", action="store_true", help="what torch refuses in the others")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    module, names = dialect_module()
    texts, refused = scripted(module, names)
    if args.why:
        for n, why in refused.items():
            print(f"{n}: {why}")
    text = "".join(texts[k] for k in sorted(texts))
    print(f"{len(names) - len(refused)} of {len(names)} helpers, {len(text)} bytes")
    if args.check:
        return int(not OUTPUT.exists() or OUTPUT.read_text() != text)
    OUTPUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
