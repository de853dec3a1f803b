"""Several models: each in a process of its own, so that one that fails takes no other along."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

from onnx2nn import _native
from onnx2nn.check.process import how_it_crashed
from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.output import (
    console_on,
    human_bytes,
    paint,
    print_diagnostics,
    print_json,
    print_table,
    printable,
    result,
)
from onnx2nn.cli.parser import Request
from onnx2nn.errors import Error, diagnostic
from onnx2nn.hub import HUB, path_on_hub

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["run_each"]

# From good to bad.
_ORDER = [
    ExitCode.DONE,
    ExitCode.NOT_CHECKED,
    ExitCode.WRONG,
    ExitCode.UNREADABLE,
    ExitCode.USAGE,
    ExitCode.INTERNAL,
    ExitCode.INTERRUPTED,
]
# What is about one model, and cannot be said of several.
_OF_ONE = {
    "class_name": "--class-name",
    "simplify_path": "--simplify_path",
    "report": "--report",
    "list_rules": "--list-rules",
    "per_node": "--per-node",
}
# What the process of a model is told otherwise.
_TOLD = {"model", "more_models", "output", "out", "target", "jobs", "json", "quiet", "check_n"}
_PATIENCE_S = 10.0  # for a process that was asked to end
_POLL_S = 0.05
# A process finds the modules that this one does, and none beside the model.
_CODE = "import sys; sys.path[:] = {path!r}; from onnx2nn.cli import main; sys.exit(main())"


@dataclass
class _Job:
    """A model, what its process is to be told, and what it said in the end."""

    model: str
    words: list[str]
    process: "subprocess.Popen[bytes] | None" = None
    said: IO[bytes] | None = None
    began: float = 0.0
    seconds: float = 0.0
    result: dict[str, Any] | None = None

    @property
    def code(self) -> ExitCode:
        """The exit code of a job that is over."""
        assert self.result is not None
        return ExitCode(self.result["exit_code"])


def run_each(request: Request) -> ExitCode:
    """Run the command for each model; the exit code is that of the worst."""
    a = request.values
    models = [a.model, *a.more_models]
    for name, spelling in _OF_ONE.items():
        if getattr(a, name, None):
            raise Error(f"{spelling} is about one model, and there are {len(models)}", usage=True)
    count = max(1, min(a.jobs or 1, len(models)))
    common = _words(request, count)
    jobs = []
    for model, out in zip(models, _outputs(request.command, models, a), strict=True):
        words = [*common, *([] if out is None else ["-o", out]), "--", model]
        # The number of checks of a simplification has a place and no spelling.
        if getattr(a, "check_n", None) is not None:
            words.append(str(a.check_n))
        jobs.append(_Job(model, words))
    shows = not (a.quiet or a.json)
    done = 0
    with _Watch(len(jobs), shows) as watch:
        for job in _run(jobs, count, watch):
            done += 1
            if not a.json:
                _say(job, done, len(jobs), a.quiet)
    code = max((job.code for job in jobs), key=_ORDER.index)
    if a.json:
        print_json(
            {
                **result(request, code),
                "model": None,
                "checked": all(job.result["checked"] for job in jobs if job.result),
                "models": [job.result for job in jobs],
            }
        )
    elif shows:
        _table(jobs)
    return code


# ---- What is asked ----


def _words(request: Request, count: int) -> list[str]:
    """The command and its options, without the model and its output."""
    a = request.values
    table = next(c for c in _native.command_line() if c["name"] == request.command)
    words = [str(request.command), "--json"]
    for option in table["options"]:
        name = option["name"]
        value = getattr(a, name, None)
        if name in _TOLD or value is None or value is False:
            continue
        if name == "threads" and not value and count > 1:
            value = _threads(count)
        for one in value if isinstance(value, list) else [value]:
            words.append(option["spellings"][0])
            if one is not True:
                words.append(_word(one))
    return words


def _word(value: Any) -> str:
    if isinstance(value, tuple):  # a shape
        name, dims = value
        return f"{name}:" * bool(name) + ",".join("-1" if d is None else str(d) for d in dims)
    return str(value)


def _threads(count: int) -> int:
    return max(1, (os.cpu_count() or 1) // count)


def _outputs(command: str | None, models: list[str], a: SimpleNamespace) -> Sequence[str | None]:
    """Where each model's output goes: one folder, or, where names meet there, the models' own below it.

    Raises Error where two would go to one place all the same, or one would replace another model.
    """
    if command == "verify":
        return [None] * len(models)
    folder = str(getattr(a, "output", None) or getattr(a, "out", None) or "")
    is_folder = not folder or folder.endswith(("/", os.sep)) or os.path.isdir(folder)
    if not is_folder and os.path.splitext(folder)[1]:
        raise Error(f"{folder}: several models are written to a folder: -o FOLDER", usage=True)
    places = [_place(m) for m in models]
    folders = [os.path.join(folder, "") or "./"] * len(models)
    meeting = [k for met in _meeting(command, places, folders) for k in met]
    if meeting:
        own = [os.path.dirname(os.path.abspath(places[k])) for k in meeting]
        for k, where in zip(meeting, _told_apart(own), strict=True):
            folders[k] = os.path.join(folder, where, "")
    for met in _meeting(command, places, folders):
        files = _files(command, places[met[0]], folders[met[0]])
        names = " and ".join(models[k] for k in met[:2])
        raise Error(f"{names} would both be written to {os.path.normpath(files[0])}", usage=True)
    inputs = {os.path.realpath(m): m for m in models}
    for model, place, where in zip(models, places, folders, strict=True):
        for file in _files(command, place, where):
            if os.path.realpath(file) in inputs:
                raise Error(
                    f"{model} would be written to {file}, which is one of the models", usage=True
                )
    return folders


def _told_apart(folders: list[str]) -> list[str]:
    """What absolute folders do not share, as relative ones."""
    try:
        top = os.path.commonpath(folders)
    except ValueError:  # of several drives: what lies on C: goes below C
        parts = map(os.path.splitdrive, folders)
        return [re.sub(r"\W+", "_", drive).strip("_") + rest for drive, rest in parts]
    return [os.path.normpath(os.path.relpath(where, top)) for where in folders]


def _place(model: str) -> str:
    """A model's path, or what stands for one of a hub."""
    if not model.startswith(HUB):
        return model
    repository, _, file = path_on_hub(model)
    return os.path.join(repository, file)


