"""Converters and simplifiers side by side on the project's own models; docs/neighbours.md has the tables.

    zoovenv/bin/python bench/neighbours.py make MODELS  # of bench/zoo-requirements.txt
    python -m venv n
    n/bin/pip install onnx2torch==1.5.15 onnx2pytorch==0.6.0 onnxsim==0.8.1 onnxslim==0.1.98 onnxruntime safetensors torchvision
    PYTHONPATH=python n/bin/python bench/neighbours.py run MODELS out.jsonl
    PYTHONPATH=python n/bin/python bench/neighbours.py table out.jsonl

Each tool gets each model in a process of its own, with two minutes. "Right" is one bar for all: a mean squared error
below 1e-7 of ONNX Runtime's outputs (scaled by their mean square where that is above 1), and equal integers. "Trains"
is that a backward pass in training mode gives most of the float weights of the file's size a gradient. Times are of the
processor, without the import of the tool.
"""

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).parents[1]
CONVERTERS = ("onnx2nn", "onnx2torch", "onnx2pytorch")
SIMPLIFIERS = ("onnx2nn simplify", "onnxsim", "onnxslim")
SECONDS = 120
_SEED = 0


# ---- Models ----


def make(folder: Path) -> None:
    """Examples, goldens, and what torch's exporters and ONNX Runtime's quantiser make."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [ROOT / "examples" / "digits.onnx", *(ROOT / "tests" / "golden").glob("*.onnx")]:
        shutil.copy(path, folder / path.name)
    import torch
    from onnxruntime.quantization import QuantFormat, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from torch import nn
    from zoo_networks import tv  # torchvision.models

    torch.manual_seed(_SEED)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(16, 32, num_layers=2, bidirectional=True, batch_first=True)
            self.fc = nn.Linear(64, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.lstm(x)[0][:, -1])

    image = torch.rand(2, 3, 64, 64)
    encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    nets: dict[str, tuple[nn.Module, torch.Tensor, bool]] = {
        "resnet18": (tv.resnet18(), image, True),
        "resnet18-torchscript": (tv.resnet18(), image, False),
        "mobilenet_v3_small": (tv.mobilenet_v3_small(), image, True),
        "vit_b_16": (tv.vit_b_16(image_size=64), image, True),
        "lstm": (Recurrent(), torch.rand(2, 7, 16), False),
        "encoder": (encoder, torch.rand(2, 6, 32), True),
    }
    for name, (net, example, dynamo) in nets.items():
        how: dict[str, Any] = {"dynamo": dynamo, "input_names": ["x"], "output_names": ["y"]}
        if dynamo:
            how |= {"dynamic_shapes": ({0: "batch"},), "external_data": False, "verbose": False}
        else:
            how |= {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}}
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(net.eval(), (example,), str(folder / f"{name}.onnx"), **how)

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [np.random.default_rng(i).random((1, 1, 8, 8), "f") for i in range(8)]

        def get_next(self) -> Any:
            return {"image": self.left.pop()} if self.left else None

    for name, form in (
        ("digits-qdq", QuantFormat.QDQ),
        ("digits-qoperator", QuantFormat.QOperator),
    ):
        quantize_static(
            str(folder / "digits.onnx"), str(folder / f"{name}.onnx"), Images(), quant_format=form
        )


def feeds(model: onnx.ModelProto, batch: int) -> dict[str, Any]:
    """Seeded inputs; open dims are the batch, then 5."""
    random = np.random.default_rng(_SEED)
    stored = {t.name for t in model.graph.initializer}
    out: dict[str, Any] = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        kind = value.type.tensor_type
        dims = [d.dim_value or (batch if i == 0 else 5) for i, d in enumerate(kind.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype == np.bool_:
            out[value.name] = np.ones(dims, bool)
        elif np.issubdtype(dtype, np.integer):
            out[value.name] = random.integers(0, 4, dims).astype(dtype)
        else:
            out[value.name] = random.normal(size=dims).astype(dtype)
    return out


def answer(path: Path, feed: dict[str, Any]) -> list[Any]:
    """ONNX Runtime's outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return list(session.run(None, feed))


