"""The oracle's process, seen from ours: started early, kept, limited, and replaced where it dies.

Models that are checked may be anybody's: they crash a runtime, ask for all memory, or never end. All
that then ends is a process that holds nothing of value, and the check says so.
"""

import atexit
import contextlib
import dataclasses
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from onnx2nn.errors import Error

if sys.platform == "win32":
    from onnx2nn.check import windows as system
else:
    from onnx2nn.check import posix as system

__all__ = [
    "MEMORY_SHARE",
    "TIMEOUT_S",
    "Limits",
    "OracleDied",
    "OracleError",
    "Session",
    "Worker",
    "allowing",
    "how_it_crashed",
    "limits",
    "start",
    "stop",
    "within_limits",
    "worker",
]

# How long a model may take to be opened, or to run once.
TIMEOUT_S = 120.0
# How much of the memory that is free when the process starts it may take.
MEMORY_SHARE = 0.8
# How long to wait for an answer before looking whether Ctrl-C was pressed, which ends no wait on Windows.
_SLICE_S = 0.25
_CODE = "import sys; sys.path[:] = {path!r}; from onnx2nn.check.worker import main; main()"
# What Windows ends a process with where it does something that is no mistake of Python.
_EXCEPTIONS = {
    0xC0000005: "access violation",
    0xC0000017: "no memory",
    0xC000001D: "illegal instruction",
    0xC0000094: "integer division by zero",
    0xC00000FD: "stack overflow",
    0xC0000374: "heap corruption",
    0xC0000409: "abort",
    0xE06D7363: "C++ exception",
}


class OracleError(Exception):
    """What a runtime says to a model or to inputs; its first line is the runtime's own."""


class OracleDied(OracleError):  # noqa: N818 (what it says, it says of the process)
    """The oracle's process ended, or was ended, over a model.

    timed_out: because it took too long, so that another oracle would as well.
    """

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class _EndedError(Exception):
    """The process was ended over another thread's model before it was asked."""


@dataclass
class Limits(threading.local):
    """What the oracle may take for a thread's models: seconds for one run, and bytes of memory (None:
    most of what is free when it starts)."""

    seconds: float = TIMEOUT_S
    memory: int | None = None


limits = Limits()


@contextlib.contextmanager
def allowing(seconds: float | None = None, memory: int | None = None) -> Iterator[None]:
    """Other limits for a while; None leaves one as it is."""
    before = dataclasses.replace(limits)
    limits.seconds = limits.seconds if seconds is None else seconds
    limits.memory = limits.memory if memory is None else memory
    try:
        yield
    finally:
        limits.seconds, limits.memory = before.seconds, before.memory


_P = ParamSpec("_P")
_T = TypeVar("_T")


