"""The C++ core, by its C interface: include/onnx2nn/onnx2nn.h says what each function does.

Paths are a str, bytes or os.PathLike; TypeError for anything else. Options are those that the header
lists: TypeError for a name that it has not and for a value of another kind, ValueError for a text that
says nothing.
"""

import ctypes
import functools
import json
import os
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "EXIT_CODES",
    "Conversion",
    "Staged",
    "answer",
    "check_outputs",
    "command_line",
    "completion",
    "convert",
    "external_files",
    "inspect",
    "op_table",
    "output_paths",
    "parse_command_line",
    "printable",
    "publish_file",
    "rule_of",
    "simplified_path",
    "simplify",
    "simplify_rules",
]

_Path: TypeAlias = str | bytes | os.PathLike[Any]

_DONE, _USAGE = 0, 2
_NAMES = {"darwin": "libonnx2nn.dylib", "win32": "onnx2nn.dll"}

# What the functions take before the place of the result, by name.
_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_MAKING: dict[str, list[Any]] = {
    "convert_file": [_TEXT, _TEXT],
    "convert_bytes": [_TEXT, _SIZE, _TEXT, _TEXT],
    "inspect_file": [_TEXT, _TEXT],
    "inspect_bytes": [_TEXT, _SIZE, _TEXT, _TEXT],
    "simplify_file": [_TEXT, _TEXT, _TEXT],
    "simplify_bytes": [_TEXT, _SIZE, _TEXT, _TEXT, _TEXT],
    "operators": [],
    "rules": [],
    "output_paths": [_TEXT, _TEXT],
    "simplified_path": [_TEXT, _TEXT],
    "check_outputs": [_TEXT, _TEXT],
    "publish_file": [_TEXT, _TEXT, _TEXT, _TEXT],
    "external_files": [_TEXT, _TEXT],
    "command_line": [],
    "parse_command_line": [ctypes.POINTER(_TEXT), _SIZE, _SIZE],
    "answer": [ctypes.POINTER(_TEXT), _SIZE, _SIZE],
    "completion": [_TEXT],
    "rule_of": [_TEXT],
    "printable": [_TEXT, _SIZE],
}


class _Text(ctypes.Structure):
    """onnx2nn_text: bytes that belong to a handle."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]

    def __bytes__(self) -> bytes:
        return ctypes.string_at(self.data, self.size)


_INTERRUPT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


@functools.cache
def _library() -> ctypes.CDLL:
    """The shared library, loaded on first use. Its calls let other threads of Python's run."""
    path = Path(__file__).with_name(_NAMES.get(sys.platform, "libonnx2nn.so"))
    try:
        library = ctypes.CDLL(os.fspath(path))
    except OSError as error:
        raise ImportError(
            f"onnx2nn's native library cannot be loaded: {error}; "
            "in a checkout, cmake --workflow --preset dev builds it"
        ) from error
    for name, takes in _MAKING.items():
        makes = getattr(library, f"onnx2nn_{name}")
        makes.argtypes = [*takes, ctypes.POINTER(ctypes.c_void_p)]
    others: dict[str, tuple[list[Any], Any]] = {
        "write": ([_POINTER, _TEXT, _TEXT], ctypes.c_int),
        "publish": ([_POINTER], ctypes.c_int),
        "json": ([_POINTER], _Text),
        "json_of": ([_POINTER, _TEXT], _Text),
        "source": ([_POINTER], _Text),
        "diagnostics": ([_POINTER], _Text),
        "model": ([_POINTER], _Text),
        "weight": ([_POINTER, _SIZE, _SIZE, ctypes.POINTER(_Text)], ctypes.c_int),
        "free": ([_POINTER], None),
        "set_interrupt": ([_INTERRUPT, _POINTER], None),
    }
    for name, (takes, gives) in others.items():
        function = getattr(library, f"onnx2nn_{name}")
        function.argtypes, function.restype = takes, gives
    return library


# ---- Signals ----

# What a handler of a signal raised during native work on the main thread.
_raised: list[BaseException] = []


def _signals() -> Generator[int, int | None, None]:
    """Runs handlers of signals each time that it is sent something, and yields whether to stop.

    A generator, and not a function: what a handler raises comes up where Python looks for signals first,
    which in a function is before any `try` of its own. This one is inside of it.
    """
    while True:
        try:
            while True:
                yield int(bool(_raised))
                ctypes.pythonapi.PyErr_CheckSignals()
        except GeneratorExit:
            return
        except BaseException as error:
            _raised.append(error)


@functools.cache
def _listen() -> Any:
    """Lets native work on this thread ask for signals; the callback has to live as long as it is there.

    It stays: taking it away after each call would itself be open to signals.
    """
    watch = _signals()
    next(watch)
    callback = _INTERRUPT(watch.send)
    _library().onnx2nn_set_interrupt(callback, None)
    return callback