def is_right(got: list[Any], want: list[Any]) -> bool:
    """Whether all outputs are within the bar."""
    if len(got) != len(want):
        return False
    for g, w in zip(got, want):
        if g.shape != w.shape:
            return False
        if not np.issubdtype(w.dtype, np.floating):
            if not np.array_equal(g, w):
                return False
            continue
        difference = np.mean(np.square(g.astype(float) - w)) if w.size else 0.0
        scale = max(1.0, np.mean(np.square(w.astype(float)))) if w.size else 1.0
        if not difference < 1e-7 * scale:
            return False
    return True


# ---- Converters ----


def converted(tool: str, path: Path, folder: Path) -> tuple[Any, int, float]:
    """The module, how many lines of source it came with, and the processor time that it took."""
    importlib.import_module(tool)
    began = time.process_time()
    lines = 0
    if tool == "onnx2nn":
        import onnx2nn

        onnx2nn.convert(path, folder / "page.py")
        sys.path.insert(0, str(folder))
        net = importlib.import_module("page").load()
        lines = (folder / "page.py").read_text().count("\n")
    elif tool == "onnx2torch":
        import onnx2torch

        net = onnx2torch.convert(str(path))
    else:
        import onnx2pytorch

        net = onnx2pytorch.ConvertModel(onnx.load(path), experimental=True)
    return net, lines, time.process_time() - began


def outputs(net: Any, feed: dict[str, Any]) -> list[Any]:
    """What a module gives, as a list of tensors."""
    import torch

    got = net(*[torch.from_numpy(v) for v in feed.values()])
    return list(got) if isinstance(got, (tuple, list)) else [got]


def trains(net: Any, feed: dict[str, Any], weights: int) -> bool:
    """Whether most of the weights get a gradient in training mode."""
    import torch

    net.train()
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    loss = sum(o.float().square().mean() for o in outputs(net, feed) if torch.is_floating_point(o))
    loss.backward()
    reached = sum(
        p.numel() for p in net.parameters() if p.grad is not None and bool(p.grad.isfinite().all())
    )
    return bool(reached >= 0.7 * weights)


def float_weights(model: onnx.ModelProto) -> int:
    """Elements of the file's float tensors, without scalars and small tables."""
    sizes = [int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == 1]
    return sum(s for s in sizes if s > 1)


def attempt(row: dict[str, Any], key: str, test: Callable[[], bool]) -> None:
    """Note whether a test holds; what it raises is a no, and the first such text is kept."""
    try:
        row[key] = test()
    except Exception as error:  # whatever a tool or its module raises
        row[key] = False
        row.setdefault("error", f"{key}: {described(error)}")


def described(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


def open_batch(model: onnx.ModelProto) -> bool:
    """Whether an input leaves its first dim open."""
    return any(not d.dim_value for v in model.graph.input for d in v.type.tensor_type.shape.dim[:1])


def try_converter(tool: str, path: Path) -> dict[str, Any]:
    """One row: converts, right, right at another batch, trains, exports, lines, seconds."""
    import torch

    torch.manual_seed(_SEED)
    row: dict[str, Any] = {"tool": tool, "model": path.stem}
    model = onnx.load(path)
    feed = feeds(model, 1)
    arguments = tuple(torch.from_numpy(v) for v in feed.values())

    def agrees(feed: dict[str, Any], want: list[Any]) -> bool:
        with torch.no_grad():
            return is_right([o.numpy() for o in outputs(net, feed)], want)

    with tempfile.TemporaryDirectory() as folder:
        net, row["lines"], seconds = converted(tool, path, Path(folder))
        row |= {"seconds": round(seconds, 3), "converts": True}
        net.eval()
        attempt(row, "right", lambda: agrees(feed, answer(path, feed)))
        if open_batch(model):
            three = feeds(model, 3)
            attempt(row, "batch", lambda: agrees(three, answer(path, three)))
        attempt(row, "exports", lambda: bool(torch.export.export(net, arguments)))
        weights = float_weights(model)
        if weights > 100:
            attempt(row, "trains", lambda: trains(net, feed, weights))
    return row


def try_simplifier(tool: str, path: Path) -> dict[str, Any]:
    """One row: right, nodes before and after, seconds."""
    model = onnx.load(path)
    row: dict[str, Any] = {"tool": tool, "model": path.stem, "nodes": len(model.graph.node)}
    feed = feeds(model, 1)
    want = answer(path, feed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "small.onnx")
        importlib.import_module(tool.split()[0])
        began = time.process_time()
        if tool == "onnxsim":
            import onnxsim

            onnx.save(onnxsim.simplify(model)[0], out)
        elif tool == "onnxslim":
            import onnxslim

            onnx.save(onnxslim.slim(model), out)
        else:
            import onnx2nn

            onnx.save(onnx2nn.simplify(path, check_n=0)[0], out)
        row["seconds"] = round(time.process_time() - began, 3)
        row["converts"] = True
        row["after"] = len(onnx.load(out).graph.node)
        row["right"] = is_right(answer(out, feed), want)
    return row


# ---- All of them ----


def _child(work: Callable[[str, Path], dict[str, Any]], tool: str, path: Path, pipe: Any) -> None:
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        try:
            row = work(tool, path)
        except Exception as error:
            row = {"tool": tool, "model": path.stem, "converts": False, "error": described(error)}
    pipe.send(row)


def run(folder: Path, out: Path) -> None:
    """Write a row for each tool and model."""
    from load_torchvision import load_torchvision

    # Before the processes are forked: what each would import.
    load_torchvision()
    import onnxruntime  # noqa: F401
    import torch

    torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))
    forked = multiprocessing.get_context("fork")
    with out.open("w") as file:
        for tool in (*CONVERTERS, *SIMPLIFIERS):
            work = try_converter if tool in CONVERTERS else try_simplifier
            for path in sorted(folder.glob("*.onnx")):
                ours, theirs = forked.Pipe()
                child = forked.Process(target=_child, args=(work, tool, path, theirs))
                child.start()
                theirs.close()
                row: dict[str, Any] = {"tool": tool, "model": path.stem, "converts": False}
                try:
                    row = ours.recv() if ours.poll(SECONDS) else row | {"error": "two minutes"}
                except EOFError:
                    row["error"] = "crashed"
                child.kill()
                child.join()
                print(json.dumps(row), file=file, flush=True)
                print(json.dumps(row))


