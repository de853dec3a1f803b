"""Checks and reports on several threads at once: what a process has one of is left as it was."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
import torch
from torch import nn

import onnx2nn
from onnx2nn.check import process
from onnx2nn.check.bounds import unfused
from onnx2nn.check.oracle import Runtime
from onnx2nn.check.written import seeded
from onnx2nn.report import write

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"
RELU = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x) => (float[n] y) { y = Relu (x) }"""
# How long one waits for another thread that should not come.
A_WHILE_S = 0.2


def all_at_once(times: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` gives for each of the first numbers, each on a thread of its own."""
    ready = threading.Barrier(times)
    found: list[Any] = [None] * times

    def one(k: int) -> None:
        try:
            ready.wait()
            found[k] = work(k)
        except Exception as error:  # for the assertion
            found[k] = error

    threads = [threading.Thread(target=one, args=(k,)) for k in range(times)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


def test_limits_are_those_of_the_thread_that_sets_them() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with process.allowing(seconds=5.0):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    with process.allowing(seconds=7.0):
        leave.set()
        thread.join()
        assert process.limits.seconds == 7.0
    assert process.limits.seconds == process.TIMEOUT_S


class _WatchedLock:
    """A lock that says that somebody wants it."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        self.wanted.set()
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_a_question_behind_one_that_ended_the_process_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = Runtime(onnx.parser.parse_model(RELU).SerializeToString())
    feed = {"x": torch.tensor([-1.0, 2.0]).numpy()}
    first = process.worker()
    busy = _WatchedLock()
    monkeypatch.setattr(first, "_busy", busy)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(runtime.run(feed)[0].tolist()))
    with busy:
        busy.wanted.clear()
        thread.start()
        busy.wanted.wait()
        first.kill()
    thread.join()
    assert found == [[0.0, 2.0]]
    assert process.worker() is not first


def test_flags_of_kernels_are_as_before() -> None:
    net = nn.Linear(1, 1)
    before = torch.backends.cuda.flash_sdp_enabled()
    assert before
    second_in, first_out = threading.Event(), threading.Event()

    def second() -> None:
        with unfused(net):
            second_in.set()
            first_out.wait()

    thread = threading.Thread(target=second)
    with unfused(net):
        thread.start()
        second_in.wait(A_WHILE_S)
    first_out.set()
    thread.join()
    assert torch.backends.cuda.flash_sdp_enabled() == before


def test_each_draws_the_same_numbers() -> None:
    with seeded():
        alone = torch.rand(2).tolist()
    second_drew, first_out = threading.Event(), threading.Event()

    def second() -> None:
        with seeded():
            torch.rand(5)
            second_drew.set()
            first_out.wait()

    thread = threading.Thread(target=second)
    with seeded():
        drawn = torch.rand(1).tolist()
        thread.start()
        second_drew.wait(A_WHILE_S)
        drawn += torch.rand(1).tolist()
    first_out.set()
    thread.join()
    assert drawn == alone


def test_a_report_leaves_the_mask_of_new_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject: Any = None
    mask = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setitem(write.__globals__, "render", lambda subject: "page")
            # All threads have one, and files that they make meanwhile would be anybody's to write.
            patch.setattr(os, "umask", None)
            write(tmp_path / "report.html", subject)
    finally:
        os.umask(mask)
    made = [(p.name, p.read_text(), p.stat().st_mode & 0o777) for p in tmp_path.iterdir()]
    assert made == [("report.html", "page", 0o640)]


def test_all_of_it_at_once(tmp_path: Path) -> None:
    """Conversions, simplification, loading and checks, of a model that is shared or one's own."""

    def work(k: int) -> tuple[str, bool, list[Any]]:
        model, out = tmp_path / f"{k % 3}" / DIGITS.name, tmp_path / f"{k}" / "net.py"
        onnx2nn.convert(model, out)
        y = onnx2nn.load(model)(torch.ones(1, 1, 8, 8))
        right = onnx2nn.verify(model, out).ok and onnx2nn.simplify(model)[1]
        return out.read_text(), right, y.tolist()

    for k in range(4):
        (tmp_path / f"{k}").mkdir()
        shutil.copy(DIGITS, tmp_path / f"{k}")
    found = all_at_once(4, work)
    assert found[0][1] is True
    assert found == [found[0]] * 4
