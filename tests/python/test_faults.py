"""Files are old or new as a whole, whichever system call fails and whenever the process is killed."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from safetensors.torch import load_file

from product import write_layers, write_model
from programs import PROGRAM

SHIM = PROGRAM.with_name("fault_shim.so")
MOST_CALLS = 160

pytestmark = pytest.mark.skipif(not SHIM.exists(), reason="the programs are not built")


State = tuple[str, bytes] | None


def state_of_source(folder: Path) -> State:
    """What `load` of out.py would take: (the source, the weights that it names)."""
    if not (folder / "out.py").exists():
        return None
    text = (folder / "out.py").read_text()
    found = re.search(r'"(out[\w.]*\.(?:safetensors|pth|json))"', text)
    assert found, text
    text = text.replace(found[1], "WEIGHTS")
    if not found[1].endswith(".json"):
        return text, (folder / found[1]).read_bytes()
    index = json.loads((folder / found[1]).read_text())
    shards = sorted({*index["weight_map"].values()})
    kept = {key: re.sub(r"\.new\d*", "", shard) for key, shard in index["weight_map"].items()}
    weights = b"".join((folder / shard).read_bytes() for shard in shards)
    return f"{text} {index['metadata']} {kept}", weights


def state_of_shards(folder: Path) -> State:
    """The same, where who reads the index alone finds whole weights too, of either conversion."""
    if (folder / "out.safetensors.index.json").exists():
        index = json.loads((folder / "out.safetensors.index.json").read_text())
        state = {}
        for shard in {*index["weight_map"].values()}:
            state |= load_file(folder / shard)
        assert state.keys() == index["weight_map"].keys()
        digits = {int(matrix.flatten()[0]) % 10 for matrix in state.values()}
        assert digits == {int(index["metadata"]["onnx2nn"][0])}
    return state_of_source(folder)


def state_of_model(folder: Path) -> State:
    """(The producer, operators and inputs of out.onnx, its matrix.)"""
    if not (folder / "out.onnx").exists():
        return None
    model = onnx.load(folder / "out.onnx", load_external_data=False)
    matrix = model.graph.initializer[0]
    # onnx refuses data that has two names, as ours does for three system calls.
    place = {entry.key: entry.value for entry in matrix.external_data}
    if place:
        start = int(place.get("offset", 0))
        data = (folder / place["location"]).read_bytes()[start : start + 64 * 64 * 4]
    else:
        data = numpy_helper.to_array(matrix).tobytes()
    nodes = [n.op_type for n in model.graph.node]
    return f"{model.producer_name} {nodes} {model.graph.input}", data


def state_of_archive(folder: Path) -> State:
    path = folder / "out.pt"
    return ("", path.read_bytes()) if path.exists() else None


@dataclass
class Case:
    """A command, run in a folder that `before`, another command, has filled."""

    command: list[str]
    before: list[str]
    state: Callable[[Path], State]


def _case(command: str, before: str = "") -> Case:
    state = state_of_source if "convert" in command else state_of_model
    if command.endswith(".pt"):
        state = state_of_archive
    if "shard" in command + before:
        state = state_of_shards
    return Case(command.split(), before.split(), state)


CASES = {
    "source": _case("convert 2.onnx -o out.py"),
    "source again": _case("convert 2.onnx -o out.py", "convert 1.onnx -o out.py"),
    "pth": _case("convert 2.onnx -o out.pth"),
    "pth again": _case("convert 2.onnx -o out.pth", "convert 1.onnx -o out.pth"),
    "TorchScript": _case("convert 2.onnx -o out.pt"),
    "TorchScript again": _case("convert 2.onnx -o out.pt", "convert 1.onnx -o out.pt"),
    "shards": _case("convert 2.onnx.shards -o out.py --max-shard-size 9KB"),
    "shards again": _case(
        "convert 2.onnx.shards -o out.py --max-shard-size 9KB",
        "convert 1.onnx.shards -o out.py --max-shard-size 9KB",
    ),
    "fewer shards": _case(
        "convert 2.onnx.shards -o out.py --max-shard-size 9KB",
        "convert 1.onnx.shards -o out.py --max-shard-size 5KB",
    ),
    "file to shards": _case(
        "convert 2.onnx.shards -o out.py --max-shard-size 9KB", "convert 1.onnx.shards -o out.py"
    ),
    "shards to file": _case(
        "convert 2.onnx.shards -o out.py", "convert 1.onnx.shards -o out.py --max-shard-size 9KB"
    ),
    "model": _case("simplify 2.onnx out.onnx"),
    "model again": _case("simplify 2.onnx out.onnx", "simplify 1.onnx out.onnx"),
    "external": _case("simplify 2.onnx out.onnx --external-data"),
    "external again": _case(
        "simplify 2.onnx out.onnx --external-data", "simplify 1.onnx out.onnx --external-data"
    ),
    "external to internal": _case(
        "simplify 2.onnx out.onnx", "simplify 1.onnx out.onnx --external-data"
    ),
    "in place": _case("simplify out.onnx out.onnx", "mine"),
    "in place again": _case(
        "simplify out.onnx out.onnx --input_shape x:1,64",
        "simplify 1.onnx out.onnx --external-data",
    ),
}


def run(folder: Path, command: list[str], **faults: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **faults, "LD_PRELOAD": str(SHIM)}
    return subprocess.run(
        [PROGRAM, *command, "--quiet"], cwd=folder, env=env, capture_output=True, text=True
    )


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@dataclass
class Setting:
    """Folders as they are before the command and after it; `fresh` gives copies of the first."""

    case: Case
    before: Path
    after: Path
    scratch: Path

    @property
    def old(self) -> State:
        return self.case.state(self.before)

    @property
    def new(self) -> State:
        return self.case.state(self.after)

    def fresh(self) -> Path:
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.copytree(self.before, self.scratch)
        return self.scratch

    def faults(self, how: str, **also: str) -> Iterator[tuple[Path, str, int]]:
        """(Folder, call, exit code) after a fault in each of the command's calls."""
        for call in range(1, MOST_CALLS):
            folder = self.fresh()
            done = run(folder, self.case.command, FAULT_AT=str(call), FAULT_HOW=how, **also)
            found = re.search("^FAULT (.*)$", done.stderr, re.MULTILINE)
            if found is None:
                assert done.returncode == 0, done.stderr
                assert call > 4
                return
            yield folder, f"{call} {found[1]}", done.returncode
        pytest.fail("the command does not end")


