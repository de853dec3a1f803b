"""The fields of a model file as they lie in it, without reading what they hold: protobuf's wire format.

Needs neither onnx nor numpy.
"""

import mmap
import os
from collections.abc import Iterator
from typing import Any

__all__ = [
    "encoded",
    "external_locations",
    "fields",
    "mapped",
    "stored_bytes",
    "varint",
    "varints",
]

# Field numbers of ModelProto, GraphProto, TensorProto and StringStringEntryProto (onnx.proto).
GRAPH, INITIALIZER = 7, 5
DIMS, TYPE, FLOATS, NAME, RAW, DOUBLES, EXTERNAL, LOCATION = 1, 2, 4, 8, 9, 10, 13, 14
FLOAT, DOUBLE = 1, 11


def mapped(path: str) -> mmap.mmap:
    """The file, to be read where it lies."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def stored_bytes(path: str) -> int:
    """The size of a model file and of the external data that its tensors name, counted once."""
    size = os.path.getsize(path)
    folder = os.path.dirname(os.path.abspath(path))
    for location, offset, length in _external_places(path):
        try:
            whole = os.path.getsize(os.path.join(folder, location))
            size += int(length) if length else whole - int(offset or 0)
        except (OSError, ValueError):
            continue
    return size


def external_locations(path: str) -> list[str]:
    """The files that the weights of a model lie in, as it names them; none of one that is not sound."""
    return sorted({location for location, _, _ in _external_places(path) if location})


def _external_places(path: str) -> set[tuple[str, str, str]]:
    """Location, offset and length of external data, as texts, empty where they are not said."""
    places: set[tuple[str, str, str]] = set()
    try:
        data = mapped(path)
        for field, _, body, end in fields(data, 0, len(data)):
            if field != GRAPH:
                continue
            for inner, _, start, stop in fields(data, body, end):
                if inner == INITIALIZER:
                    entry = _external_entry(data, start, stop)
                    if entry:
                        location, offset, length = (
                            entry.get(k, "") for k in ("location", "offset", "length")
                        )
                        places.add((location, offset, length))
    except (OSError, ValueError, IndexError):
        return set()  # no sound model: whoever reads it says why
    return places


def _external_entry(data: Any, body: int, end: int) -> dict[str, str]:
    entry: dict[str, str] = {}
    for field, _, inner, stop in fields(data, body, end):
        if field == EXTERNAL:
            pair = {f: data[i:j].decode() for f, _, i, j in fields(data, inner, stop)}
            entry[pair.get(1, "")] = pair.get(2, "")
    return entry


def varint(data: Any, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def varints(data: Any, at: int, end: int) -> list[int]:
    """All numbers up to a place."""
    found = []
    while at < end:
        value, at = varint(data, at)
        found.append(value)
    return found


def fields(data: Any, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, start, start of the content, end) of each field of a message."""
    while at < end:
        start = at
        key, at = varint(data, at)
        body = at
        match key & 7:
            case 0:
                at = varint(data, at)[1]
            case 1:
                at += 8
            case 2:
                size, body = varint(data, at)
                at = body + size
            case 5:
                at += 4
            case kind:
                raise ValueError(f"wire type {kind} at byte {start}")
        if at > end:
            raise ValueError(f"the field at byte {start} is cut off")
        yield key >> 3, start, body, at


def encoded(number: int, content: bytes) -> bytes:
    """A field of that number and content."""
    key, size = number << 3 | 2, len(content)
    out = bytearray()
    for value in (key, size):
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out) + content
