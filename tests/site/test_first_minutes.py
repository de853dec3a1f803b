"""The script that plays a newcomer: what it hides, what it cuts, and what it runs in."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from tests.backend.suite import ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "first_minutes", ROOT / "tools" / "first_minutes.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_command_sees_an_empty_home(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    folder = tmp_path / "onnx2nn"
    folder.mkdir()
    text, seconds = script.played(
        'echo "${SECRET:-nothing} $PWD $HOME"; echo gone >&2; printf "\\033[31mred\\033[0m\\n"',
        folder,
        tmp_path,
    )
    assert text == "nothing ~/onnx2nn ~\ngone\nred"
    assert seconds >= 0


def test_long_output_loses_its_middle(script: ModuleType) -> None:
    lines = script.shown("\n".join(map(str, range(200)))).splitlines()
    assert lines[0] == "0"
    assert lines[-1] == "199"
    assert "[140 lines more]" in lines


def test_the_page_has_the_commands_of_the_script(script: ModuleType) -> None:
    page = (ROOT / "docs" / "first-five-minutes.md").read_text()
    commands = re.findall(r"^\$ (.*)$", page, re.MULTILINE)
    wanted = [command for _, _, command in [*script.STEPS, script.FROM_A_CLONE]]
    assert [re.sub(r"\./onnx2nn-\S+\.whl", "WHEEL", c) for c in commands] == wanted
    assert str(ROOT) not in page
