"""Several models at once, and models of a hub."""

import http.server
import json
import ntpath
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onnx2nn
from json_schema import conforms
from onnx2nn.cli import ExitCode, many
from programs import SCHEMA, Run
from stand_in import make_model


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/m.onnx", "b/m.onnx", "other.onnx"):
        Path(name).parent.mkdir(exist_ok=True)
        make_model(Path(name))
    Path("bad.onnx").write_bytes(b"junk")


def test_folders_of_several_drives_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert many._told_apart(["/x/a", "/x/b/c"]) == ["a", "b/c"]
    monkeypatch.setattr(many.os, "path", ntpath)
    found = many._told_apart(["C:\\x\\a", "D:\\x\\a", "\\\\server\\share\\a"])
    monkeypatch.undo()
    assert found == ["C\\x\\a", "D\\x\\a", "server_share\\a"]


def test_each_is_converted_and_the_worst_decides(python: Run) -> None:
    words = ["a/m.onnx", "b/m.onnx", "other.onnx", "bad.onnx", "none.onnx", "--no-check"]
    code, out, err = python("convert", *words, "-o", "out/", "--jobs", "2")
    assert code == ExitCode.UNREADABLE
    written = {str(p) for p in Path("out").rglob("*.py")}
    assert written == {"out/a/m.py", "out/b/m.py", "out/other.py"}
    lines, _, table = out.partition("\n\n")
    assert sorted(re.findall(r"\[(\d)/5\]", lines)) == list("12345")
    assert len(lines.splitlines()) == 5
    rows = table.splitlines()
    assert rows[0].split() == ["model", "nodes", "weights", "seconds", "result"]
    assert [r.split()[0] for r in rows[1:]] == words[:-1]  # in the order of the words
    assert rows[1].endswith("done")
    assert "unreadable: does not exist" in rows[5]
    assert err == ""


def test_json_is_one_object_with_a_list(python: Run) -> None:
    code, out, _ = python("other.onnx", "a/m.onnx", "bad.onnx", "-o", ".", "--json")
    found = json.loads(out)
    assert conforms(found, SCHEMA) == []
    assert (code, found["exit_code"], found["ok"], found["model"]) == (3, 3, False, None)
    assert [m["model"] for m in found["models"]] == ["other.onnx", "a/m.onnx", "bad.onnx"]
    assert [m["exit_code"] for m in found["models"]] == [0, 0, 3]
    assert found["models"][0]["checked"] is True
    for model in found["models"]:
        assert conforms(model, SCHEMA) == []


def test_quiet_says_only_what_is_wrong(python: Run) -> None:
    code, out, err = python("other.onnx", "bad.onnx", "-o", "out", "--no-check", "-q")
    assert (code, err) == (3, "")
    assert re.fullmatch(r"\[2/2\] bad\.onnx: unreadable: .*\n", out)


def test_simplify_and_verify_take_several_too(python: Run) -> None:
    words = ["a/m.onnx", "b/m.onnx", "--jobs", "2"]
    code, _, _ = python("simplify", *words, "-o", "small", "--input_shape", "x:-1,4", "--no-check")
    assert code == 0
    found = sorted(map(str, Path("small").rglob("*.onnx")))
    assert found == ["small/a/m-simple.onnx", "small/b/m-simple.onnx"]
    code, out, _ = python("verify", *words)
    assert code == 0
    assert out.count("right") == 4


WRONG = [
    (["a/m.onnx", "a/m.onnx", "-o", "x"], "a/m.onnx and a/m.onnx would both be written to x/m.py"),
    (["a/m.onnx", "b/m.onnx", "-o", "x.py"], "several models are written to a folder"),
    (["a/m.onnx", "b/m.onnx", "--class-name", "X"], "--class-name is about one model"),
    (["a/m.onnx", "b/m.onnx", "--report", "x.html"], "--report is about one model"),
    (["a/m.onnx", "b/m.onnx", "c.doc"], "c.doc: several models are written to a folder"),
    (["a/m.onnx", "x.py", "y.py"], "'y.py' is one argument too many"),
    (["simplify", "a/m.onnx", "b.onnx", "c.onnx"], "several models are written to a folder"),
    (["a/m.onnx", "hf://owner/m.onnx", "-o", "x"], "is like hf://owner/name/file.onnx"),
]


