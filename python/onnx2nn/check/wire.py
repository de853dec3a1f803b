"""Messages between us and the oracle's process: JSON over a socket, arrays in shared memory.

A message is a header (the lengths of both parts), JSON, and the arrays' bytes: a few follow, many lie
in a file that has no name, whose descriptor travels with the header, so that nothing is left behind,
whoever dies. In the JSON each value is a list that begins with its kind; none of it is ever executed.
"""

import array
import json
import mmap
import os
import socket
import struct
import tempfile
from typing import Any

import numpy as np

from onnx2nn.tensors import numpy_dtype

__all__ = ["receive", "send"]

_HEADER = struct.Struct("<QQ")
# Where arrays begin in the shared memory: as aligned as any of them asks for.
_ALIGNMENT = 64
# So few bytes of arrays are quicker through the socket.
_INLINE = 2**16
# The most that is written at once.
_CHUNK = 2**28


class _Writer:
    """Turns values into JSON, and collects the arrays that they hold."""

    def __init__(self) -> None:
        self.arrays: list[tuple[int, Any]] = []
        self.size = 0

    def encode(self, value: Any) -> Any:
        if isinstance(value, np.generic):  # some are Python numbers too
            return ["scalar", self.encode(np.asarray(value))]
        if value is None or isinstance(value, (bool, int, str)):
            return ["plain", value]
        if isinstance(value, float):
            return ["float", value.hex()]
        if isinstance(value, complex):
            return ["complex", value.real.hex(), value.imag.hex()]
        if isinstance(value, (bytes, bytearray, memoryview)):
            return ["bytes", *self._place(np.frombuffer(value, np.uint8))]
        if isinstance(value, dict):
            pairs = [[self.encode(k), self.encode(v)] for k, v in value.items()]
            return ["dict", pairs]
        if isinstance(value, (list, tuple)):
            return ["list" if isinstance(value, list) else "tuple", [self.encode(v) for v in value]]
        if not isinstance(value, np.ndarray):
            raise TypeError(f"a {type(value).__name__} is no value of a model")
        if value.dtype.kind in "OUST":
            return ["strings", value.dtype.kind, list(value.shape), _texts(value)]
        native = value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))
        return ["array", native.dtype.name, list(native.shape), *self._place(native)]

    def _place(self, value: Any) -> tuple[int, int]:
        start = -(-self.size // _ALIGNMENT) * _ALIGNMENT
        if value.nbytes:
            self.arrays.append((start, value))
            self.size = start + value.nbytes
        return start, value.nbytes


def _text(value: Any) -> str:
    """A string; the zero that numpy fills arrays of strings with is an empty one."""
    return "" if isinstance(value, int) and value == 0 else str(value)


def _texts(value: Any) -> list[Any]:
    """The strings of an array; what is no string goes as what it is."""
    return [
        [x.decode("utf-8", "surrogateescape"), 1] if isinstance(x, bytes) else [_text(x), 0]
        for x in value.reshape(-1).tolist()
    ]


def _decode(value: Any, memory: Any) -> Any:
    match value:
        case ["plain", x]:
            return x
        case ["float", x]:
            return float.fromhex(x)
        case ["complex", real, imaginary]:
            return complex(float.fromhex(real), float.fromhex(imaginary))
        case ["bytes", start, size]:
            return bytes(memory[start : start + size])
        case ["dict", pairs]:
            return {_decode(k, memory): _decode(v, memory) for k, v in pairs}
        case ["list", items]:
            return [_decode(v, memory) for v in items]
        case ["tuple", items]:
            return tuple(_decode(v, memory) for v in items)
        case ["scalar", x]:
            return _decode(x, memory)[()]
        case ["strings", kind, shape, texts]:
            items = [t.encode("utf-8", "surrogateescape") if b else t for t, b in texts]
            flat = np.empty(len(items), object)
            flat[:] = items
            return (flat if kind in "OT" else flat.astype(kind)).reshape(shape)
        case ["array", name, shape, start, size]:
            dtype = numpy_dtype(name)
            if not size:
                return np.empty(shape, dtype)
            raw = np.frombuffer(memory, np.uint8, size, start)
            return raw.view(dtype).reshape(shape)
    raise ValueError(f"{value!r:.60} is no value")


def _shared(size: int) -> int:
    """A descriptor of a file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("onnx2nn")
    else:
        with tempfile.TemporaryFile(prefix="onnx2nn-") as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def send(channel: socket.socket, value: Any) -> None:
    """Send one value: None, numbers, strings, bytes, arrays, and lists, tuples and dicts of them."""
    writer = _Writer()
    text = json.dumps(writer.encode(value)).encode()
    header = _HEADER.pack(len(text), writer.size)
    if writer.size <= _INLINE:
        body = bytearray(writer.size)
        for start, x in writer.arrays:
            body[start : start + x.nbytes] = _raw(x)
        channel.sendall(b"".join((header, text, body)))
        return
    fd = _shared(writer.size)
    try:
        for start, x in writer.arrays:
            _write(fd, _raw(x), start)
        rights = array.array("i", [fd])
        sent = channel.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        channel.sendall(header[sent:] + text)
    finally:
        os.close(fd)


def _raw(x: Any) -> memoryview:
    """The bytes of an array, copied only where they do not lie in a row."""
    flat: Any = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    return memoryview(flat)


def _write(fd: int, data: memoryview, at: int) -> None:
    # Quicker than through a mapping, whose pages would be made and filled one by one.
    while data:
        count = os.pwrite(fd, data[:_CHUNK], at)
        data, at = data[count:], at + count


def receive(channel: socket.socket) -> Any:
    """The next value; its arrays lie in memory that nobody else has. Raises EOFError at the end."""
    fds = array.array("i")
    header = b""
    try:
        while len(header) < _HEADER.size:
            part, rights, _, _ = channel.recvmsg(
                _HEADER.size - len(header), socket.CMSG_SPACE(fds.itemsize)
            )
            for level, kind, data in rights:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if not part:
                raise EOFError
            header += part
        length, size = _HEADER.unpack(header)
        text = _exactly(channel, length)
        memory: Any = mmap.mmap(fds[0], size) if fds else _exactly(channel, size)
    finally:
        for fd in fds:
            os.close(fd)
    return _decode(json.loads(text), memory)


def _exactly(channel: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data
