"""The wheel and the sdist that tools/wheel.py makes, as somebody gets them who has nothing else."""

import os
import re
import shutil
import site
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.backend.suite import ROOT, locked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DIST = ROOT / "build" / "wheel" / "dist"
TOOLS = ROOT / "build" / "wheel" / "tools" / "bin"
MODEL = ROOT / "examples" / "digits.onnx"
NATIVE = ROOT / "build" / "ci" / "bin" / "onnx2nn"
CORPUS = Path(os.environ.get("ONNX2NN_MODELS", ROOT.parent / "shared" / "models"))
MIB = 2**20


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built() -> tuple[Path, Path]:
    """The sdist and the wheel for this machine, made anew where a source has changed."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the wheel that is tried is that of Linux on x86-64")
    with locked(ROOT / "build" / "wheel.lock"):
        wheels, sdists = list(DIST.glob("*.whl")), list(DIST.glob("*.tar.gz"))
        sources = [ROOT / n for n in ("pyproject.toml", "CMakeLists.txt", "tools/wheel.py")]
        for folder in ("src", "include", "cmake", "python"):
            sources += [p for p in (ROOT / folder).rglob("*") if p.suffix not in (".so", ".pyc")]
        newest = max(p.stat().st_mtime for p in sources if p.is_file())
        if not wheels or not sdists or min(p.stat().st_mtime for p in wheels + sdists) < newest:
            run(sys.executable, ROOT / "tools" / "wheel.py", "--out", DIST)
            wheels, sdists = list(DIST.glob("*.whl")), list(DIST.glob("*.tar.gz"))
    (sdist,), (wheel,) = sdists, [w for w in wheels if w.name.endswith("x86_64.whl")]
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that has the wheel; what it needs is seen in ours, not installed again."""
    folder = tmp_path_factory.mktemp("wheel") / "environment"
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, built[1])
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "needs.pth").write_text("\n".join(site.getsitepackages()))
    return folder


def outside(folder: Path) -> dict[str, str]:
    """An environment of variables that does not lead to the checkout."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"PATH": f"{folder / 'bin'}{os.pathsep}/usr/bin:/bin"}


def test_one_wheel_is_for_every_python_and_is_small(built: tuple[Path, Path]) -> None:
    wheel = built[1]
    assert re.fullmatch(r"onnx2nn-[\d.]+-py3-none-.*manylinux_2_28_x86_64\.whl", wheel.name)
    assert wheel.stat().st_size < 3_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (tags,) = [archive.read(n).decode() for n in names if n.endswith(".dist-info/WHEEL")]
    assert "Root-Is-Purelib: false" in tags
    tops = {n.partition("/")[0] for n in names}
    assert len(tops) == 2, tops  # the package and what is said of it
    assert "onnx2nn/libonnx2nn.so" in names
    assert "onnx2nn/py.typed" in names
    licences = [n for n in names if n.endswith("/LICENSE")]
    assert {n.split("/")[-2] for n in licences} >= {"fmt", "nlohmann"}, licences
    assert not [n for n in names if "/tests/" in n or n.endswith((".pyc", ".cpp", ".h"))]


def test_it_links_nothing_but_what_every_linux_has(built: tuple[Path, Path]) -> None:
    said = " ".join(run(TOOLS / "auditwheel", "show", built[1]).split())
    assert 'consistent with the following platform tag: "manylinux_2_' in said, said
    version = re.search(r'platform tag: "manylinux_2_(\d+)_x86_64"', said)
    assert version is not None
    assert int(version[1]) <= 28
    with zipfile.ZipFile(built[1]) as archive:
        assert not [n for n in archive.namelist() if ".libs/" in n]  # nothing had to be taken along


def test_what_is_installed_converts_and_checks(installed: Path, tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path)
    env = outside(installed)
    said = run("onnx2nn", "digits.onnx", cwd=tmp_path, env=env)
    assert "digits.py: right" in said
    code = "import onnx2nn; print(onnx2nn.__file__, onnx2nn.verify('digits.onnx').ok)"
    where, ok = run("python", "-c", code, cwd=tmp_path, env=env).split()
    assert Path(where).is_relative_to(installed)
    assert ok == "True"


def pythons() -> list[Path]:
    """Those from 3.10 on that are found here, threads without a lock included."""
    found = [
        shutil.which(f"python3.{minor}{kind}") for minor in range(10, 16) for kind in ("", "t")
    ]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    paths = [Path(p) for p in found if p] + sorted(versions.glob("3.1[0-9].*/bin/python"))
    # One that a manager of versions only announces does not run; some are built without ctypes.
    works = ["-c", "import ctypes"]
    return [p for p in paths if subprocess.run([p, *works], capture_output=True).returncode == 0]


# Eight threads convert, each to its own file, and say how many pages there are; where Python has no lock they
# really do so at once, and the package brings none back.
AT_ONCE = """
import sys, threading
locked = getattr(sys, "_is_gil_enabled", lambda: True)
before, pages, ready = locked(), [], threading.Barrier(8)
import onnx2nn
def work(k):
    ready.wait()
    onnx2nn.convert(sys.argv[1], f"{k}/net.py")
    for _ in range(5):
        onnx2nn.inspect(sys.argv[1])
    with open(f"{k}/net.py") as file:
        pages.append(file.read())
threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
assert locked() == before
print(len(pages), len({*pages}))
"""


def test_every_python_here_takes_it(built: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path / "site")
    env = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    env["PYTHONPATH"] = str(tmp_path / "site")
    for number, python in enumerate([Path(sys.executable), *pythons()]):
        folder = tmp_path / f"{number}"
        for k in range(8):
            (folder / f"{k}").mkdir(parents=True)
        command = (
            python,
            "-m",
            "onnx2nn",
            "convert",
            MODEL,
            "-o",
            "net.py",
            "--no-check",
            "--quiet",
        )
        run(*command, cwd=folder, env=env)
        assert (folder / "net.py").stat().st_size > 1000, python
        assert run(python, "-c", AT_ONCE, MODEL, cwd=folder, env=env).split() == ["8", "1"], python


def test_the_native_program_is_in_it(installed: Path, tmp_path: Path) -> None:
    said = run("onnx2nn", "--version", "--verbose", env=outside(installed))
    (path,) = re.findall(r"^program +(.+)$", said, re.MULTILINE)
    program = Path(path)
    assert program.is_relative_to(installed)
    assert program.stat().st_mode & stat.S_IXUSR
    shutil.copy(MODEL, tmp_path)
    bare = {"PATH": "/nowhere"}  # no Python, no library of ours on any path
    run(program, "convert", "digits.onnx", "-o", "ours.py", cwd=tmp_path, env=bare)


def test_the_native_program_writes_what_that_of_the_tests_does(
    installed: Path, tmp_path: Path
) -> None:
    """Several files of it are compiled at once, by another compiler: each name must still mean the same."""
    if not NATIVE.exists():
        pytest.skip(f"{NATIVE.relative_to(ROOT)} is not built")
    (program,) = installed.glob("lib/python*/site-packages/onnx2nn/onnx2nn")
    models = [MODEL, *(ROOT / "tests" / "golden").glob("*.onnx")]
    models += [m for m in CORPUS.rglob("*.onnx") if m.stat().st_size < 2 * MIB]

    def written(by: Path, model: Path, folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        command = [by, "convert", model, "-q", "-o", folder / "page.py"]
        subprocess.run(command, capture_output=True, check=False, timeout=100)
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        shutil.rmtree(folder)
        return files

    pages = 0
    for model in models:
        ours = written(program, model, tmp_path / "ours")
        theirs = written(NATIVE, model, tmp_path / "theirs")
        differ = [n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n)]
        assert not differ, f"{model.name}: {differ}"
        pages += len(ours) > 0
    assert pages >= 10


def test_the_sdist_has_what_the_build_needs_and_no_more(built: tuple[Path, Path]) -> None:
    # The wheel was made from it, without a network: what it lacks would have stopped that.
    with tarfile.open(built[0]) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert {"third_party/fmt/core.h", "third_party/nlohmann/json.hpp", "PKG-INFO"} <= names
    assert not {n.partition("/")[0] for n in names} & {
        "tests",
        "docs",
        "fuzz",
        "bench",
        "web",
        "build",
    }
    assert built[0].stat().st_size < 3 * MIB


def test_headers_for_the_sdist_do_not_stay_in_the_checkout(built: tuple[Path, Path]) -> None:
    left = [p for p in (ROOT / "third_party").glob("*/*") if p.name != "LICENSE"]
    assert not left


def test_a_wheel_for_another_processor_has_its_tag(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    """A build gives it the tag of this machine, and auditwheel knows this machine's processor."""
    code = tmp_path / "it.c"
    code.write_text("int it(void) { return 1; }\n")
    info = tmp_path / "it" / "it-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: it\nVersion: 1\n")
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n"
    (info / "WHEEL").write_text(tag)
    target = ["-target", "aarch64-linux-gnu.2.28", "-nostdlib", "-shared"]
    run(TOOLS / "python", "-m", "ziglang", "cc", *target, "-o", info.parent / "it.so", code)
    run(TOOLS / "wheel", "pack", info.parent, "-d", tmp_path)
    packing = f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}]; import wheel; "
    packing += "from pathlib import Path as P; programs, made, dist = map(P, sys.argv[1:]); "
    packing += "wheel.pack(programs, wheel.PLATFORMS['linux-aarch64'], made, dist)"
    (made,) = tmp_path.glob("it-1-py3-none-linux_x86_64.whl")
    run(sys.executable, "-c", packing, TOOLS, made, tmp_path / "dist")
    packed = [p.name for p in (tmp_path / "dist").iterdir()]
    assert packed == ["it-1-py3-none-manylinux_2_28_aarch64.whl"]