def _share(rows: list[dict[str, Any]], key: str) -> str:
    # What did not convert is no better for not having been asked.
    asked = [r for r in rows if key in r or not r.get("converts")]
    return f"{sum(bool(r.get(key)) for r in asked)} of {len(asked)}"


def table(path: Path) -> None:
    """Print both tables as Markdown, and what failed."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # A model is asked about what any tool was asked about it.
    asks = {(r["model"], k) for r in rows for k in ("batch", "trains", "exports") if k in r}
    print(
        "| converter | converts | right | another batch | trains | torch.export | source | median time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for tool in CONVERTERS:
        mine = [r for r in rows if r["tool"] == tool]
        cells = [_share(mine, "converts"), _share(mine, "right")]
        for key in ("batch", "trains", "exports"):
            cells.append(_share([r for r in mine if (r["model"], key) in asks], key))
        lines = sum(r.get("lines", 0) for r in mine)
        cells.append(f"{lines} lines" if lines else "none")
        cells.append(f"{np.median([r['seconds'] for r in mine if 'seconds' in r]):.2f} s")
        print(f"| {tool} | {' | '.join(cells)} |")
    print("\n| simplifier | runs | right | nodes left, where all three are right | median time |")
    print("|---|---|---|---|---|")
    by = {(r["tool"], r["model"]): r for r in rows}
    common = [
        m
        for m in sorted({r["model"] for r in rows})
        if all(by.get((t, m), {}).get("right") for t in SIMPLIFIERS)
    ]
    before = sum(by[SIMPLIFIERS[0], m]["nodes"] for m in common)
    for tool in SIMPLIFIERS:
        mine = [r for r in rows if r["tool"] == tool]
        after = sum(by[tool, m]["after"] for m in common)
        seconds = np.median([r["seconds"] for r in mine if "seconds" in r])
        cells = [_share(mine, "converts"), _share(mine, "right"), f"{after} of {before}"]
        print(f"| {tool} | {' | '.join(cells)} | {seconds:.2f} s |")
    print()
    for row in rows:
        if not row.get("right"):
            print(f"* {row['tool']}, {row['model']}: {row.get('error', 'wrong')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in {"make": ["folder"], "run": ["folder", "out"], "table": ["out"]}.items():
        command = commands.add_parser(name)
        for word in words:
            command.add_argument(word, type=Path)
    arguments = vars(parser.parse_args())
    {"make": make, "run": run, "table": table}[arguments.pop("command")](
        **{("path" if k == "out" and len(arguments) == 1 else k): v for k, v in arguments.items()}
    )


if __name__ == "__main__":
    main()
