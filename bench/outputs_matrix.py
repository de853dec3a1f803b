"""Models against outputs: each is written, loaded by the program that it is for, run, and compared with ONNX Runtime.

usage: outputs_matrix.py OUT.jsonl FOLDER... [--outputs a,b] [--match RE] [--jobs N] [--seconds S] [--retry]
                         [--executorch PYTHON] [--ncnn FOLDER]
       outputs_matrix.py OUT.jsonl --summary

A row of OUT.jsonl is a cell: model, output, state and why. Cells that are there are not tried again, but for those that
are not ok with --retry; the last row of a cell counts. Outputs:
    source, pth      the written module with safetensors and with a state_dict
    pt               TorchScript, by torch.jit.load
    pt2              torch.export.load(...).module()
    onnx             onnx2nn.export_onnx, by ONNX Runtime; names of inputs and outputs and open dims must be the model's
    pte              by ExecuTorch's runtime, in the environment of --executorch
    ncnn, ncnn-onnx  x.pt, or ONNX exported again for pnnx, through pnnx and ncnn, whose programs lie in --ncnn; one row of a batch
States: ok; refused (an error of ours says why); failed (the consumer raised); wrong; timeout; crash; unconverted.
Answers are held to `onnx2nn.verify`'s bar (mean squared error below 1e-4 of the variance and 1e-7 of the mean square), NCNN's to 1e-5
of the variance. Where rounding took the source itself past the bar and `verify` finds each operator right, and where nobody knows the
answer, a cell is compared with the source's answers: its note says so. So it does where rounding alone took ONNX again past it.
"""

import argparse
import collections
import contextlib
import importlib.util
import json
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

OUTPUTS = ["source", "pth", "pt", "pt2", "onnx", "pte", "ncnn", "ncnn-onnx"]
_NCNN_BAR = 1e-5


class NotOkError(Exception):
    """A cell that is not there, with a state and a reason."""

    def __init__(self, state: str, why: str) -> None:
        super().__init__(why)
        self.state = state


# ---- A process for the cells of one model ----


@dataclass
class Case:
    """A model with what it is given and what it should answer."""

    path: Path
    folder: Path
    ncnn: Path | None
    proto: Any = None
    feed: dict[str, Any] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)
    by: str = "ONNX Runtime"  # whose the outputs are

    def args(self) -> tuple[Any, ...]:
        """The feed as the module's arguments."""
        from onnx2nn.core import run_native
        from onnx2nn.source import as_source
        from onnx2nn.tensors import to_torch

        inputs = run_native(as_source(self.path), {}).inputs
        return tuple(to_torch(self.feed[str(i["name"])]) for i in inputs)

    def save(self) -> None:
        with (self.folder / "answer.pickle").open("wb") as file:
            pickle.dump((self.feed, self.outputs, self.by), file)

    def load(self) -> None:
        from onnx2nn.check.oracle import read_proto
        from onnx2nn.check.readable import readable
        from onnx2nn.source import as_source

        self.proto = read_proto(readable(as_source(self.path), (), False))
        with (self.folder / "answer.pickle").open("rb") as file:
            self.feed, self.outputs, self.by = pickle.load(file)


def answer(case: Case) -> None:
    """ONNX Runtime's answer; that of the source where nobody has one, on inputs that it takes."""
    from onnx2nn import exporting, load
    from onnx2nn.check import process
    from onnx2nn.check.inputs import Unfit
    from onnx2nn.check.oracle import read_proto
    from onnx2nn.check.readable import readable
    from onnx2nn.check.result import Report
    from onnx2nn.check.verification import find_answer
    from onnx2nn.check.written import run_module
    from onnx2nn.core import run_native
    from onnx2nn.errors import Error
    from onnx2nn.source import as_source

    try:
        inputs = list(run_native(as_source(case.path), {}).inputs)
    except Error as error:
        raise NotOkError("unconverted", first_line(error)) from error
    process.start()
    source = readable(as_source(case.path), (), False)
    case.proto = read_proto(source)
    given = None
    if case.path.with_suffix(".npz").exists():
        stored = np.load(case.path.with_suffix(".npz"))
        given = {k[3:]: stored[k] for k in stored.files if k.startswith("in:")}
    try:
        found = find_answer(source, case.proto, given, None, 0, 1, Report(ok=None))
    except Unfit:
        found = None
    if found is not None:
        case.feed, case.outputs = found.feed, found.outputs
    else:
        net = load(case.path)
        args = exporting._example(net, inputs, source)
        case.feed = {str(i["name"]): numpy_of(a) for i, a in zip(inputs, args, strict=True)}
        case.outputs, case.by = run_module(net, case.feed, case.proto), "the source"
    case.save()


