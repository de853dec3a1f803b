"""The emitted source of small models, beside the models: the diff is what a reviewer reads.

ONNX2NN_ACCEPT=1 writes the expected sources anew.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import onnx2nn
from onnx2nn import _native

HERE = Path(__file__).parent
CORPUS = HERE.parents[2] / "shared" / "models"
MODELS = sorted(HERE.glob("*.onnx"))
ACCEPT = bool(os.environ.get("ONNX2NN_ACCEPT"))


def source_of(path: Path) -> str:
    conversion = _native.convert(str(path))
    assert conversion.ok, conversion.diagnostics_text
    return conversion.source


def test_models_are_what_the_script_makes(tmp_path: Path) -> None:
    script = HERE / "make_models.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    made = sorted(tmp_path.glob("*.onnx"))
    assert [p.name for p in made] == [p.name for p in MODELS]
    for p in made:
        assert p.read_bytes() == (HERE / p.name).read_bytes(), p.name


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_source(path: Path) -> None:
    expected = path.with_suffix(".py")
    source = source_of(path)
    if ACCEPT:
        expected.write_text(source)
    assert source == expected.read_text(), "ONNX2NN_ACCEPT=1 accepts the change"
    assert source == source_of(path)


@pytest.mark.parametrize("simplify", [True, False], ids=["simplified", "plain"])
@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_answers(path: Path, simplify: bool) -> None:
    """At two sizes of every free dimension, against ONNX Runtime."""
    model = onnx.load(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    net = onnx2nn.load(path, simplify=simplify)
    random = np.random.default_rng(0)
    for size in (2, 3):
        feed = {}
        for i in model.graph.input:
            dims = i.type.tensor_type.shape.dim
            shape = [d.dim_value or size for d in dims]
            if i.type.tensor_type.elem_type == onnx.TensorProto.INT64:
                feed[i.name] = random.integers(0, 11, shape)
            else:
                feed[i.name] = random.standard_normal(shape).astype(np.float32)
        with torch.no_grad():
            result = net(*[torch.from_numpy(v) for v in feed.values()])
        outputs = result if isinstance(result, tuple) else (result,)
        for expected, output in zip(session.run(None, feed), outputs, strict=True):
            np.testing.assert_allclose(output.numpy(), expected, rtol=1e-4, atol=1e-5)


def corpus_models(count: int = 40, limit: int = 1 << 20) -> list[Path]:
    """Small real models, of as many owners as there are."""
    if not CORPUS.is_dir():
        return []
    chosen = []
    for folder in sorted(p for p in CORPUS.iterdir() if p.is_dir()):
        fitting = [p for p in sorted(folder.rglob("*.onnx")) if p.stat().st_size < limit]
        chosen += fitting[:1]
    return chosen[:count]


def ruff(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--no-cache", str(folder)]
    # Not from the project's folder, where src/torch would pass for the package.
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr


def emit(models: list[Path], folder: Path) -> int:
    """Writes what is emitted for the models; how many there are."""
    for i, path in enumerate(models):
        conversion = _native.convert(str(path))
        if conversion.ok:
            (folder / f"m{i}_{path.stem[:40]}.py").write_text(conversion.source)
    return len(list(folder.glob("*.py")))


def test_golden_sources_are_formatted(tmp_path: Path) -> None:
    """What is emitted is what `ruff format` would write, and has no errors."""
    assert emit(MODELS, tmp_path) == len(MODELS)
    ruff(tmp_path, "format", "--diff")
    ruff(tmp_path, "check")


def test_real_sources_are_formatted(tmp_path: Path) -> None:
    """The same for real models."""
    models = corpus_models()
    if not models:
        pytest.skip("../shared/models is not there")
    emit(models, tmp_path)
    ruff(tmp_path, "check")
    ruff(tmp_path, "format", "--diff")