def within_limits(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that runs under the limits in its keywords oracle_timeout and oracle_memory."""

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        given: dict[str, Any] = dict(kwargs)
        with allowing(given.get("oracle_timeout"), given.get("oracle_memory")):
            return function(*args, **kwargs)

    return run


_lock = threading.RLock()
_worker: "Worker | None" = None


def start() -> None:
    """Start the oracle's process without waiting for it: it imports what it needs meanwhile.

    Does nothing where it runs already, or where it cannot be started: whoever asks it is told why.
    """
    with contextlib.suppress(Error):
        worker()


def worker() -> "Worker":
    """The process, a new one where the last has died. Raises Error where none can be started."""
    global _worker
    with _lock:
        if _worker is None or not _worker.alive:
            _worker = Worker()
        return _worker


def stop() -> None:
    """End the process, if there is one."""
    global _worker
    with _lock:
        if _worker is not None:
            _worker.kill()
        _worker = None


def let_go_of_files() -> None:
    """Unmap what sessions have mapped, before one of these files is replaced; asked, they map it again.

    Needed on Windows alone, which replaces no file that is in use: there the process is ended.
    """
    with _lock:
        if sys.platform == "win32" and _worker is not None:
            _worker.end_when_idle()


class Worker:
    """One process, and what was asked of it."""

    def __init__(self) -> None:
        if not sys.executable:
            raise Error("the oracle needs a process of its own: sys.executable names no Python")
        try:
            self._child = system.Child(_CODE.format(path=[os.path.abspath(p) for p in sys.path]))
        except OSError as error:
            raise Error(f"the oracle's process cannot be started: {error.strerror}") from error
        self._process, self._channel = self._child.process, self._child.channel
        self._memory = int(system.free_memory() * MEMORY_SHARE)
        self._closed: list[int] = []
        self._next = 0
        self._busy = threading.Lock()
        self._ended = False

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self._ended and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def open(self, kind: str, arguments: dict[str, Any]) -> "tuple[int, dict[str, Any]]":
        """Open a session; returns its handle, and its `name` and `outputs`."""
        with self._busy:
            self._next += 1
            handle = self._next
        said = self.ask({"do": kind, "handle": handle, "arguments": arguments})
        return handle, said

    def close(self, handle: int) -> None:
        """Forget a session, with the next request where one is under way."""
        self._closed.append(handle)
        if self.alive and self._busy.acquire(blocking=False):
            try:
                self._send({"do": "close"})
            except OSError:
                pass  # it has died: nothing is left to be closed
            finally:
                self._busy.release()

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to one request.

        Raises OracleError with what the runtime says, OracleDied where the process does not live
        through it, ImportError where a runtime is not installed.
        """
        with self._busy:
            if self._ended:
                raise _EndedError
            seconds = limits.seconds
            self._channel.settimeout(seconds)
            try:
                self._send(request)
                answer = _receive(self._channel, time.monotonic() + seconds)
            except TimeoutError:
                self.kill()
                raise OracleDied(f"took longer than {seconds:g} s", timed_out=True) from None
            except (EOFError, ConnectionError):
                raise OracleDied(self._epitaph()) from None
            except BaseException:
                # An answer may be on its way that nobody waits for.
                self.kill()
                raise
        if "error" not in answer:
            return answer["value"]
        if answer["kind"] == "memory":
            # What it took before it gave up is still held: the next question gets a new process.
            self.kill()
        raise _error(answer["kind"], answer["error"], self._allowed())

    def _allowed(self) -> int:
        return self._memory if limits.memory is None else limits.memory

    def _send(self, request: dict[str, Any]) -> None:
        from onnx2nn.check import wire

        # One by one: another thread may add to them meanwhile.
        closed = [self._closed.pop() for _ in range(len(self._closed))]
        memory = self._allowed()
        self._child.limit(memory)
        wire.send(self._channel, {**request, "closed": closed, "memory": memory})

    def _epitaph(self) -> str:
        """How the process ended; it is gone afterwards."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        self.kill()
        how = None if code is None else how_it_crashed(code)
        if how is None:
            return f"the oracle's process ended (exit code {code})"
        if how == "SIGKILL":
            return "the oracle was killed (SIGKILL), as the system does where memory runs out"
        return f"the oracle crashed ({how})"

    def kill(self) -> None:
        """End the process and take it off the system's list."""
        self._ended = True
        self._child.kill()

    def end_when_idle(self) -> None:
        """End the process after the request that is under way."""
        with self._busy:
            self.kill()

    def forget(self) -> None:
        """In a forked child: the process is the parent's."""
        self._ended = True
        self._channel.close()
        self._process.returncode = 0


class Session:
    """One session by handle, opened again where the process that had it is gone."""

    def __init__(self, kind: str, arguments: dict[str, Any]) -> None:
        self._kind, self._arguments = kind, arguments
        self.about: dict[str, Any] = {}
        self._place = self._open()

    def _open(self) -> tuple[Worker, int]:
        while True:
            process = worker()
            with contextlib.suppress(_EndedError):
                handle, self.about = process.open(self._kind, self._arguments)
                weakref.finalize(self, process.close, handle).atexit = False
                return process, handle

    def ask(self, do: str, feed: dict[str, Any]) -> Any:
        """Run it on inputs by name: `run` or `run_all`."""
        while True:
            process, handle = self._place
            if not process.alive:
                process, handle = self._place = self._open()
            with contextlib.suppress(_EndedError):
                return process.ask({"do": do, "handle": handle, "feed": feed})


def how_it_crashed(code: int) -> str | None:
    """What ended a process that did not end itself, by its exit code as subprocess has it; None: it did."""
    if code < 0:
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if code >= 2**31:
        return _EXCEPTIONS.get(code, f"exception {code:#010x}")
    return None


def _receive(channel: socket.socket, deadline: float) -> dict[str, Any]:
    from onnx2nn.check import wire

    while True:  # until an answer begins
        left = deadline - time.monotonic()
        channel.settimeout(max(min(left, _SLICE_S), 0.001))
        try:
            channel.recv(1, socket.MSG_PEEK)
            break
        except TimeoutError:
            if left <= _SLICE_S:
                raise
    channel.settimeout(max(deadline - time.monotonic(), 0.001))
    answer = wire.receive(channel)
    assert isinstance(answer, dict)
    return answer


def _error(kind: str, text: str, memory: int) -> Exception:
    match kind:
        case "import":
            return ImportError(text)
        case "library":
            return Error(text)
        case "memory":
            return OracleError(f"needs more memory than the {memory / 2**30:.1f} GiB it may have")
    return OracleError(text)


def _after_fork() -> None:
    global _worker, _lock
    _lock = threading.RLock()
    if _worker is not None:
        _worker.forget()
    _worker = None


atexit.register(stop)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
