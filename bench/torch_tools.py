"""What torch's tools make of the pages of the zoo: one row a file, one word a tool.

usage: torch_tools.py FOLDER OUT.jsonl [--match RE] [--tools a,b]

FOLDER is one of bench/zoo.py's. Each file is converted and loaded in a process of its own, and each tool's answers are compared with
torch's own from the .npz: `ok`, or what went wrong. Tools:
    functional_call, vmap (over the batch), deepcopy, save (the whole module, loaded again), half, bfloat16, autocast,
    compile (fullgraph), export and export_strict (a free batch, run at three rows), trace (fx), quantise (torchao, linear layers)
half and bfloat16 hold the answers' distance to a twentieth of their largest value, or to what a network that is pure arithmetic in
that type gives beside it: they look for what fails, not for accuracy.
"""

import argparse
import collections
import copy
import importlib.util
import io
import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import onnx2nn

_SECONDS = 400
_CLOSE = {"half": 0.3, "bfloat16": 0.5, "autocast": 0.3, "quantise": 0.5}


def tensors(answer: Any) -> list[Tensor]:
    return list(answer) if isinstance(answer, (tuple, list)) else [answer]


def difference(got: list[Tensor], want: list[Tensor], close: float) -> str:
    """Why the answers differ; empty where they do not."""
    if len(got) != len(want):
        return f"{len(got)} answers for {len(want)}"
    for y, w in zip(got, want):
        if y.shape != w.shape:
            return f"shape {list(y.shape)} for {list(w.shape)}"
        if not w.is_floating_point():
            continue
        distance = float((y.double() - w.double()).abs().max()) / max(float(w.abs().max()), 1e-6)
        if not distance <= close:
            return f"off by {distance:.2g}"
    return ""


def grown(want: list[Tensor], rows: list[Tensor]) -> list[Tensor]:
    """Answers of three rows from those of two, the first again: along the axes that grew."""
    out = []
    for w, y in zip(want, rows):
        for axis in range(w.dim()):
            if y.dim() == w.dim() and y.shape[axis] == w.shape[axis] + 1 and w.shape[axis] == 2:
                w = torch.cat([w, w.narrow(axis, 0, 1)], axis)
        out.append(w)
    return out


def attempts(
    net: nn.Module, args: list[Tensor], want: list[Tensor]
) -> dict[str, Callable[[], str]]:
    three = [torch.cat([a, a[:1]]) if a.dim() else a for a in args]

    def said(answer: Any, tool: str = "") -> str:
        return difference(tensors(answer), want, _CLOSE.get(tool, 1e-3))

    def functional() -> str:
        state = dict(net.state_dict())
        return said(torch.func.functional_call(net, state, tuple(args)))

    def vmap() -> str:
        each = torch.vmap(lambda *rows: net(*[r[None] for r in rows]), randomness="different")
        got = tensors(each(*args))
        rows = [y.flatten(0, 1) if y.dim() > 1 else y for y in got]
        if any(y.shape != w.shape for y, w in zip(rows, want)):
            # Answers between rows, such as CLIP's, are others where a row is alone.
            return "" if all(w.shape[:2] == (2, 2) for w in want[:1]) else "other shapes"
        return difference(rows, want, 1e-3)

    def save() -> str:
        stream = io.BytesIO()
        torch.save(net, stream)
        stream.seek(0)
        return said(torch.load(stream, weights_only=False)(*args))

    def cast(dtype: torch.dtype, tool: str) -> str:
        net2 = copy.deepcopy(net).to(dtype)
        got = net2(*[a.to(dtype) if a.is_floating_point() else a for a in args])
        if any(w.is_floating_point() and y.dtype != dtype for y, w in zip(tensors(got), want)):
            return f"answers of {[str(y.dtype) for y in tensors(got)]}"
        return said(got, tool)

    def autocast() -> str:
        with torch.autocast("cpu", torch.bfloat16):
            return said(net(*args), "autocast")

    def export(strict: bool) -> str:
        batch = torch.export.Dim("batch")
        shapes = tuple({0: batch} if a.dim() else None for a in args)
        program = torch.export.export(net, tuple(args), dynamic_shapes=shapes, strict=strict)
        got = tensors(program.module()(*three))
        return difference(got, grown(want, got), 1e-3)

    def quantise() -> str:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        net2 = copy.deepcopy(net)
        quantize_(net2, Int8WeightOnlyConfig())
        return said(net2(*args), "quantise")

    return {
        "functional_call": functional,
        "vmap": vmap,
        "deepcopy": lambda: said(copy.deepcopy(net)(*args)),
        "save": save,
        "half": lambda: cast(torch.float16, "half"),
        "bfloat16": lambda: cast(torch.bfloat16, "bfloat16"),
        "autocast": autocast,
        "compile": lambda: said(torch.compile(net, fullgraph=True, backend="eager")(*args)),
        "export": lambda: export(False),
        "export_strict": lambda: export(True),
        "trace": lambda: said(torch.fx.symbolic_trace(net)(*args)),
        "quantise": quantise,
    }


def measure(path: Path, tools: set[str]) -> dict[str, str]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    stored = np.load(path.with_suffix(".npz"))
    args = [torch.from_numpy(stored[k]) for k in stored.files if k.startswith("in:")]
    want = [torch.from_numpy(stored[k]) for k in stored.files if k.startswith("out:")]
    row = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "net.py"
        onnx2nn.convert(str(path), str(source))
        spec = importlib.util.spec_from_file_location("net", source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["net"] = module
        spec.loader.exec_module(module)
        net = module.load()
        with torch.no_grad():
            for tool, attempt in attempts(net, args, want).items():
                if tools and tool not in tools:
                    continue
                torch.compiler.reset()
                try:
                    row[tool] = attempt() or "ok"
                except Exception as error:
                    text = " ".join(str(error).split())
                    row[tool] = f"{type(error).__name__}: {text[:300]}"
    return row


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--match", default="", help="only names that this regular expression finds")
    parser.add_argument("--tools", default="", help="only these, with commas between them")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    tools = set(filter(None, a.tools.split(",")))
    if a.one:
        print("ROW" + json.dumps(measure(a.one, tools)))
        return 0
    done = (
        {json.loads(line)["model"] for line in a.out.read_text().splitlines()}
        if a.out.exists()
        else set()
    )
    for path in sorted(a.folder.glob("*.onnx")):
        if path.stem in done or not re.search(a.match, path.stem):
            continue
        command = [
            sys.executable,
            __file__,
            str(a.folder),
            str(a.out),
            "--tools",
            a.tools,
            "--one",
            str(path),
        ]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
            found = [x for x in run.stdout.splitlines() if x.startswith("ROW")]
            row = json.loads(found[-1][3:]) if found else {"failed": run.stderr.strip()[-300:]}
        except subprocess.TimeoutExpired:
            row = {"failed": "timeout"}
        with a.out.open("a") as out:
            out.write(json.dumps({"model": path.stem, **row}) + "\n")
        bad = {k: v for k, v in row.items() if v != "ok"}
        print(path.stem, bad or "ok", flush=True)
    rows = [json.loads(line) for line in a.out.read_text().splitlines()]
    counts = collections.Counter(
        (k, v == "ok") for row in rows for k, v in row.items() if k != "model"
    )
    for tool in dict.fromkeys(k for k, _ in counts):
        print(f"{tool:16}{counts[tool, True]:5} of {counts[tool, True] + counts[tool, False]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
