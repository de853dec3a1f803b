"""The package over the real core, on the example model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

import onnx2nn
from onnx2nn.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.onnx"


def test_convert_and_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(EXAMPLE)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.py", "digits.safetensors"]
    out, err = capsys.readouterr()
    assert "right" in out
    assert "ONNX Runtime" in out
    assert err == ""
    # What it says at its end is true.
    lines = [line[4:] for line in out.split("Use it:\n")[1].splitlines()]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, cwd=tmp_path)


def test_pth(tmp_path: Path) -> None:
    result = onnx2nn.convert(EXAMPLE, tmp_path / "net.pth")
    assert {Path(f).name for f in result.files} == {"net.py", "net.pth"}
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    assert state
    assert onnx2nn.verify(EXAMPLE, tmp_path / "net.pth").ok
    assert onnx2nn.verify(EXAMPLE, tmp_path / "net.py").ok


def test_two_conversions_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        onnx2nn.convert(EXAMPLE, tmp_path / name / "net.py")
    for file in ("net.py", "net.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("simplify", [True, False])
def test_load_from_everything(simplify: bool) -> None:
    want = None
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 1, 8, 8), np.float32))
    proto = onnx.load(EXAMPLE)
    dims = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = torch.randn(3, *dims[1:], generator=torch.Generator().manual_seed(0))
    for model in (EXAMPLE, str(EXAMPLE), EXAMPLE.read_bytes(), proto):
        y = onnx2nn.load(model, simplify=simplify)(x)
        want = y if want is None else want
        torch.testing.assert_close(y, want)


def test_a_planted_wrong_weight_is_named(tmp_path: Path) -> None:
    onnx2nn.convert(EXAMPLE, tmp_path / "net.py")
    weights = load_file(tmp_path / "net.safetensors")
    first = next(n for n in onnx.load(EXAMPLE).graph.node if n.op_type == "Conv")
    key = next(k for k in weights if weights[k].dim() == 4 and k in first.input)
    weights[key][0] += 1
    save_file(weights, tmp_path / "net.safetensors")
    report = onnx2nn.verify(EXAMPLE, tmp_path / "net.py")
    assert not report.ok
    assert report.first_difference is not None
    assert report.first_difference.op_type == "Conv"
    assert report.first_difference.index == 0


def test_per_node() -> None:
    report = onnx2nn.verify(EXAMPLE, per_node=True)
    assert report.ok
    assert len(report.nodes) >= 3
    assert all(c.ok for c in report.nodes)


def test_a_refusal_names_each_operator_once_with_its_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(EXAMPLE)
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Magic"
    onnx.save(model, tmp_path / "magic.onnx")
    assert main([str(tmp_path / "magic.onnx")]) == 1
    err = capsys.readouterr().err
    assert err.count("error[") == 1
    assert err.count("/layer2/Relu") == 2
    assert "5 errors in 1 operator type" in err
    with pytest.raises(onnx2nn.Error) as e:
        onnx2nn.load(model)
    assert len(e.value.diagnostics) == 5


def test_a_registered_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx2nn.custom_ops.known_ops", {})
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="custom", scale=3.0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(onnx2nn.Error, match="Twice"):
        onnx2nn.load(model)

    def twice(x, scale=2.0):  # type: ignore[no-untyped-def]
        return x * scale

    onnx2nn.register_op("custom", "Twice", twice)
    assert onnx2nn.load(model)(torch.ones(2)).tolist() == [3, 3]


def test_inspect() -> None:
    found = onnx2nn.inspect(EXAMPLE)
    assert found["convertible"]
    assert found["op_types"]["Conv"] >= 1
    assert found["inputs"][0]["dtype"] == "float32"


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 64, EXAMPLE.read_bytes()[:200]])
def test_what_is_no_model_is_unreadable(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert main([str(path), "-o", str(tmp_path / "bad.py")]) == 3
    assert "error" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["bad.onnx"]


def test_a_conversion_alone_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom onnx2nn.cli import main\n"
        f"assert main(['convert', {str(EXAMPLE)!r}, '-o', 'x.py', '--no-verify', '-q']) == 0\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    package = str(Path(onnx2nn.__file__).parent.parent)
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": package}
    )
