"""Inputs that are given: taken where they fit, and refused in words where they do not."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from onnx2nn.check.given import Unfit, check_shapes, given_inputs
from onnx2nn.check.inputs import candidates, wanted_inputs
from onnx2nn.check.verification import verify
from onnx2nn.cli import main
from onnx2nn.errors import Error

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def model(graph: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + graph)


RELU = "g (float[n,3] x) => (float[n,3] y) { y = Relu (x) }"
TWO = "g (float[n] x, int64[n] k) => (float[n] y) { c = Cast <to = 1> (k)  y = Add (x, c) }"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            np.zeros((2, 3)),
            r"'x' is float64, the model wants float32: pass x.astype\(numpy.float32\)",
        ),
        (np.zeros((2, 3), np.int32), r"is int32, the model wants float32: pass x"),
        (np.array([["a", "b", "c"]]), "is strings, the model wants float32$"),
        (np.zeros(3, np.float32), r"has 1 dims, \[3\], the model wants \[n, 3\]"),
        (np.zeros((2, 4), np.float32), r"is of shape \[2, 4\], the model wants \[n, 3\]"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(value: Any, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        given_inputs(model(RELU), {"x": value})
    report = verify(model(RELU), inputs={"x": value})
    assert not report.ok
    assert report.skipped is not None
    assert report.oracle is None


def test_numbers_of_python_are_taken() -> None:
    found = given_inputs(model(RELU), {"x": [[1, 2, 3]]})
    assert found["x"].dtype == np.float32
    assert verify(model(RELU), inputs={"x": [[1, 2, 3]]}).ok
    with pytest.raises(Unfit, match="model wants float32"):
        given_inputs(model(RELU), {"x": [["a"]]})


def test_narrow_types_survive_a_file(tmp_path: Path) -> None:
    proto = model("g (bfloat16[n] x) => (float[n] y) { y = Cast <to = 1> (x) }")
    x = np.array([1, -2.5], ml_dtypes.bfloat16)
    np.savez(tmp_path / "x.npz", x=x)
    got = given_inputs(proto, tmp_path / "x.npz")["x"]
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, x)


def test_a_shape_that_the_model_does_not_take() -> None:
    check_shapes(model(RELU), {"x": [7, 3]})
    with pytest.raises(Unfit, match=r"\[7, 4\]"):
        check_shapes(model(RELU), {"x": [7, 4]})
    assert verify(model(RELU), input_shapes={"x": [7, 4]}).skipped


def test_files(tmp_path: Path) -> None:
    x = np.ones((2, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(given_inputs(model(RELU), tmp_path / "x.npy")["x"], x)
    with pytest.raises(Error, match=r"model of 2 inputs; .*numpy.savez: x, k"):
        given_inputs(model(TWO), tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", **{"in:x": x, "out:y": x})
    assert list(given_inputs(model(RELU), tmp_path / "x.npz")) == ["x"]
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-30])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-3])
    (tmp_path / "m.onnx").write_bytes(model(RELU).SerializeToString())
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    for name, said in {
        "cut.npz": "damaged",
        "cut.npy": "damaged",
        "m.onnx": "not an .npz or .npy file",
        "objects.npz": "Python objects",
        "gone.npz": "No such file",
        ".": "directory",
    }.items():
        with pytest.raises(Error, match=said) as caught:
            given_inputs(model(RELU), tmp_path / name)
        assert caught.value.unreadable
        assert "pickle" not in str(caught.value)


def test_the_command_line_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(RELU), path)
    assert main(["verify", str(path), "--input", str(path)]) not in (0, 70)
    assert main(["verify", str(path), "--seed", "-1"]) not in (0, 70)
    said = capsys.readouterr()
    assert "our fault" not in said.err
    assert "seed" in said.err


ZEROS = """g (float[0,3,0,0] x) => (float[0,4,0,0] y) <float[4,3,1,1] w = {1,2,3,4,5,6,7,8,9,1,2,3}>
{ y = Conv (x, w) }"""


def test_a_dim_declared_as_0_gets_other_sizes_first() -> None:
    (w,) = wanted_inputs(model(ZEROS))
    assert (w.dims, w.zeros) == (["", 3, "", ""], {0, 2, 3})
    shapes = [c["x"].shape for c in candidates(model(ZEROS))]
    assert shapes[0] == (1, 3, 224, 224)
    assert (0, 3, 0, 0) in shapes
    report = verify(model(ZEROS), simplify=False)
    assert report.oracle is not None
    assert report.oracle.startswith("ONNX Runtime")
    assert report.inputs[0][2] == [1, 3, 224, 224]


def test_an_empty_tensor_where_the_model_takes_nothing_else() -> None:
    graph = """g (float[0] x, float[2] z) => (float[n] y)
    <int64[1] nothing = {0}> { e = Reshape <allowzero = 1> (x, nothing)  y = Concat <axis = 0> (e, z) }"""
    report = verify(model(graph))
    assert report.ok
    assert [i[2] for i in report.inputs] == [[0], [2]]


def test_empty_outputs_are_no_evidence() -> None:
    # All that is given out is nothing, for any input.
    graph = "g (float[n] x) => (float[m] y) <int64[1] z = {0}> { y = Slice (x, z, z) }"
    report = verify(model(graph))
    assert not report.ok
    assert "empty" in str(report.skipped)
    # Others are looked for where the first show nothing: the input is long enough for one only.
    graph = """g (float[1,n] x) => (float[m] y)
    <int64[1] s = {300}, int64[1] e = {9999}, int64[1] a = {1}, int64[1] f = {-1}>
    { t = Slice (x, s, e, a)  y = Reshape (t, f) }"""
    report = verify(model(graph))
    assert report.ok
    assert report.outputs[0].shape != (0,)


@pytest.mark.parametrize(
    ("inputs", "nodes"),
    [
        (
            "float[4] x, int64 k",
            "s = Unsqueeze (k, a)  t = Concat <axis = 0> (s, m)  y = Reshape (x, t)",
        ),
        ("float[1] x, int64[1] k", "y = Expand (x, k)"),
        (
            "float[1] x, int64 k",
            "t = Unsqueeze (k, a)  s = Concat <axis = 0> (t, t)  y = Expand (x, s)",
        ),
        ("float x, int64 k", "r = Range (n, k, o)  f = Cast <to = 1> (r)  y = Add (f, x)"),
        ("float[5] x, int32 k", "i = Cast <to = 7> (k)  t = Unsqueeze (i, a)  y = Slice (x, a, t)"),
        ("float[5] x, int64[1] k", "h = Div (k, o)  y = Tile (x, h)"),
        ("float x, int64[2] k", "y = ConstantOfShape (k)"),
        (
            "float[3] x, int64 k",
            "i = Cast <to = 7> (x)  h = OneHot (i, k, v)  y = Cast <to = 1> (h)",
        ),
    ],
)
def test_sizes_are_never_0(inputs: str, nodes: str) -> None:
    constants = (
        "<int64[1] a = {0}, int64[1] m = {-1}, int64 n = {0}, int64 o = {1}, int64[2] v = {0, 1}>"
    )
    proto = model(f"g ({inputs}) => (float[] y) {constants} {{ {nodes} }}")
    (w,) = [w for w in wanted_inputs(proto) if w.name == "k"]
    assert w.role.kind != "plain"
    for seed in range(3):
        assert all(c["k"].min() > 0 for c in candidates(proto, seed))
    report = verify(proto)
    assert report.ok, report
    assert report.outputs[0].shape
    assert 0 not in report.outputs[0].shape


def test_inputs_too_large_to_draw() -> None:
    report = verify(model("g (float[8589934592] x) => (float[n] y) { y = Relu (x) }"))
    assert not report.ok
    assert "too many to draw" in str(report.skipped)
