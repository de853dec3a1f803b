"""A .pt file in C++: a program that links the libtorch of the installed wheel gets the page's numbers."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import onnx2nn

ROOT = Path(__file__).parents[2]
TORCH = Path(torch.__file__).parent
SHAPE = (2, 1, 8, 8)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built against the headers and libraries of torch."""
    compiler = shutil.which("c++")
    if compiler is None or not (TORCH / "include/torch/script.h").exists():
        pytest.skip("it needs a C++ compiler, and a torch that brings its headers")
    out = tmp_path_factory.mktemp("libtorch") / "run"
    library = TORCH / "lib"
    command = [
        compiler,
        "-std=c++20",
        "-O0",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-isystem{TORCH / 'include'}",
        f"-isystem{TORCH / 'include/torch/csrc/api/include'}",
        str(ROOT / "tests/libtorch/main.cpp"),
        f"-L{library}",
        f"-Wl,-rpath,{library}",
        "-Wl,--no-as-needed",
        "-ltorch",
        "-ltorch_cpu",
        "-lc10",
        "-o",
        str(out),
    ]
    subprocess.run(command, check=True, timeout=600)
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_libtorch_gives_the_numbers_of_the_page(program: Path, tmp_path: Path) -> None:
    model = ROOT / "examples/digits.onnx"
    onnx2nn.convert(model, tmp_path / "digits.pt")
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    (tmp_path / "x.bin").write_bytes(x.numpy().tobytes())
    done = subprocess.run(
        [program, "digits.pt", "x.bin", "y.bin", *map(str, SHAPE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = onnx2nn.load(model)(x).numpy()
    got = np.frombuffer((tmp_path / "y.bin").read_bytes(), np.float32).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