def numpy_of(value: Any) -> Any:
    from onnx2nn.tensors import to_numpy

    return to_numpy(value, None)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' | '.join(lines[:3])}"[:500]


def difference(case: Case, got: list[Any]) -> str:
    """Why the answers are not the model's; empty where they are."""
    from onnx2nn.check.compare import compare

    if len(got) != len(case.outputs):
        return f"{len(got)} outputs instead of {len(case.outputs)}"
    for o, want, g in zip(case.proto.graph.output, case.outputs, got, strict=True):
        found = compare(o.name, want, g, check_dtype=False)
        if not found.ok:
            return f"output {o.name}: {found.reason}"
    return ""


def by_module(case: Case, net: Any) -> list[Any]:
    from onnx2nn.check.written import run_module

    try:
        return run_module(net, case.feed, case.proto)
    except Exception as error:
        raise NotOkError("failed", first_line(error)) from error


def written(case: Case, name: str) -> Path:
    """The model converted to a file of the case's folder."""
    import onnx2nn

    path = case.folder / name
    try:
        onnx2nn.convert(case.path, path, force=True)
    except onnx2nn.Error as error:
        raise NotOkError("refused", first_line(error)) from error
    return path


def imported(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def source(case: Case) -> str:
    path = written(case, "of_source.py")
    got = by_module(case, imported(path, "of_source"))
    why = difference(case, got)
    if not why:
        return "" if case.by == "ONNX Runtime" else "compared with itself"
    if not rounded(case, path, got):
        raise NotOkError("wrong", why)
    return "rounding"


def rounded(case: Case, path: Path, got: list[Any]) -> bool:
    """Whether it is rounding alone that took the source to `got`, which is then what others are held to."""
    import onnx2nn

    if onnx2nn.verify(case.path, path, inputs=case.feed).ok is not True:
        return False
    case.outputs, case.by = got, "the source"
    case.save()
    return True


def pth(case: Case) -> str:
    import torch

    path = written(case, "of_pth.pth")
    torch.load(path, weights_only=True, mmap=True)
    return checked(case, by_module(case, imported(path.with_suffix(".py"), "of_pth")))


def pt(case: Case) -> str:
    import torch

    path = written(case, "net.pt")
    try:
        net = torch.jit.load(str(path))
    except Exception as error:
        raise NotOkError("failed", first_line(error)) from error
    return checked(case, by_module(case, net))


def pt2(case: Case) -> str:
    import torch

    path = written(case, "net.pt2")
    try:
        net = torch.export.load(str(path)).module()
    except Exception as error:
        raise NotOkError("failed", first_line(error)) from error
    return checked(case, by_module(case, net))


def again(case: Case, *, for_pnnx: bool = False) -> Path:
    """The model exported to ONNX again."""
    import onnx2nn

    path = case.folder / ("for_pnnx.onnx" if for_pnnx else "again.onnx")
    if not path.exists():
        try:
            onnx2nn.export_onnx(onnx2nn.load(case.path), case.path, path, for_pnnx=for_pnnx)
        except onnx2nn.Error as error:
            raise NotOkError("refused", first_line(error)) from error
    return path


def onnx(case: Case) -> str:
    import onnxruntime

    from onnx2nn.core import run_native
    from onnx2nn.source import as_source

    path = again(case)
    interface = run_native(as_source(case.path), {})
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        inputs = {i.name: i.shape for i in session.get_inputs()}
        got = session.run(None, {k: v for k, v in case.feed.items() if k in inputs})
    except Exception as error:
        raise NotOkError("failed", first_line(error)) from error
    note = checked(case, got, path)
    wanted = {str(i["name"]): i["shape"] for i in interface.inputs}
    unread = [k for k in wanted if k not in inputs]
    names = [o.name for o in session.get_outputs()]
    if unread or names != [str(o["name"]) for o in interface.outputs]:
        raise NotOkError("wrong", f"inputs {[*inputs]}, outputs {names}")
    fixed = [
        f"{name} axis {axis}"
        for name, shape in wanted.items()
        for axis, (w, have) in enumerate(zip(shape or [], inputs[name]))
        if not isinstance(w, int) and isinstance(have, int)
    ]
    return "; ".join(filter(None, [note, f"fixed: {', '.join(fixed)}" if fixed else ""]))


def pte(case: Case) -> str:
    from executorch.runtime import Runtime

    path = written(case, "net.pte")
    try:
        method = Runtime.get().load_program(path).load_method("forward")
        got = [numpy_of(y) for y in method.execute(case.args())]
    except Exception as error:
        raise NotOkError("failed", first_line(error)) from error
    return checked(case, got)


def checked(case: Case, got: list[Any], again: Path | None = None) -> str:
    """again: where the answers are those of a model."""
    import onnx2nn

    why = difference(case, got)
    if why and case.by == "ONNX Runtime" and "mean squared error" in why:
        path = written(case, "of_source.py")
        of_source = by_module(case, imported(path, "of_source"))
        if difference(case, of_source) and rounded(case, path, of_source):
            why = difference(case, got)
    is_of_numbers = again is not None and "mean squared error" in why
    if is_of_numbers and onnx2nn.verify(case.path, again, inputs=case.feed).ok is True:
        return "rounding"
    if why:
        raise NotOkError("wrong", why)
    return "" if case.by == "ONNX Runtime" else "compared with the source"


# ---- NCNN ----

RUN_NCNN = """
import sys
import ncnn, numpy as np
with open(sys.argv[1] + ".ncnn.param") as file:
    layers = {line.split()[0] for line in file.read().splitlines()[2:]}
unknown = sorted(x for x in layers if ncnn.layer_to_index(x) < 0)
if unknown:
    sys.exit("NCNN has no layer for " + ", ".join(unknown))
given = np.load("ncnn_in.npz")
net = ncnn.Net()
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
assert net.load_param(sys.argv[1] + ".ncnn.param") == 0 and net.load_model(sys.argv[1] + ".ncnn.bin") == 0
extractor = net.create_extractor()
for k in range(len(given.files)):
    x = np.ascontiguousarray(given[f"in{k}"])  # kept while ncnn.Mat borrows its memory
    extractor.input(f"in{k}", ncnn.Mat(x).clone())
out = {}
for k in range(int(sys.argv[2])):
    state, y = extractor.extract(f"out{k}")
    assert state == 0, f"out{k}: {state}"
    out[f"out{k}"] = np.array(y)
np.savez("ncnn_out.npz", **out)
"""
_PNNX_TYPES = {"float32": "f32", "int64": "i64", "int32": "i32", "bool": "u8"}


def one_row(case: Case) -> None:
    """The case for a batch of one: NCNN's values have no axis for it."""
    from onnx2nn.check.oracle import Runtime, model_folder, oracle_model
    from onnx2nn.check.readable import readable
    from onnx2nn.source import as_source

    odd = {str(x.dtype) for x in case.feed.values() if str(x.dtype) not in _PNNX_TYPES}
    if odd:
        raise NotOkError("refused", f"inputs of {', '.join(sorted(odd))}")
    if any(not isinstance(x, np.ndarray) or x.ndim == 0 for x in case.feed.values()):
        raise NotOkError("refused", "inputs without a batch")
    if all(len(x) == 1 for x in case.feed.values()):
        return
    source = readable(as_source(case.path), (), False)
    case.feed = {k: x[:1] for k, x in case.feed.items()}
    try:
        runtime = Runtime(oracle_model(source), model_folder(source), 1)
        case.outputs, case.by = runtime.run(case.feed), "ONNX Runtime"
    except Exception as error:
        raise NotOkError("refused", f"no batch of one: {first_line(error)}") from error


def by_ncnn(case: Case, path: Path) -> str:
    assert case.ncnn is not None
    shapes = ",".join(
        str(list(x.shape)).replace(" ", "") + _PNNX_TYPES[str(x.dtype)] for x in case.feed.values()
    )
    command = [case.ncnn / "pnnx", path.name, f"inputshape={shapes}", "fp16=0"]
    env = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, env=env)
    param = path.parent / f"{path.stem}.ncnn.param"
    if done.returncode != 0 or not param.exists():
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise NotOkError("failed", f"pnnx: {done.returncode} {last}")
    feed = {f"in{k}": ncnn_value(x) for k, x in enumerate(case.feed.values())}
    np.savez(path.parent / "ncnn_in.npz", **feed)
    python = [case.ncnn / "python", "-c", RUN_NCNN, path.stem, str(len(case.outputs))]
    done = subprocess.run(python, cwd=path.parent, capture_output=True, text=True, env=env)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        if "".join(last).startswith("NCNN has no layer"):  # what pnnx left over, by name
            raise NotOkError("refused", last[0])
        raise NotOkError("failed", f"ncnn: {done.returncode} {last}")
    got = np.load(path.parent / "ncnn_out.npz")
    for k, want in enumerate(case.outputs):
        y = got[f"out{k}"]
        if not isinstance(want, np.ndarray) or y.size != want.size:
            raise NotOkError("wrong", f"output {k}: shape {y.shape} instead of {np.shape(want)}")
        gap = float(np.square(y.reshape(want.shape).astype("d") - want.astype("d")).mean())
        bar = _NCNN_BAR * max(float(want.astype("d").var()), 1e-6)
        if not gap <= bar:
            raise NotOkError("wrong", f"output {k}: mean squared error {gap:.3g} against {bar:.3g}")
    return ""


