"""The oracle's process on Windows: it is handed a socket; a job limits its memory and ends it with us.

`onnx2nn.check.posix` has the same for other systems.
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
from ctypes import wintypes
from typing import Any

assert sys.platform == "win32"

__all__ = ["Child", "connected", "free_memory", "limit_memory"]

# Of winnt.h: JOBOBJECTINFOCLASS and the flags of JOBOBJECT_BASIC_LIMIT_INFORMATION.
_EXTENDED_LIMITS = 9
_LIMIT_PROCESS_MEMORY = 0x100
_DIE_ON_UNHANDLED_EXCEPTION = 0x400  # without a window that asks what to do about it
_KILL_ON_JOB_CLOSE = 0x2000


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
        ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = (
        ("dwLength", wintypes.DWORD),
        ("dwMemoryLoad", wintypes.DWORD),
        ("ullTotalPhys", ctypes.c_uint64),
        ("ullAvailPhys", ctypes.c_uint64),
        ("ullTotalPageFile", ctypes.c_uint64),
        ("ullAvailPageFile", ctypes.c_uint64),
        ("ullTotalVirtual", ctypes.c_uint64),
        ("ullAvailVirtual", ctypes.c_uint64),
        ("ullAvailExtendedVirtual", ctypes.c_uint64),
    )


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of kernel32 that says by zero that it failed; then OSError is raised."""

    def check(value: Any, function: Any, given: Any) -> Any:
        if not value:
            raise ctypes.WinError(ctypes.get_last_error())
        return value

    found = getattr(_KERNEL, name)
    found.restype, found.argtypes, found.errcheck = result, arguments, check
    return found


_KERNEL = ctypes.WinDLL("kernel32", use_last_error=True)
_create_job = _function("CreateJobObjectW", wintypes.HANDLE, ctypes.c_void_p, wintypes.LPCWSTR)
_set_job = _function(
    "SetInformationJobObject",
    *(wintypes.BOOL, wintypes.HANDLE, ctypes.c_int, ctypes.POINTER(_Limits), wintypes.DWORD),
)
_put_into_job = _function(
    "AssignProcessToJobObject", wintypes.BOOL, wintypes.HANDLE, wintypes.HANDLE
)
_close = _function("CloseHandle", wintypes.BOOL, wintypes.HANDLE)
_memory_status = _function("GlobalMemoryStatusEx", wintypes.BOOL, ctypes.POINTER(_MemoryStatus))


# ---- What we do ----


class Child:
    """A process that runs Python, and our end of the socket to it.

    code: what it runs, which calls `connected` without arguments. Raises OSError.
    """

    def __init__(self, code: str) -> None:
        self.channel, theirs = socket.socketpair()
        self._job = _Job()
        executable, environment = _python()
        try:
            self.process = subprocess.Popen(
                [executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C is for us: the process is ended where we end.
                creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW,
            )
            try:
                self._job.add(self.process)
                for end in (self.channel, theirs):
                    # A message in several parts is not to wait for what answers the first.
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                assert self.process.stdin is not None
                with self.process.stdin as stdin:
                    stdin.write(theirs.share(self.process.pid))
            except BaseException:
                self.kill()
                raise
        except BaseException:
            self.channel.close()
            self._job.close()
            raise
        finally:
            theirs.close()

    def limit(self, memory: int) -> None:
        """What the process may allocate, in bytes; 0 is no limit. Mapped files do not count."""
        self._job.limit(memory)

    def kill(self) -> None:
        """End the process and take it off the system's list."""
        self.channel.close()
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        self._job.close()


class _Job:
    """A job object: what is in it ends where we do, however that comes."""

    def __init__(self) -> None:
        self._handle: Any = _create_job(None, None)
        self._memory = -1
        self.limit(0)

    def add(self, process: Any) -> None:
        _put_into_job(self._handle, int(process._handle))

    def limit(self, memory: int) -> None:
        if memory == self._memory:
            return
        limits = _Limits()
        flags = _KILL_ON_JOB_CLOSE | _DIE_ON_UNHANDLED_EXCEPTION
        limits.BasicLimitInformation.LimitFlags = flags | (_LIMIT_PROCESS_MEMORY if memory else 0)
        limits.ProcessMemoryLimit = memory
        _set_job(self._handle, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
        self._memory = memory

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            _close(handle)


def _python() -> tuple[str, dict[str, str] | None]:
    """The Python to start, and its environment; None is ours.

    That of a virtual environment starts another, which would have another number than the process that
    we know: so the other is started, and told by that variable, as multiprocessing does, where it is.
    """
    ours, base = sys.executable, getattr(sys, "_base_executable", sys.executable)
    if os.path.normcase(ours) == os.path.normcase(base):
        return ours, None
    return base, {**os.environ, "__PYVENV_LAUNCHER__": ours}


def free_memory() -> int:
    """Bytes that may still be allocated without taking them from others; 0: not known."""
    status = _MemoryStatus(dwLength=ctypes.sizeof(_MemoryStatus))
    try:
        _memory_status(ctypes.byref(status))
    except OSError:
        return 0
    return min(int(status.ullAvailPhys), int(status.ullAvailPageFile))


# ---- What the process does ----


def connected() -> socket.socket:
    """Our socket to the parent, which says on the standard input how it is had."""
    return socket.fromshare(sys.stdin.buffer.read())


def limit_memory(limit: int) -> None:
    """Nothing: the job has the limit."""
