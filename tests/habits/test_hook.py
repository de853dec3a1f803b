"""The pre-commit hooks and the GitHub Action, as far as they run without the network."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from tests.backend.suite import ROOT

from onnx2nn.hook import main
from stand_in import make_model

HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    make_model(Path("good.onnx"))
    Path("cut.onnx").write_bytes(Path("good.onnx").read_bytes()[:-20])


def test_a_line_a_model_and_the_worst_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "good.onnx"]) == 0
    assert capsys.readouterr().out == "good.onnx: would convert\n"
    assert main(["verify", "--seed", "3", "good.onnx"]) == 0
    assert capsys.readouterr().out == "good.onnx: right\n"
    assert main(["inspect", "good.onnx", "cut.onnx", "none.onnx"]) == 3
    out = capsys.readouterr().out
    assert out.startswith("good.onnx: would convert\ncut.onnx: not readable\n    ")
    assert "none.onnx: not readable\n" in out


def test_what_would_not_convert_is_not_called_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Magic", ["x"], ["y"], domain="my.domain")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), "magic.onnx")
    assert main(["inspect", "magic.onnx"]) == 1
    assert capsys.readouterr().out.startswith("magic.onnx: would not convert\n    ")


def test_a_pointer_of_git_lfs_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert main(["verify", "p.onnx"]) == 3
    assert "git lfs pull" in capsys.readouterr().out


def test_github_shows_it_beside_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a file's name or text can begin a command of its own."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    name = "a,b\n::set-output name=x::1.onnx"
    Path(name).write_bytes(b"\x08\x01\n::stop-commands::x")
    assert main(["inspect", name]) == 3
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if line.startswith("::")]
    assert len(commands) == 1
    assert re.match(r"::error file=a%2Cb[^,:]*\.onnx::", commands[0]), commands


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["convert", "good.onnx"]) == 2
    assert "usage" in capsys.readouterr().out
    assert main(["verify", "--no-such-option", "good.onnx"]) == 2


# ---- pre-commit ----


def test_hooks_name_what_there_is() -> None:
    assert {h["id"] for h in HOOKS} == {"onnx2nn-inspect", "onnx2nn-verify"}
    for hook in HOOKS:
        assert hook["language"] == "python"
        assert re.search(hook["files"], "models/a.onnx")
        assert not re.search(hook["files"], "models/a.onnx.py")


@pytest.mark.parametrize("hook", HOOKS, ids=lambda h: h["id"])
def test_a_hook_s_entry_runs(hook: dict[str, Any]) -> None:
    """As pre-commit calls it: the entry, the arguments of the user, the files."""
    python, *entry = hook["entry"].split()
    assert python == "python"
    for models, code in ((["good.onnx"], 0), (["good.onnx", "cut.onnx"], 3)):
        done = subprocess.run(
            [sys.executable, *entry, *models],
            env=os.environ | {"PYTHONPATH": str(ROOT / "python")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr


# ---- The Action ----


def step(name: str, inputs: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a step's shell as a runner does, with the inputs in its environment."""
    defaults = {k: v["default"] for k, v in ACTION["inputs"].items()}
    assert set(inputs) <= set(defaults)
    values = {f"inputs.{k}": v for k, v in (defaults | inputs).items()}
    values["github.action_path"] = str(ROOT)
    (found,) = [s for s in ACTION["runs"]["steps"] if s["name"] == name]
    assert found["shell"] == "bash"
    assert "${{" not in found["run"]  # what a user gives is no part of the script

    def value(text: str) -> str:
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda m: values[m[1]], text)

    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
        cwd=folder,
        env=os.environ
        | {k: value(v) for k, v in found["env"].items()}
        | {"RUNNER_TEMP": str(folder.parent / "runner"), "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits of models, and a runner that has onnx2nn installed."""
    folder = tmp_path / "repository"
    (folder / "models").mkdir(parents=True)

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=folder,
            check=True,
            capture_output=True,
        )

    git("init", "-q")
    for name in ("models/old.onnx", "models/gone.onnx"):
        make_model(folder / name)
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "base")
    make_model(folder / "models" / "new model.onnx")
    (folder / "models" / "gone.onnx").unlink()
    git("add", "-A")
    git("commit", "-qm", "two")
    runner = tmp_path / "runner" / "onnx2nn" / "bin"
    runner.mkdir(parents=True)
    (runner / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (runner / "python").chmod(0o755)
    return folder


CHECK = "Check the models"


def test_the_action_checks_what_has_changed(repository: Path) -> None:
    done = step(CHECK, {"base": "base", "command": "inspect"}, repository)
    assert (done.returncode, done.stdout) == (0, "models/new model.onnx: would convert\n")


def test_the_action_checks_all(repository: Path) -> None:
    (repository / "models" / "old.onnx").write_bytes(b"no model")
    inputs = {"base": "", "models": "models/*.onnx", "options": "--seed 3"}
    done = step(CHECK, inputs, repository)
    assert done.returncode == 3, done.stderr
    assert "models/new model.onnx: right\n" in done.stdout
    assert "models/old.onnx: not readable\n" in done.stdout


def test_the_action_finds_nothing(repository: Path) -> None:
    done = step(CHECK, {"base": "", "models": "other/*.onnx"}, repository)
    assert (done.returncode, done.stdout) == (0, "no model to check\n")


def test_the_action_installs_itself(tmp_path: Path) -> None:
    """With a Python that only says what it is asked for."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nif [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; else echo "$@"; fi\n'
    )
    python.chmod(0o755)
    done = step("Install onnx2nn", {"python": str(python)}, tmp_path)
    assert done.stdout.split() == ["-m", "pip", "install", "--quiet", f"{ROOT}[verify]"]
    done = step("Install onnx2nn", {"python": str(python), "package": "onnx2nn==0.1"}, tmp_path)
    assert done.stdout.split()[-1] == "onnx2nn==0.1"