def test_a_program_for_macos_finds_its_library_beside_it(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    """Built on another system, which has no tool that would say so when it is installed."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "it.cpp").write_text(
        "__attribute__((noinline)) static int hidden_name(int x) { return x * x; }\n"
        'extern "C" int it(int x) { return hidden_name(x) + hidden_name(x + 1); }\n'
    )
    (project / "main.cpp").write_text(
        'extern "C" int it(int);\nint main(int n, char**) { return it(n); }\n'
    )
    (project / "CMakeLists.txt").write_text("""cmake_minimum_required(VERSION 3.25)
project(it LANGUAGES CXX)
add_library(it SHARED it.cpp)
add_executable(run main.cpp)
target_link_libraries(run PRIVATE it)
set_target_properties(run PROPERTIES INSTALL_RPATH @loader_path)
install(TARGETS it run LIBRARY DESTINATION . RUNTIME DESTINATION .)
""")
    asking = f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}]; import wheel; from pathlib import Path; "
    asking += "print(wheel.toolchain(Path(sys.argv[1]), wheel.PLATFORMS['macos-arm64'])['CMAKE_TOOLCHAIN_FILE'])"
    toolchain = run(sys.executable, "-c", asking, TOOLS).strip()
    build, to = tmp_path / "build", tmp_path / "installed"
    env = os.environ | {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    # Without a C++ library, which Zig would compile first.
    flags = ("-DCMAKE_CXX_FLAGS=-nostdlib++ -nostdinc++", "-DCMAKE_BUILD_TYPE=MinSizeRel")
    configure = (TOOLS / "cmake", "-G", "Ninja", "-S", project, "-B", build)
    run(*configure, *flags, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", env=env)
    run(TOOLS / "cmake", "--build", build, env=env)
    run(TOOLS / "cmake", "--install", build, "--prefix", to, env=env)
    program, library = (to / "run").read_bytes(), (to / "libit.dylib").read_bytes()
    assert b"@loader_path" in program
    assert str(tmp_path).encode() not in program
    assert b"_it" in library
    assert b"hidden_name" not in library