@pytest.mark.parametrize("words, said", WRONG)
def test_what_cannot_be_is_said_before_anything_is_done(
    words: list[str], said: str, python: Run
) -> None:
    before = sorted(Path().rglob("*"))
    code, _, err = python(*words)
    assert code == ExitCode.USAGE, err
    assert said in err
    assert sorted(Path().rglob("*")) == before


def test_two_words_keep_their_meaning(python: Run) -> None:
    assert python("a/m.onnx", "net.py", "--no-check")[0] == 0
    assert Path("net.py").exists()
    assert python("simplify", "a/m.onnx", "small.onnx", "--no-check")[0] == 0
    assert Path("small.onnx").exists()
    code, out, _ = python("verify", "a/m.onnx", "small.onnx", "--json")
    assert (code, json.loads(out)["target"]) == (0, "small.onnx")


def test_one_that_dies_takes_no_other_along(python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # The process of one model ends by a signal, as the system ends one that takes all memory.
    Path("sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if any('a/m' in a for a in sys.argv): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{Path().resolve()}:{os.environ.get('PYTHONPATH', '')}")
    code, out, _ = python("a/m.onnx", "other.onnx", "--no-check", "-o", "out", "--json")
    assert code == ExitCode.INTERNAL
    first, second = json.loads(out)["models"]
    assert "SIGKILL" in first["error"]
    assert second["ok"]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_and_leaves_nothing_half_written(number: int, code: int) -> None:
    size = 32 << 20
    for name in "pqr":
        weight = numpy_helper.from_array(np.zeros((size // 4,), np.float32), "w")
        x = h.make_tensor_value_info("x", T.FLOAT, [1])
        y = h.make_tensor_value_info("y", T.FLOAT, [size // 4])
        graph = h.make_graph([h.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        onnx.save(h.make_model(graph, ir_version=8), f"{name}.onnx")
    words = [sys.executable, "-m", "onnx2nn", "p.onnx", "q.onnx", "r.onnx", "-o", "out", "-j", "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # Until the first has begun to write, or is about to.
    while not Path("out").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    pids = children.read_text().split() if children.exists() else []
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in err
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
    for path in Path("out").iterdir():
        assert path.suffix in (".py", ".safetensors")
        if path.suffix == ".py":
            assert path.with_suffix(".safetensors").stat().st_size > size


# ---- A hub ----


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of a hub as huggingface_hub asks for: files of one repository at one commit."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    commit = "c" * 40

    def _answer(self, with_body: bool) -> None:
        found = re.fullmatch(r"/owner/net/resolve/([^/]+)/(.+)", self.path)
        data = self.files.get(found[2]) if found and found[1] in ("main", "v1") else None
        self.asked.append(self.path)
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:040x}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which a stand-in on this machine is the hub."""
    model = make_model()
    beside = tmp_path / "beside"
    beside.mkdir()
    onnx.save(
        model,
        beside / "net.onnx",
        save_as_external_data=True,
        location="net.data",
        size_threshold=0,
    )
    _Hub.files = {f"onnx/{p.name}": p.read_bytes() for p in beside.iterdir()}
    _Hub.files["plain.onnx"] = make_model().SerializeToString()
    _Hub.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    server.shutdown()
    server.server_close()
    thread.join()


def _program(environment: dict[str, str], *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "onnx2nn", *words], env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_a_model_of_a_hub_comes_with_its_data(hub: dict[str, str]) -> None:
    word = "hf://owner/net@v1/onnx/net.onnx"
    code, out, err = _program(hub, word, "--no-check", "--json")
    assert code == 0, out + err
    assert json.loads(out)["model"] == word
    assert json.loads(out)["files"] == ["net.py", "net.safetensors"]
    assert any(a.endswith("/v1/onnx/net.data") for a in _Hub.asked)
    words = ["hf://owner/net/plain.onnx", "hf://owner/net/none.onnx", "a/m.onnx"]
    code, out, _ = _program(hub, *words, "--no-check", "-o", "out", "--json")
    assert code == ExitCode.UNREADABLE
    models = json.loads(out)["models"]
    assert [m["exit_code"] for m in models] == [0, 3, 0]
    assert [m["model"] for m in models] == words
    assert "cannot be fetched" in models[1]["error"]


def test_a_hub_without_its_package_says_what_to_install(
    python: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, err = python("hf://owner/net/net.onnx")
    assert code == ExitCode.USAGE
    assert 'pip install "onnx2nn[hub]"' in err
    with pytest.raises(onnx2nn.Error, match="huggingface_hub is not installed"):
        onnx2nn.inspect("hf://owner/net/net.onnx")