def ncnn_value(x: Any) -> Any:
    """Without the batch; integers in 32 bits."""
    return x[0].astype("f" if x.dtype.kind == "f" else "i4")


def ncnn(case: Case) -> str:
    one_row(case)
    return by_ncnn(case, written(case, "net.pt"))


def ncnn_onnx(case: Case) -> str:
    one_row(case)
    return by_ncnn(case, again(case, for_pnnx=True))


CELLS: dict[str, Callable[[Case], str]] = {
    "source": source,
    "pth": pth,
    "pt": pt,
    "pt2": pt2,
    "onnx": onnx,
    "pte": pte,
    "ncnn": ncnn,
    "ncnn-onnx": ncnn_onnx,
}


def cells(case: Case, outputs: list[str]) -> None:
    """Tries the outputs one by one, and prints a row before and after each."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    def say(**row: Any) -> None:
        print("ROW" + json.dumps(row), flush=True)

    for output in outputs:
        began = time.time()
        say(output=output, state="began")
        try:
            if output == "answer":
                answer(case)
                note = case.by
            else:
                case.load()
                note = CELLS[output](case)
            row = {"state": "ok", "why": note}
        except NotOkError as found:
            row = {"state": found.state, "why": str(found)}
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            row = {"state": "failed", "why": f"{first_line(error)} ({where})"}
        say(output=output, seconds=round(time.time() - began, 1), **row)


# ---- All of them ----


def of_process(command: list[str], outputs: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """The rows of the outputs, from as many processes as it takes to get past what hangs or crashes."""
    left = list(outputs)
    while left:
        lines: queue.Queue[str | None] = queue.Queue()
        process = subprocess.Popen(
            [*command, "--outputs", ",".join(left)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        def read(stream: Any = process.stdout, lines: queue.Queue[str | None] = lines) -> None:
            for line in stream:
                lines.put(line)
            lines.put(None)

        errors: list[str] = []

        def note(stream: Any = process.stderr, errors: list[str] = errors) -> None:
            errors.extend(stream)

        threads = [threading.Thread(target=t, daemon=True) for t in (read, note)]
        for t in threads:
            t.start()
        try:
            while left:
                line = lines.get(timeout=seconds)
                if line is None:
                    process.wait()
                    threads[1].join()
                    why = f"{process.returncode}: {''.join(errors).strip()[-300:]}"
                    yield {"output": left.pop(0), "state": "crash", "why": why}
                    break
                if not line.startswith("ROW"):
                    continue
                row = json.loads(line[3:])
                if row["state"] != "began":
                    left.remove(row["output"])
                    yield row
        except queue.Empty:
            yield {"output": left.pop(0), "state": "timeout", "why": f"{seconds:.0f} s"}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Table:
    """The rows of a file, and which cells are still to be tried."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["model"], row["output"]] = row

    def add(self, model: str, row: dict[str, Any]) -> None:
        row = {"model": model, **row}
        with self.lock:
            self.rows[model, row["output"]] = row
            with self.path.open("a") as out:
                out.write(json.dumps(row) + "\n")
        if row["state"] != "ok":
            print(model, row["output"], row["state"], row["why"][:200], flush=True)