def _files(command: str | None, model: str, folder: str) -> list[str]:
    if command == "simplify":
        return [str(_native.simplified_path(model, folder))]
    return [str(f) for f in _native.output_paths(model, folder)]


def _meeting(command: str | None, models: list[str], folders: list[str]) -> list[list[int]]:
    """The models that would be written to one place."""
    by_file: defaultdict[str, list[int]] = defaultdict(list)
    for k, (model, folder) in enumerate(zip(models, folders, strict=True)):
        by_file[os.path.abspath(_files(command, model, folder)[0])].append(k)
    return [found for found in by_file.values() if len(found) > 1]


# ---- The processes ----


def _run(jobs: list[_Job], count: int, watch: "_Watch") -> Iterator[_Job]:
    """Run the jobs, so many at once; gives each when it is over. All end where this one does."""
    code = _CODE.format(path=[os.path.abspath(p) for p in sys.path])
    environment = dict(os.environ)
    if count > 1:
        environment.setdefault("OMP_NUM_THREADS", str(_threads(count)))
    waiting = list(reversed(jobs))
    running: list[_Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < count:
                job = waiting.pop()
                job.said = tempfile.TemporaryFile()  # noqa: SIM115 (closed where it is read)
                job.began = time.monotonic()
                running.append(job)
                job.process = subprocess.Popen(
                    [sys.executable, "-c", code, *job.words],
                    stdin=subprocess.DEVNULL,
                    stdout=job.said,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for us
                )
                watch.begin(job)
            time.sleep(_POLL_S)
            for job in [j for j in running if j.process and j.process.poll() is not None]:
                running.remove(job)
                job.seconds = time.monotonic() - job.began
                job.result = _answer(job)
                watch.end(job)
                yield job
    finally:
        _stop([job.process for job in running if job.process])
        for job in running:
            if job.said:
                job.said.close()


def _stop(processes: "list[subprocess.Popen[bytes]]") -> None:
    """End processes: each removes what it has begun, and one that does not end in time is killed."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + _PATIENCE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            if sys.platform == "win32":  # what it has started ends with it
                process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answer(job: _Job) -> dict[str, Any]:
    """What the process of a job said, or what is to be said of one that died."""
    assert job.said is not None
    assert job.process is not None
    with job.said as file:
        file.seek(0)
        text = file.read()
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict) and "exit_code" in found:
            return found
    code = job.process.returncode
    why = f"signal {-code}" if code < 0 else f"exit code {code}"
    if (how := how_it_crashed(code)) and how != why:
        why += f" ({how})"
    message = f"{job.model}: its process died of {why}, as one does that needs too much memory"
    return {
        "command": job.words[0],
        "model": job.model,
        "ok": False,
        "checked": False,
        "exit_code": int(ExitCode.INTERNAL),
        "error": message,
        "diagnostics": [diagnostic("internal", message)],
    }


# ---- What is shown ----


class _Watch:
    """A bar over all models, and a line for each that is at work; on a terminal, where rich is."""

    def __init__(self, total: int, shows: bool) -> None:
        self._total = total
        self._console = console_on(sys.stderr) if shows else None
        self._progress: Progress | None = None
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> "_Watch":
        if self._console is not None:
            from rich import progress as rich

            self._progress = rich.Progress(
                rich.BarColumn(20),
                rich.TextColumn("{task.description}", markup=False),
                rich.TimeElapsedColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._progress.start()
            self._all = self._progress.add_task(f"{self._total} models", total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def begin(self, job: _Job) -> None:
        """A job is at work."""
        if self._progress is not None:
            self._tasks[id(job)] = self._progress.add_task(printable(job.model), total=None)

    def end(self, job: _Job) -> None:
        """A job is over."""
        if self._progress is not None:
            self._progress.remove_task(self._tasks.pop(id(job)))
            self._progress.advance(self._all)


_COLOURS = {
    ExitCode.DONE: "32",
    ExitCode.NOT_CHECKED: "33",
}


def _verdict(found: dict[str, Any]) -> tuple[str, str]:
    """What came of a model, in a word, and why where it is not good."""
    check = found.get("check") or {}
    why = str(found.get("error") or check.get("error") or check.get("skipped") or "")
    code = ExitCode(found["exit_code"])
    if code is ExitCode.DONE:
        return ("right", "") if found["checked"] else ("done", "")
    if code is ExitCode.NOT_CHECKED:
        return "NOT CHECKED", why
    if code is ExitCode.WRONG and check:
        first = check.get("first_difference")
        worst = next((o["reason"] for o in check.get("outputs", []) if not o["ok"]), "")
        at = f"node {first['node'] or '(unnamed)'} ({first['op_type']})" if first else ""
        return "WRONG", at or str(worst or why)
    errors = [d for d in found["diagnostics"] if d.get("severity") == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        why = f"{errors[0]['message']}{more}"
    words = {ExitCode.WRONG: "refused", ExitCode.UNREADABLE: "unreadable"}
    why = why.split("\n")[0].removeprefix(f"{found['model']}: ")
    return words.get(code, "failed"), why


def _nodes(found: dict[str, Any]) -> str:
    stats = found.get("stats") or found.get("simplified") or {}
    if "nodes_before" not in stats:
        return ""
    before, after = stats["nodes_before"], stats["nodes_after"]
    return str(before) if before == after else f"{before} -> {after}"


def _weights(found: dict[str, Any]) -> str:
    stats = found.get("stats") or found.get("simplified") or {}
    size = stats.get("weight_bytes", stats.get("weight_bytes_after"))
    return "" if size is None else human_bytes(size)


def _say(job: _Job, done: int, total: int, quiet: bool) -> None:
    """A line about a model that is over; where it has several faults, each on stderr."""
    found = job.result
    assert found is not None
    if quiet and job.code is ExitCode.DONE:
        return
    word, why = _verdict(found)
    parts = [paint(sys.stdout, word, _COLOURS.get(job.code, "31"))]
    if why:
        parts[0] += f": {printable(why)}"
    if nodes := _nodes(found):
        parts.append(f"{nodes} node{'' if nodes == '1' else 's'}")
    if weights := _weights(found):
        parts.append(f"{weights} of weights")
    parts.append(f"{job.seconds:.1f} s")
    files = found.get("files") or []
    if files:
        parts.append(f"wrote {printable(', '.join(map(str, files)))}")
    print(f"[{done}/{total}] {printable(job.model)}: {', '.join(parts)}")
    sys.stdout.flush()
    errors = [d for d in found["diagnostics"] if d.get("severity") == "error"]
    if len(errors) > 1:
        print_diagnostics(job.model, errors)


def _table(jobs: list[_Job]) -> None:
    """All models in the order in which they were given."""
    rows = []
    for job in jobs:
        assert job.result is not None
        word, why = _verdict(job.result)
        rows.append(
            [
                job.model,
                _nodes(job.result),
                _weights(job.result),
                f"{job.seconds:.1f}",
                f"{word}: {why}" if why else word,
            ]
        )
    print()
    print_table(["model", "nodes", "weights", "seconds", "result"], rows, right=range(1, 4))