@pytest.fixture(params=CASES)
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Setting:
    case = CASES[request.param]
    before = tmp_path / "before"
    before.mkdir()
    if case.before == ["mine"]:
        write_model(before / "out.onnx", 3, "out.onnx.data")
    else:
        for seed in (1, 2):
            write_model(before / f"{seed}.onnx", seed)
            write_layers(before / f"{seed}.onnx.shards", seed)
        if case.before:
            assert run(before, case.before).returncode == 0
    after = tmp_path / "after"
    shutil.copytree(before, after)
    done = run(after, case.command)
    assert done.returncode == 0, done.stderr
    setting = Setting(case, before, after, tmp_path / "scratch")
    assert setting.old != setting.new
    return setting


@pytest.mark.parametrize("how", ["eio", "full"])
@pytest.mark.parametrize("system", ["", "FAULT_NO_TMPFILE"])
def test_a_call_that_fails(setting: Setting, how: str, system: str) -> None:
    for folder, call, code in setting.faults(how, **({system: "1"} if system else {})):
        done = code == 0
        assert setting.case.state(folder) == (setting.new if done else setting.old), call
        assert names(folder) == names(setting.after if done else setting.before), call


@pytest.mark.parametrize("system", ["", "FAULT_NO_TMPFILE"])
def test_a_process_that_is_killed(setting: Setting, system: str) -> None:
    for folder, call, code in setting.faults("kill", **({system: "1"} if system else {})):
        assert code == -9
        assert setting.case.state(folder) in (setting.old, setting.new), call
        done = run(folder, setting.case.command)
        assert done.returncode == 0, (call, done.stderr)
        assert setting.case.state(folder) == setting.new, call
        assert names(folder) == names(setting.after), call


@pytest.mark.parametrize("system", ["FAULT_NO_TMPFILE", "FAULT_NO_LINK", "FAULT_NO_LINKAT"])
def test_systems_that_lack_something(setting: Setting, system: str) -> None:
    folder = setting.fresh()
    done = run(folder, setting.case.command, **{system: "1"})
    assert done.returncode == 0, done.stderr
    assert setting.case.state(folder) == setting.new
    assert names(folder) == names(setting.after)
