"""A model file without its large weights, which are mapped: to run it, nothing is copied."""

import math
import mmap
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Any

import numpy as np

from onnx2nn.check.fields import (
    DIMS,
    DOUBLE,
    DOUBLES,
    EXTERNAL,
    FLOAT,
    FLOATS,
    GRAPH,
    INITIALIZER,
    LOCATION,
    NAME,
    RAW,
    TYPE,
    encoded,
    fields,
    mapped,
    varint,
    varints,
)
from onnx2nn.tensors import DTYPE_NAMES

__all__ = ["Place", "Skeleton", "Weights"]

# Smaller files, and smaller tensors, are no trouble to copy.
_LARGE_FILE = 16 * 2**20
_LARGE_TENSOR = 2**16
# How often mapped pages are given back while a model runs.
_TRIM_S = 0.01
# Element types that numpy shares with ONNX Runtime, byte for byte.
_SHARED = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13}


@dataclass(frozen=True)
class Place:
    """Where a weight lies: its name, the file beside the model, its type by name, shape and offset."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """How many bytes it takes there."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Skeleton:
    """What ONNX Runtime is given for a file: a model, and where its large weights lie.

    path: the file; `readable`: what stands for it, as `onnx2nn.source.Source` has it.
    model: the path itself, or bytes in which the large tensors only name their place in the file.
    places: those tensors; `Weights` maps them.
    """

    def __init__(self, path: str, readable: tuple[bytes, str] | None = None) -> None:
        self.folder = os.path.dirname(os.path.abspath(path))
        self.places: list[Place] = []
        self._maps: dict[str, mmap.mmap] = {}
        self.model: str | bytes = path
        if readable is not None:
            self.model, self.folder = readable
            return
        if os.path.getsize(path) < _LARGE_FILE and not _has_data_beside(path):
            return
        name = os.path.basename(path)
        try:
            self.model = b"".join(self._without_weights(self._map(name), name))
        except (ValueError, IndexError):
            self.places = []  # no sound model: whoever reads it whole says why
        self._maps = {}

    def _map(self, name: str) -> mmap.mmap:
        if name not in self._maps:
            self._maps[name] = mapped(os.path.join(self.folder, name))
        return self._maps[name]

    def _without_weights(self, data: mmap.mmap, name: str) -> Iterator[bytes]:
        for field, start, body, end in fields(data, 0, len(data)):
            if field != GRAPH:
                yield data[start:end]
                continue
            graph = b"".join(self._graph(data, body, end, name))
            yield encoded(GRAPH, graph)

    def _graph(self, data: mmap.mmap, body: int, end: int, name: str) -> Iterator[bytes]:
        for field, start, inner, stop in fields(data, body, end):
            if field == INITIALIZER:
                yield self._tensor(data, start, inner, stop, name)
            else:
                yield data[start:stop]

    def _tensor(self, data: mmap.mmap, start: int, body: int, end: int, file: str) -> bytes:
        rest: list[bytes] = []
        dims: list[int] = []
        kind, name, external = 0, "", {}
        place: tuple[str, int, int] | None = None
        for field, first, inner, stop in fields(data, body, end):
            packed = data[first] & 7 == 2
            if field == DIMS:
                dims += varints(data, inner, stop)
            elif field == TYPE:
                kind = varint(data, inner)[0]
            elif field == NAME:
                name = data[inner:stop].decode(errors="replace")
            elif field == EXTERNAL:
                entry = {f: data[i:j].decode() for f, _, i, j in fields(data, inner, stop)}
                external[entry.get(1, "")] = entry.get(2, "")
            large = stop - inner >= _LARGE_TENSOR and packed
            values = (field, kind) in ((FLOATS, FLOAT), (DOUBLES, DOUBLE))
            if large and (field == RAW or (values and place is None)):
                place = (file, inner, stop - inner)
            else:
                rest.append(data[first:stop])
        if place is None and external:
            place = self._external(external)
            if place is None or place[2] < _LARGE_TENSOR:
                return data[start:end]
        elif place is None:
            return data[start:end]
        elif not external:
            for key, value in zip(("location", "offset", "length"), place):
                text = encoded(1, key.encode()) + encoded(2, str(value).encode())
                rest.append(encoded(EXTERNAL, text))
            rest.append(bytes([LOCATION << 3, 1]))
        if name and kind in _SHARED:
            found = Place(name, place[0], DTYPE_NAMES[kind], tuple(dims), place[1])
            if found.nbytes == place[2]:
                self.places.append(found)
        return encoded(INITIALIZER, b"".join(rest))

    def _external(self, entry: dict[str, str]) -> tuple[str, int, int] | None:
        """Where external data lies; None leaves it to ONNX Runtime to say what is wrong with it."""
        location = entry.get("location", "")
        path = PurePath(location)
        if path.anchor or ".." in path.parts:
            return None
        try:
            offset, size = int(entry.get("offset", 0)), int(entry.get("length", 0))
            return (location, offset, size) if offset + size <= len(self._map(location)) else None
        except (OSError, ValueError):
            return None


class Weights:
    """The weights of a skeleton as arrays over the mapped files, by name.

    While it is entered, their pages go back as fast as they come.
    """

    def __init__(self, folder: str, places: Iterable[Place]) -> None:
        self.arrays: dict[str, Any] = {}
        self._maps: dict[str, mmap.mmap] = {}
        for p in places:
            if p.file not in self._maps:
                self._maps[p.file] = mapped(os.path.join(folder, p.file))
            data = np.frombuffer(self._maps[p.file], p.dtype, math.prod(p.shape), p.offset)
            self.arrays[p.name] = data.reshape(p.shape)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _run(self) -> None:
        while not self._stop.wait(_TRIM_S):
            self.trim()

    def trim(self) -> None:
        """Give the mapped pages back; they are read again where they are needed. Windows does it itself."""
        if sys.platform != "win32":
            for data in self._maps.values():
                data.madvise(mmap.MADV_DONTNEED)

    def __enter__(self) -> "Weights":
        if self._maps and sys.platform != "win32":
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
            self.trim()


def _has_data_beside(path: str) -> bool:
    return os.path.exists(path + ".data") or os.path.exists(path + "_data")
