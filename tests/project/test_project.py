"""The project's own files agree with each other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_everywhere():
    (project,) = re.findall(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)
    (cmake,) = re.findall(r"^  VERSION ([\d.]+)$", read("CMakeLists.txt"), re.MULTILINE)
    assert project == cmake


def test_every_requirement_is_pinned():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in read("constraints.txt").splitlines()
        if "==" in line
    }
    wanted = {
        re.split(r"[<>=]", line)[0].lower().replace("_", "-")
        for line in read("requirements-test.txt").splitlines()
        if line and not line.startswith("#")
    }
    assert wanted - pinned <= {"cmake", "ninja"}  # build tools: any recent one does


@pytest.mark.parametrize("name", ["onnx2nn", "test", ".ci/run", "tools/setup.sh"])
def test_scripts_are_valid_shell(name: str):
    subprocess.run(["bash", "-n", ROOT / name], check=True)


def test_no_host_of_a_package_registry_is_named():
    for name in ("constraints.txt", "requirements-test.txt", "pyproject.toml", "onnx2nn", "test"):
        assert "://" not in read(name), name


def test_documents_link_to_what_exists():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the listing of git")
def test_no_large_or_built_file_is_committed():
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            assert path.suffix not in {".so", ".o", ".a", ".pyc"}, name
            assert path.stat().st_size < 1_000_000, name


def test_no_header_of_a_library_hides_a_function_of_all():
    """Several files are compiled at once: where one includes the header, all files after it mean another function."""
    declared: dict[str, set[str]] = {}  # by name, the namespaces
    for path in (ROOT / "src").rglob("*.h"):
        text = path.read_text(encoding="utf-8")
        (namespace, *_) = re.findall(r"^namespace ([\w:]+) \{$", text, re.MULTILINE) or ["onnx2nn"]
        for name in re.findall(r"^[a-z][\w:<>,&* ]*[ *&>](\w+)\(", text, re.MULTILINE):
            declared.setdefault(name, set()).add(namespace)
    assert "onnx2nn" in declared["is_number"]
    hidden = {
        n: spaces for n, spaces in declared.items() if "onnx2nn" in spaces and len(spaces) > 1
    }
    assert not hidden
