"""Messages between us and the oracle's process: JSON over a socket, arrays in shared memory.

A message is a header (the lengths of both parts), JSON, and the arrays' bytes. A few bytes follow; many
lie in memory whose descriptor travels with the header, or, where the socket carries none, as on Windows,
follow as well. In the JSON each value is a list that begins with its kind; none of it is ever executed.
"""

import array
import json
import mmap
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from onnx2nn.tensors import numpy_dtype

if sys.platform != "win32":
    from onnx2nn.check import descriptors

__all__ = ["receive", "send"]

_HEADER = struct.Struct("<QQ")
# Where arrays begin in the shared memory: as aligned as any of them asks for.
_ALIGNMENT = 64
# So few bytes of arrays are quicker through the socket, and sent together.
_INLINE = 2**16
# The most that is sent at once: Windows would first take all of it into memory of its own.
_CHUNK = 2**20


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


def send(channel: socket.socket, value: Any) -> None:
    """Send one value: None, numbers, strings, bytes, arrays, and lists, tuples and dicts of them."""
    writer = _Writer()
    text = json.dumps(writer.encode(value)).encode()
    header = _HEADER.pack(len(text), writer.size)
    arrays = ((start, _raw(x)) for start, x in writer.arrays)
    if sys.platform != "win32" and channel.family == socket.AF_UNIX and writer.size > _INLINE:
        descriptors.send(channel, header, writer.size, arrays)
        channel.sendall(text)
    else:
        for part in _parts(header + text, arrays):
            channel.sendall(part)


def _parts(
    beginning: bytes, arrays: Iterable[tuple[int, memoryview]]
) -> Iterator[bytearray | memoryview]:
    """All bytes of a message in a row, few together and many without a copy."""
    waiting = bytearray(beginning)
    at = 0
    for start, data in arrays:
        waiting += bytes(start - at)
        at = start + len(data)
        if len(data) <= _INLINE:
            waiting += data
            if len(waiting) <= _INLINE:
                continue
            data = data[:0]
        yield waiting
        waiting = bytearray()
        for k in range(0, len(data), _CHUNK):
            yield data[k : k + _CHUNK]
    if waiting:
        yield waiting


def _raw(x: Any) -> memoryview:
    """The bytes of an array, copied only where they do not lie in a row."""
    flat: Any = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    return memoryview(flat)


def receive(channel: socket.socket) -> Any:
    """The next value; its arrays lie in memory that nobody else has. Raises EOFError at the end."""
    fds = array.array("i")
    try:
        if sys.platform != "win32" and channel.family == socket.AF_UNIX:
            header: Any = descriptors.receive(channel, _HEADER.size, fds)
        else:
            header = _exactly(channel, _HEADER.size)
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
