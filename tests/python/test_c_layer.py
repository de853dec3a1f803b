"""The core by its C interface: types, odd bytes, threads and signals."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx2nn import _native
from stand_in import make_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.onnx"


def test_names_of_files_that_are_no_text(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"n\xff\xe9t \\udcfe")
    os.mkdir(folder)
    model = os.path.join(folder, b"m\x80.onnx")
    Path(os.fsdecode(model)).write_bytes(EXAMPLE.read_bytes())
    for given in (os.fsdecode(model), Path(os.fsdecode(model))):
        conversion = _native.convert(given)
        assert conversion.ok, conversion.diagnostics_text
        assert {w["file"] for w in conversion.weights} == {os.fsdecode(model), None}
        paths = _native.output_paths(given, folder + b"/")
        files = conversion.write(*paths)
        assert files == list(paths)
        assert all(os.path.dirname(os.fsencode(f)) == folder for f in files)
    # As an option, in JSON.
    make_model(tmp_path / "tiny.onnx", external=True)
    (tmp_path / "tiny.data").rename(os.fsdecode(folder) + "/tiny.data")
    data = (tmp_path / "tiny.onnx").read_bytes()
    assert not _native.convert(data).ok
    assert _native.convert(data, {"data_roots": [folder]}).ok
    found = _native.external_files("", ["tiny.data", "none"], [os.fsdecode(folder)])
    assert found == {"tiny.data": os.path.join(os.fsdecode(folder), "tiny.data")}
    assert _native.check_outputs("", [model])[0]["code"] == "would-overwrite"


def test_the_command_line_keeps_bytes() -> None:
    words = [b"convert", b"\xff\xf0\x9f\x98\x80\\udc80.onnx", b"--class-name", b"\xc3\xa9"]
    values = _native.parse_command_line(words, 80)["values"]
    assert os.fsencode(values["model"]) == words[1]
    assert values["class_name"] == "é"


@pytest.mark.parametrize(
    "options, said",
    [
        ({"simplfy": True}, "there is no option simplfy"),
        ({"simplify": np.bool_(True)}, "simplify"),
        ({"input_shapes": {"x": [1.5]}}, "input_shapes"),
        ({"input_shapes": {"x": [float("nan")]}}, "input_shapes"),
        ({"input_shapes": {"x": [10**30]}}, "input_shapes"),
        ({"class_name": object()}, "class_name"),
        ({"data_roots": [3]}, "data_roots"),
        ({"custom_ops": [{"domain": ""}]}, "custom_ops"),
    ],
)
def test_options_of_other_types(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        _native.convert(EXAMPLE, options)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"max_shard_size": "much"}, "max_shard_size"),
        ({"class_name": "\udcff"}, "class_name"),
        ({"data_roots": ["a\0b"]}, "data_roots"),
    ],
)
def test_options_that_say_nothing(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _native.convert(EXAMPLE, options)
    with pytest.raises(ValueError, match="NUL"):
        _native.convert("a\0b")


def test_numbers_of_numpy_are_numbers() -> None:
    x = _native.convert(EXAMPLE).inputs[0]
    shapes = {x["name"]: [np.int64(2), *x["shape"][1:]]}
    assert _native.convert(EXAMPLE, {"input_shapes": shapes}).inputs[0]["shape"][0] == 2


def test_a_weight_outlives_its_conversion() -> None:
    conversion = _native.convert(EXAMPLE.read_bytes())
    index, w = next((i, w) for i, w in enumerate(conversion.weights) if w["dtype"] == "float32")
    data = conversion.weight_data(index)
    again = conversion.weight_data(index)
    for missing in (len(conversion.weights), -1):
        with pytest.raises(IndexError):
            conversion.weight_data(missing)
    del conversion
    assert data.nbytes == w["nbytes"]
    assert (data == again).all()
    data[:] = 0  # a copy


def test_many_threads_at_once() -> None:
    sources: list[str] = []

    def work() -> None:
        for _ in range(5):
            conversion = _native.convert(EXAMPLE.read_bytes())
            json.dumps([conversion.weights, conversion.stats])
            sources.append(conversion.source)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(sources) == 40
    assert len(set(sources)) == 1


# With an interval that never ends a thread runs only where another gives way by itself.
BESIDE = """
import sys, threading
from onnx2nn import _native
data = open(sys.argv[1], "rb").read()
sys.setswitchinterval(1000)
go, beside = threading.Event(), []
thread = threading.Thread(target=lambda: (go.wait(), beside.append("ran")))
thread.start()
go.set()
for _ in range(1000):
    _native.convert(data)
    if beside:
        break
print(beside)
"""


def test_other_threads_run_during_native_work() -> None:
    command = [sys.executable, "-c", BESIDE, str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['ran']\n", done.stderr


# The handler runs where native work asks for signals; work goes on where it raises nothing.
SIGNALS = """
import signal, threading
from onnx2nn import _native
heard = []
def handler(*_):
    heard.append(threading.current_thread() is threading.main_thread())
    if RAISES: raise KeyboardInterrupt
signal.signal(signal.SIGINT, handler)
data = open(MODEL, "rb").read()
for _ in range(3):
    # It is there before the core asks for the first time.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    signal.raise_signal(signal.SIGINT)
    before, lib = len(heard), _native._library()
    real = lib.onnx2nn_convert_bytes
    def convert(*arguments):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return real(*arguments)
    lib.onnx2nn_convert_bytes = convert
    try:
        assert _native.convert(data).ok
        print("done", heard)
    except KeyboardInterrupt:
        print("raised", heard)
    lib.onnx2nn_convert_bytes = real
assert _native.convert(data).ok
"""


@pytest.mark.parametrize("raises", [False, True])
def test_signals_are_heard_on_the_main_thread(raises: bool) -> None:
    code = f"RAISES, MODEL = {raises}, {str(EXAMPLE)!r}\n" + SIGNALS
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    word = "raised" if raises else "done"
    want = "".join(f"{word} {[True] * n}\n" for n in (1, 2, 3))
    assert (done.stdout, done.stderr) == (want, "")


def test_the_library_is_loaded_on_first_use() -> None:
    code = (
        "import sys, onnx2nn._native\n"
        "assert onnx2nn._native._library.cache_info().currsize == 0\n"
        "assert 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
