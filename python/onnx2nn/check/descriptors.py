"""Arrays in shared memory that has no name: its descriptor travels with the header of a message.

So nothing is left behind, whoever dies. Needs a Unix socket.
"""

import array
import os
import socket
import sys
import tempfile
from collections.abc import Iterable

assert sys.platform != "win32"

__all__ = ["receive", "send"]

# The most that is written at once.
_CHUNK = 2**28


def send(
    channel: socket.socket, header: bytes, size: int, arrays: Iterable[tuple[int, memoryview]]
) -> None:
    """Send a header, and with it `size` bytes of memory that hold each of the arrays at its place."""
    fd = _shared(size)
    try:
        for start, data in arrays:
            _write(fd, data, start)
        rights = array.array("i", [fd])
        sent = channel.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        channel.sendall(header[sent:])
    finally:
        os.close(fd)


def _shared(size: int) -> int:
    """A descriptor of a file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("onnx2nn")
    else:
        with tempfile.TemporaryFile(prefix="onnx2nn-") as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def _write(fd: int, data: memoryview, at: int) -> None:
    # Quicker than through a mapping, whose pages would be made and filled one by one.
    while data:
        count = os.pwrite(fd, data[:_CHUNK], at)
        data, at = data[count:], at + count


def receive(channel: socket.socket, size: int, fds: "array.array[int]") -> bytes:
    """The `size` bytes of a header; `fds`, of type "i", gets what came with it, to be closed by the caller.

    Raises EOFError at the end.
    """
    header = b""
    while len(header) < size:
        part, rights, _, _ = channel.recvmsg(size - len(header), socket.CMSG_SPACE(fds.itemsize))
        for level, kind, data in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not part:
            raise EOFError
        header += part
    return header
