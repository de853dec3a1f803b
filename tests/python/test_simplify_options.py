"""What the simplifier is asked for, on both command lines and in Python, is what it does."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onnx2nn
from onnx2nn import cli, simplification
from onnx2nn.errors import Error
from programs import PROGRAM


def normed() -> onnx.ModelProto:
    """Conv and BatchNormalization, an open batch, and a constant that folding would enlarge."""
    rng = np.random.default_rng(1)
    held = {"w": rng.standard_normal((4, 3, 1, 1)).astype(np.float32)}
    held |= {k: np.abs(rng.standard_normal(4)).astype(np.float32) + 1 for k in "stmv"}
    held |= {
        "row": rng.standard_normal((1, 1, 8, 8)).astype(np.float32),
        "times": np.array([1, 4, 1, 1]),
    }
    graph = h.make_graph(
        [
            h.make_node("Conv", ["x", "w"], ["c"], "conv"),
            h.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], "norm"),
            h.make_node("Tile", ["row", "times"], ["large"], "tile"),
            h.make_node("Mul", ["n", "large"], ["p"], "mul"),
            h.make_node("Relu", ["p"], ["y"], "relu"),
            h.make_node("Neg", ["p"], ["z"], "neg"),
        ],
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, ["batch", 3, 8, 8])],
        [h.make_tensor_value_info(n, T.FLOAT, ["batch", 4, 8, 8]) for n in "yz"],
        [numpy_helper.from_array(v, k) for k, v in held.items()],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(normed(), "m.onnx")


def types(model: onnx.ModelProto | None = None) -> list[str]:
    model = model or onnx.load("out.onnx")
    return [n.op_type for n in model.graph.node]


def batch(model: onnx.ModelProto | None = None) -> Any:
    dim = (model or onnx.load("out.onnx")).graph.input[0].type.tensor_type.shape.dim[0]
    return dim.dim_value or dim.dim_param


def run(*args: str) -> int:
    return cli.main(["simplify", "m.onnx", "out.onnx", *args])


def program(*args: str) -> int:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built")
    command = [str(PROGRAM), "simplify", "m.onnx", "out.onnx", *args]
    return subprocess.run(command, capture_output=True).returncode


@pytest.mark.parametrize("call", [run, program])
def test_both_command_lines_mean_the_same(call: Any) -> None:
    assert call() == 0
    assert types() == ["Conv", "Mul", "Relu", "Neg"]
    assert batch() == "batch"
    for flag in ("--input_shape", "--input-shape", "--overwrite-input-shape"):
        assert call(flag, "x:2,3,8,8") == 0
        assert batch() == 2
    for flag in ("--disable", "--skip-optimization"):
        assert call(flag, "fuse-batch-norm") == 0
        assert "BatchNormalization" in types()
    assert call("--only", "fuse-batch-norm") == 0
    assert types() == ["Conv", "Tile", "Mul", "Relu", "Neg"]
    assert call("--no-large-tensor", "100") == 0
    assert "Tile" in types()
    assert call("--no-large-tensor", "1MB") == 0
    assert "Tile" not in types()
    assert call("--no-large-tensor") == 0
    assert "Tile" not in types()  # 1 KiB, and no more
    assert call("--stop-after", "0") == 0
    assert types() == types(normed())
    assert call("--no-check", "--why-not", "fuse-batch-norm") == 0
    assert call("--disable", "fuse-bach-norm") == 2
    assert call("--input_shape", "nothing:1") == 2


def test_shapes_to_check_with_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--test-input-shape", "x:5,3,8,8") == 0
    assert batch() == "batch"
    assert "x float32[5, 3, 8, 8]" in " ".join(capsys.readouterr().out.split())


def test_several_values_after_one_flag_as_onnxsim_takes_them() -> None:
    assert run("--skip-optimization", "fuse_bn_into_conv", "eliminate_unused_thing") == 0
    assert "BatchNormalization" in types()
    assert run("--skip-optimization") == 0
    assert types() == ["Conv", "BatchNormalization", "Mul", "Relu", "Neg"]
    assert run("--overwrite-input-shape", "x:2,3,8,8", "x:4,3,8,8") == 0
    assert batch() == 4


def test_misspelt_rules_are_told_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--disable", "fuse-bach-norm") == 2
    assert "did you mean fuse-batch-norm?" in capsys.readouterr().err
    with pytest.raises(Error, match=r"did you mean .*fuse-pad"):
        onnx2nn.simplify("m.onnx", skipped_optimizers=["fuse-pd"])


def test_no_check_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--no-check") == 0
    assert "not checked" in capsys.readouterr().out


SHAPES = {"x": [2, 3, 8, 8]}
DATA = {"x": np.zeros((2, 3, 8, 8), np.float32)}


def test_both_of_onnxsims_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    real = simplification.simplify_checked

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(options)
        return real(*args, **{**options, "check_n": 0})

    monkeypatch.setattr(simplification, "simplify_checked", spy)
    skipped = ["fuse_bn_into_conv"]
    new = (3, True, False, SHAPES, None, skipped, False, False, DATA, False, "lib.so")
    old = (3, True, False, SHAPES, skipped, False, DATA, False, "lib.so")
    for order in (new, old):
        model, ok = onnx2nn.simplify("m.onnx", *order)
        assert ok
        assert "BatchNormalization" in types(model)
        assert batch(model) == 2
    assert seen[0] == seen[1]
    assert seen[0]["check"] == {"inputs": DATA, "input_shapes": None, "custom_lib": "lib.so"}
    onnx2nn.simplify("m.onnx", 3, True, False, None, None, False, DATA, False, None)
    assert seen[-1]["check"]["inputs"] is DATA
    assert seen[-1]["disabled"] == []


def test_arguments_do_what_they_say() -> None:
    model, ok = onnx2nn.simplify(normed(), perform_optimization=False)
    assert ok
    assert types(model) == ["Conv", "BatchNormalization", "Mul", "Relu", "Neg"]
    assert "Tile" in types(onnx2nn.simplify("m.onnx", skip_constant_folding=True)[0])
    assert "Tile" in types(onnx2nn.simplify("m.onnx", tensor_size_threshold="100")[0])
    assert "BatchNormalization" in types(onnx2nn.simplify("m.onnx", skip_fuse_bn=True)[0])
    model, ok = onnx2nn.simplify(normed().SerializeToString(), unused_output=["z"])
    assert ok
    assert [o.name for o in model.graph.output] == ["y"]
    assert "Neg" not in types(model)
    with pytest.raises(Error, match="no output 'q'"):
        onnx2nn.simplify("m.onnx", unused_output=["q"])
    with pytest.raises(Error, match="mutable"):
        onnx2nn.simplify("m.onnx", mutable_initializer=True)
    with pytest.raises(TypeError):
        onnx2nn.simplify("m.onnx", no_such_argument=1)


def test_a_library_of_operators_that_cannot_be_loaded_is_an_error() -> None:
    Path("empty.so").touch()
    for lib in ("nowhere.so", "empty.so"):
        with pytest.raises(Error, match=lib):
            onnx2nn.simplify("m.onnx", custom_lib=lib)


def test_conversion_folds_norms_into_weights_where_asked() -> None:
    import torch

    x = torch.randn(2, 3, 8, 8)
    plain = onnx2nn.load("m.onnx")
    fused = onnx2nn.load("m.onnx", fuse=True)
    assert any("Norm" in type(m).__name__ for m in plain.modules())
    assert not any("Norm" in type(m).__name__ for m in fused.modules())
    with torch.no_grad():
        for want, got in zip(plain(x), fused(x), strict=True):
            torch.testing.assert_close(got, want)
    assert cli.main(["convert", "m.onnx", "-o", "net.py", "--fuse", "-q"]) == 0
    assert "BatchNorm" not in Path("net.py").read_text()