def one_model(table: Table, path: Path, name: str, a: argparse.Namespace) -> None:
    def wanted(output: str) -> bool:
        row = table.rows.get((name, output))
        return row is None or (a.retry and row["state"] not in ("ok", "unconverted"))

    unconverted = table.rows.get((name, "answer"), {}).get("state") == "unconverted"
    outputs = [o for o in a.outputs.split(",") if wanted(o)]
    if not outputs or (unconverted and not a.retry):
        return
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        base = [str(x) for x in (__file__, a.out, path, "--one", folder, "--ncnn", a.ncnn or "")]
        for row in of_process([sys.executable, *base], ["answer"], a.seconds):
            table.add(name, row)
            if row["state"] != "ok":
                return
        by_torch = [o for o in outputs if o != "pte"]
        for row in of_process([sys.executable, *base], by_torch, a.seconds):
            table.add(name, row)
        if "pte" in outputs:
            for row in of_process([str(a.executorch), *base], ["pte"], a.seconds):
                table.add(name, row)


def summary(table: Table) -> None:
    """A table of folders against outputs, then what is not ok, by reason."""
    sets = sorted({m.split("/")[0] for m, _ in table.rows})
    seen = [o for o in ["answer", *OUTPUTS] if any(o == x for _, x in table.rows)]
    print("| set | " + " | ".join(seen) + " |\n|---" * 1 + "|---" * len(seen) + "|")
    for s in sets:
        counts = []
        for o in seen:
            states = [
                r["state"] for (m, x), r in table.rows.items() if x == o and m.split("/")[0] == s
            ]
            counts.append(f"{states.count('ok')} of {len(states) - states.count('unconverted')}")
        print(f"| {s} | " + " | ".join(counts) + " |")
    groups: dict[tuple[str, str, str], list[str]] = collections.defaultdict(list)
    for (m, o), r in table.rows.items():
        if r["state"] != "ok":
            why = re.sub(r"/\S+: ", "", r["why"])
            why = re.sub(r"\(line \d+.*|0x[0-9a-f]+|\d+(\.\d+)?(e-?\d+)?", "#", why)
            groups[o, r["state"], why[:110]].append(m)
    for (o, state, why), models in sorted(groups.items(), key=lambda g: (g[0][0], -len(g[1]))):
        print(f"{o:10} {state:8} {len(models):4}  {why}   e.g. {', '.join(models[:3])}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--outputs", default="source,pth,pt")
    parser.add_argument("--match", default="", help="only names that this regular expression finds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300, help="for each cell")
    parser.add_argument("--retry", action="store_true", help="cells that are not ok, once more")
    parser.add_argument("--executorch", type=Path, help="the Python of its environment")
    parser.add_argument("--ncnn", help="the folder of its environment's programs")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        case = Case(a.folders[0], a.one, Path(a.ncnn) if a.ncnn else None)
        cells(case, a.outputs.split(","))
        return 0
    unknown = set(a.outputs.split(",")) - {*OUTPUTS}
    if unknown:
        parser.error(f"no such outputs: {', '.join(sorted(unknown))}")
    if "pte" in a.outputs and a.executorch is None:
        parser.error("pte needs --executorch")
    if "ncnn" in a.outputs and a.ncnn is None:
        parser.error("ncnn needs --ncnn")
    table = Table(a.out)
    if not a.summary:
        with ThreadPoolExecutor(a.jobs) as pool:
            jobs = []
            for folder in a.folders:
                for path in sorted(folder.rglob("*.onnx")):
                    name = f"{folder.name}/{path.relative_to(folder).with_suffix('')}"
                    if re.search(a.match, name):
                        jobs.append(pool.submit(one_model, table, path, name, a))
            for job in jobs:
                job.result()
    summary(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
