"""Pages of the documentation as programs: their blocks of code, run from top to bottom in a folder."""

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.backend.suite import ROOT

DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECONDS = 240

# Runs blocks one after another: Python in one namespace, shell in bash. Prints what each printed, as JSON.
_DRIVER = """
import contextlib, io, json, linecache, subprocess, sys, traceback
sys.path.insert(0, "")
printed, names = [], {"__name__": "page"}
for number, (kind, code) in enumerate(json.load(sys.stdin)):
    if kind == "sh":
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        failed, out, err = done.returncode != 0, done.stdout, done.stderr
    else:
        failed, out, err, name = False, io.StringIO(), "", f"<block {number}>"
        linecache.cache[name] = len(code), None, code.splitlines(True), name
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(code, name, "exec"), names)
            except BaseException:
                failed, err = True, traceback.format_exc()
        out = out.getvalue()
    printed.append([failed, out, err])
    if failed:
        break
json.dump(printed, sys.__stdout__)
"""

# As torch's own, but that each process leaves without the end of the interpreter, which threads of gloo may abort.
_TORCHRUN = f"""
import os, sys
words = sys.argv[1:]
program = next(i for i, word in enumerate(words) if word.endswith(".py"))
words.insert(program, {str(ROOT / "tests" / "distributed" / "to_the_end.py")!r})
os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ["PYTHONPATH"]])
os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *words])
"""


@dataclass
class Block:
    """A block of code, and what its page says that it prints (None: nothing is said)."""

    kind: str  # "python" or "sh"; "file" is written to `title`
    code: str
    title: str = ""
    expected: str | None = None


@dataclass
class Page:
    """A page that is run, or why it is not.

    files: of the checkout, put into the folder first. environment: of tests.exports.environments, for blocks that
    import `imports`; the others run in the project's own. A block's names end where the environment changes.
    """

    files: list[str] = field(default_factory=list)
    environment: str | None = None
    imports: str = ""
    not_run: str = ""


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    found: list[Block] = []
    for kind, title, code in _FENCE.findall(page.read_text()):
        if title:
            found.append(Block("file", code, title))
        elif kind in ("python", "sh"):
            found.append(Block(kind, code))
        elif kind == "text" and found:
            found[-1].expected = code
    return found


def fits(expected: str, printed: str) -> bool:
    """Whether the lines of a page are in what was printed, in order; ... stands for anything."""
    lines = [re.escape(x).replace(r"\.\.\.", ".*") for x in expected.splitlines()]
    at, there = 0, printed.splitlines()
    for line in lines:
        if line == ".*":
            continue
        while at < len(there) and not re.fullmatch(line, there[at].rstrip()):
            at += 1
        if at == len(there):
            return False
        at += 1
    return True


def run(program: Path, some: list[Block], folder: Path) -> None:
    """Run blocks by a Python, in a folder; an AssertionError says which failed, or printed something else."""
    commands = folder / ".bin"
    commands.mkdir(exist_ok=True)
    for name, text in {
        "onnx2nn": f'#!/bin/sh\nexec "{program}" -m onnx2nn "$@"\n',
        "torchrun": f"#!{program}\n{_TORCHRUN}",
    }.items():
        command = commands / name
        command.write_text(text)
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = [str(commands), str(Path(program).parent), os.environ["PATH"]]
    done = subprocess.run(
        [program, "-c", _DRIVER],
        input=json.dumps([[b.kind, b.code] for b in some]),
        cwd=folder,
        env=os.environ
        | {
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(ROOT / "python"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "100",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout.splitlines()[-1])
    for block, (failed, out, err) in zip(some, printed):
        assert not failed, f"{block.code}\n{out[-2000:]}\n{err[-3000:]}"
        if block.expected is not None:
            assert fits(block.expected, out), f"{block.code}\nprinted\n{out}\nnot\n{block.expected}"
    assert len(printed) == len(some)


def run_page(page: Path, how: Page, folder: Path, other: Path | None = None) -> None:
    """Run a page; `other` is the Python of its environment."""
    for name in how.files:
        (folder / Path(name).name).write_bytes((ROOT / name).read_bytes())
    own = Path(sys.executable)
    batch: list[Block] = []
    program = own
    for block in blocks(page):
        if block.kind == "file":
            (folder / block.title).write_text(block.code)
            continue
        wants = other if other is not None and re.search(how.imports, block.code) else own
        if wants != program and batch:
            run(program, batch, folder)
            batch = []
        program = wants
        batch.append(block)
    if batch:
        run(program, batch, folder)