def _call(name: str, *arguments: Any) -> int:
    """The status of a function of the library; raises what a handler of a signal raised meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        return int(getattr(_library(), f"onnx2nn_{name}")(*arguments))
    _listen()
    _raised.clear()
    status = int(getattr(_library(), f"onnx2nn_{name}")(*arguments))
    if _raised:
        raise _raised.pop(0)
    return status


# ---- Arguments and results ----


def _path(path: _Path) -> bytes:
    data = os.fsencode(path)
    if b"\0" in data:
        raise ValueError(f"{path!r}: a path holds no NUL")
    return data


def _plain(value: Any) -> Any:
    """What JSON has no word for: paths, and numbers of other packages."""
    if isinstance(value, (bytes, os.PathLike)):
        return os.fsdecode(value)
    return value.__index__()


def _options(options: Mapping[str, Any]) -> bytes:
    texts = []
    for name, value in options.items():
        try:
            texts.append(
                f"{json.dumps(name)}: {json.dumps(value, default=_plain, allow_nan=False)}"
            )
        except (TypeError, ValueError, AttributeError, RecursionError):
            raise TypeError(f"{name}: {value!r} is no value for it") from None
    return f"{{{', '.join(texts)}}}".encode("ascii")


class _Result:
    """A handle of the library's."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.pointer = ctypes.c_void_p()
        self._free = _library().onnx2nn_free
        self.status = _call(name, *arguments, ctypes.byref(self.pointer))
        for d in self["diagnostics"] if self.status != _DONE else ():
            if d["code"] == "bad-type":
                raise TypeError(d["message"])
            if d["code"] == "bad-value":
                raise ValueError(d["message"])

    def __del__(self) -> None:
        if self.pointer:
            self._free(self.pointer)

    def __getitem__(self, member: str) -> Any:
        """A member of its JSON."""
        return json.loads(bytes(_library().onnx2nn_json_of(self.pointer, member.encode())))

    def text(self, name: str) -> bytes:
        return bytes(getattr(_library(), f"onnx2nn_{name}")(self.pointer))

    def call(self, name: str, *arguments: Any) -> bool:
        self.status = _call(name, self.pointer, *arguments)
        return self.status == _DONE


# ---- Models ----


class Conversion:
    """A converted model. It keeps the model, and its files, open."""

    def __init__(self, result: _Result) -> None:
        self._result = result

    @property
    def ok(self) -> bool:
        return self._result.status == _DONE

    @functools.cached_property
    def readable(self) -> bool:
        return bool(self._result["readable"])

    @functools.cached_property
    def class_name(self) -> str:
        return str(self._result["class_name"])

    @functools.cached_property
    def inputs(self) -> list[dict[str, Any]]:
        return list(self._result["inputs"])

    @functools.cached_property
    def outputs(self) -> list[dict[str, Any]]:
        return list(self._result["outputs"])

    @functools.cached_property
    def weights(self) -> list[dict[str, Any]]:
        return list(self._result["weights"])

    @functools.cached_property
    def stats(self) -> dict[str, Any]:
        return dict(self._result["stats"])

    @property
    def source(self) -> str:
        return self._result.text("source").decode()

    @property
    def diagnostics(self) -> list[dict[str, Any]]:
        return list(self._result["diagnostics"])

    @property
    def diagnostics_text(self) -> str:
        return self._result.text("diagnostics").decode("utf-8", "replace")

    def weight_data(self, i: int, piece: int = 0) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """The bytes of a weight as the model stores them: a copy."""
        import numpy as np

        found = _Text()
        status = _call("weight", self._result.pointer, i, piece, ctypes.byref(found))
        if status == _USAGE:
            raise IndexError("no such weight")
        if status != _DONE:
            raise OSError(f"the weight {self.weights[i]['key']!r} cannot be read")
        copy = np.empty(found.size, np.uint8)
        ctypes.memmove(copy.ctypes.data, found.data, found.size)
        return copy

    def write(self, path_py: _Path, path_weights: _Path = "") -> list[str]:
        """The files written; none where `diagnostics` then says why."""
        done = self._result.call("write", _path(path_py), _path(path_weights) or None)
        return list(self._result["files"]) if done else []


