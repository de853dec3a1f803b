"""The oracle's process on POSIX systems: it inherits a socket, limits its memory and watches over us.

`onnx2nn.check.windows` has the same for Windows.
"""

import contextlib
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

assert sys.platform != "win32"

__all__ = ["Child", "connected", "free_memory", "limit_memory"]

# How often to look whether the parent still lives, where it cannot be told by a signal.
_WATCH_S = 0.5
_PR_SET_PDEATHSIG = 1


# ---- What we do ----


class Child:
    """A process that runs Python, and our end of the socket to it.

    code: what it runs; its arguments are those of `connected`. Raises OSError.
    """

    def __init__(self, code: str) -> None:
        # Where a standard stream is closed its descriptor would be taken, and written to as if it were.
        ours, theirs = map(_above_standard, socket.socketpair())
        # Where another thread starts the process, the system would kill it with that thread.
        with_parent = threading.current_thread() is threading.main_thread()
        arguments = (theirs.fileno(), os.getpid(), int(with_parent))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for us: the process is ended where we end.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.channel = ours

    def limit(self, memory: int) -> None:
        """Nothing: the process does it itself, by `limit_memory`."""

    def kill(self) -> None:
        """End the process and take it off the system's list."""
        self.channel.close()
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()


def _above_standard(channel: socket.socket) -> socket.socket:
    """The socket under a descriptor above those of the standard streams."""
    with channel:
        return socket.socket(fileno=fcntl.fcntl(channel.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def free_memory() -> int:
    """Bytes that may still be allocated here, also by the rules of a container; 0: not known."""
    free = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
    for folder in _control_groups():
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / "memory.max").read_text())
            free.append(max(most - int((folder / "memory.current").read_text()), 0))
    return min(free, default=0)


def _control_groups() -> list[Path]:
    """The control group of this process and those above it."""
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next(x for x in lines if x.startswith("0::"))[len("0::") :].strip("/")
        folder = root / own
        return [folder, *[p for p in folder.parents if p.is_relative_to(root)]]
    return []


# ---- What the process does ----


def connected(descriptor: int, parent: int, with_parent: int) -> socket.socket:
    """Our socket to the parent, by its descriptor; from now on this process ends with the parent.

    with_parent: whether the system is to kill this process with the thread that started it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if with_parent and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    return socket.socket(fileno=descriptor)


def limit_memory(limit: int) -> None:
    """What this process may allocate, in bytes; 0 is no limit. Mapped files do not count."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if limit and (hard == resource.RLIM_INFINITY or limit <= hard):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
