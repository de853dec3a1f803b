"""The oracle's process: runs models that may crash it, fill the memory or never end.

It reads requests from a socket until that is closed, and answers each; see `onnx2nn.check.process`.
"""

import contextlib
import importlib
import os
import signal
import socket
import sys
from typing import Any

from onnx2nn.check import wire
from onnx2nn.check.sessions import LibraryError, ReferenceSession, RuntimeSession
from onnx2nn.check.skeleton import Place

if sys.platform == "win32":
    from onnx2nn.check import windows as system
else:
    from onnx2nn.check import posix as system

__all__ = ["main"]

# What the runtimes say where an allocation fails, or the stack of a thread.
_OUT_OF_MEMORY = ("bad_alloc", "BFCArena", "Cannot allocate memory")
# A thread's stack and the heap that it allocates from count, whether they are written to or not.
_THREAD_BYTES = 64 * 2**20


def main() -> None:
    """Serve requests from the parent, until its socket is closed or the parent ends.

    How the parent is reached stands in the program's arguments, for those of `system.connected`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = system.connected(*map(int, sys.argv[1:]))
    # While the parent is busy with other things. Where it fails, whoever asks for a session is told.
    with contextlib.suppress(Exception):
        importlib.import_module("onnxruntime")
    sessions: dict[int, Any] = {}
    try:
        while True:
            request = wire.receive(channel)
            system.limit_memory(request["memory"])
            for handle in request["closed"]:
                sessions.pop(handle, None)
            if request["do"] != "close":
                _answer(channel, sessions, request)
                del request
    except (EOFError, ConnectionError, KeyboardInterrupt):
        # Sessions are not taken apart one by one: the process ends.
        os._exit(0)


def _answer(channel: socket.socket, sessions: dict[int, Any], request: dict[str, Any]) -> None:
    try:
        reply = _do(sessions, request)
        wire.send(channel, {"value": reply})
        return
    except (ConnectionError, EOFError):
        raise
    except MemoryError as error:
        text, kind = str(error), "memory"
    except ImportError as error:
        text, kind = str(error), "import"
    except LibraryError as error:
        text, kind = str(error), "library"
    except Exception as error:  # each runtime has error types of its own
        text = str(error).strip() or type(error).__name__
        kind = "memory" if any(sign in text for sign in _OUT_OF_MEMORY) else "refused"
    wire.send(channel, {"error": text, "kind": kind})


def _do(sessions: dict[int, Any], request: dict[str, Any]) -> Any:
    match request["do"]:
        case "runtime":
            arguments = request["arguments"]
            places = [Place(*p) for p in arguments.pop("places")]
            arguments["threads"] = _threads(arguments["threads"], request["memory"])
            session: Any = RuntimeSession(**arguments, places=places)
        case "reference":
            session = ReferenceSession(**request["arguments"])
        case "run":
            return _within(sessions[request["handle"]].run(request["feed"]), request["memory"])
        case "run_all":
            return _within(sessions[request["handle"]].run_all(request["feed"]), request["memory"])
    sessions[request["handle"]] = session
    return {"name": session.name, "outputs": session.outputs, "types": session.types}


def _threads(wanted: int, memory: int) -> int:
    """How many threads a session gets: no more than an eighth of the memory is for them.

    On a machine of many cores their stacks alone would fill a small limit. 0 is the runtime's choice.
    """
    most = max(memory // 8 // _THREAD_BYTES, 1)
    return most if memory and (wanted or os.cpu_count() or 1) > most else wanted


def _within(values: Any, memory: int) -> Any:
    """The values, if a copy of them for the parent fits into the memory too."""
    size = sum(getattr(x, "nbytes", 0) for x in _leaves(values))
    if memory and size > memory // 2:
        raise MemoryError(f"the answer takes {size} bytes")
    return values


def _leaves(value: Any) -> Any:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