class Staged:
    """A simplified model in the folder that the option `staging` named."""

    def __init__(self, result: _Result) -> None:
        self._result = result

    def publish(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Moves it to its place: the files, and what went wrong."""
        self._result.call("publish")
        return self._result["files"], self._result["diagnostics"]


def convert(model: _Path, options: Mapping[str, Any] = {}) -> Conversion:
    """A model, as a path (a str or os.PathLike) or as bytes, converted; `ok` says whether it could be."""
    if isinstance(model, bytes):
        return Conversion(_Result("convert_bytes", model, len(model), None, _options(options)))
    return Conversion(_Result("convert_file", _path(model), _options(options)))


def simplify(
    model: _Path,
    out_path: _Path | None = None,
    options: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """A model simplified, and written where a path is given; else its bytes are `model` of the result."""
    out = None if out_path is None else _path(out_path)
    if isinstance(model, bytes):
        r = _Result("simplify_bytes", model, len(model), None, out, _options(options))
    else:
        r = _Result("simplify_file", _path(model), out, _options(options))
    result: dict[str, Any] = {
        "ok": r.status == _DONE,
        "readable": r["readable"],
        "diagnostics": r["diagnostics"],
        **r["simplified"],
        "log": [tuple(entry) for entry in r["log"]],
        "files": r["files"],
        "staged": Staged(r) if options.get("staging") is not None and r.status == _DONE else None,
    }
    result["misses"] = [tuple(miss) for miss in result["misses"]]
    if not out:
        result["model"] = r.text("model")
    return result


def inspect(model: _Path, options: Mapping[str, Any] = {}) -> dict[str, Any]:
    """What is in a model and what would not convert, and why; `readable` says whether it is one."""
    if isinstance(model, bytes):
        r = _Result("inspect_bytes", model, len(model), None, _options(options))
    else:
        r = _Result("inspect_file", _path(model), _options(options))
    found = dict(json.loads(r.text("json")))
    del found["exit_code"]
    return found


def op_table() -> list[dict[str, Any]]:
    """The operators that are known."""
    return list(_Result("operators")["operators"])


def simplify_rules() -> dict[str, str]:
    """What each rule of the simplifier does."""
    return dict(_Result("rules")["rules"])


def rule_of(name: str) -> str:
    """The rule behind one of our names or onnxsim's; empty where none corresponds."""
    return str(_Result("rule_of", name.encode())["rule"])


# ---- Files ----


def check_outputs(
    model: _Path, paths: Sequence[_Path], force: bool = False
) -> list[dict[str, Any]]:
    """Why these files may not be written for this model (empty: given as bytes)."""
    options = {"paths": [os.fsdecode(p) for p in paths], "force": force}
    return list(_Result("check_outputs", _path(model), _options(options))["diagnostics"])


def publish_file(
    made: _Path, path: _Path, model: _Path, force: bool = False
) -> list[dict[str, Any]]:
    """Moves the finished file `made` to `path`; what went wrong."""
    options = _options({"force": force})
    r = _Result("publish_file", _path(made), _path(path), _path(model), options)
    return list(r["diagnostics"])


def external_files(
    model: _Path, locations: Sequence[str], data_roots: Sequence[_Path]
) -> dict[str, str]:
    """Where external data lies, by the locations that the model names, where it may be read."""
    options = {"locations": [*locations], "data_roots": [os.fsdecode(p) for p in data_roots]}
    return dict(_Result("external_files", _path(model), _options(options))["files"])


def output_paths(model: _Path, out: _Path) -> tuple[str, str]:
    """Where a conversion goes: (source, weights); ValueError for a name that says neither."""
    r = _Result("output_paths", _path(model), _path(out))
    if r.status != _DONE:
        raise ValueError(r["diagnostics"][0]["message"])
    return r["source"], r["weights"]


def simplified_path(model: _Path, out: _Path) -> str:
    """Where a simplified model goes."""
    return str(_Result("simplified_path", _path(model), _path(out))["path"])


# ---- The command line ----


class _CommandLine(TypedDict):
    command: str | None
    # By option: a bool, a number, a str, (input name, dims), None, or a list of these.
    values: dict[str, Any]
    text: str | None  # help or the version
    error: str  # empty where nothing is wrong
    usage: str
    json: bool


def printable(text: bytes) -> str:
    """One line without anything that could steer a terminal."""
    return str(_Result("printable", text, len(text))["text"])


def command_line() -> list[dict[str, Any]]:
    """The commands and their options."""
    return list(_Result("command_line")["commands"])


def parse_command_line(words: Sequence[bytes], columns: int) -> _CommandLine:
    """What the Python program was asked for."""
    r = _Result("parse_command_line", _words(words), len(words), columns)
    return {
        "command": r["command"],
        "values": {name: _value(value) for name, value in r["values"].items()},
        "text": r["text"],
        "error": r["error"],
        "usage": r["usage"],
        "json": r["json"],
    }


def _value(value: Any) -> Any:
    """The value of an option; a shape is a tuple, so that it is no list of values."""
    return (
        [tuple(v) if isinstance(v, list) else v for v in value]
        if isinstance(value, list)
        else value
    )


def answer(words: Sequence[bytes], width: int) -> tuple[int, str, str]:
    """What the core answers to a command that needs nothing of Python's: (exit code, output, errors)."""
    r = _Result("answer", _words(words), len(words), width)
    return r["code"], r["out"], r["err"]


def _words(words: Sequence[bytes]) -> Any:
    return (ctypes.c_char_p * len(words))(*words)


def completion(shell: str) -> str:
    """A script that completes the command line in this shell."""
    return str(_Result("completion", shell.encode())["script"])


if TYPE_CHECKING:
    EXIT_CODES: dict[int, str]


def __getattr__(name: str) -> Any:
    if name == "EXIT_CODES":
        return dict(_Result("command_line")["exit_codes"])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
