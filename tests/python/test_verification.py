"""`verify`: right is right, wrong is named, and what was not checked is said."""

import re
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
from onnx2nn.check.compare import Random, compare
from onnx2nn.cli.output import print_report
from stand_in import make_model


def test_right_in_memory_and_written(core: object, tiny: Path, tmp_path: Path) -> None:
    report = onnx2nn.verify(tiny)
    assert report.ok
    assert report
    assert report.oracle is not None
    assert report.oracle.startswith("ONNX Runtime")
    (c,) = report.outputs
    assert c.argmax == 1.0
    assert c.shape == (1, 3)
    for out in ("net.py", "other.pth"):
        onnx2nn.convert(tiny, tmp_path / out)
        assert onnx2nn.verify(tiny, tmp_path / out).ok
    assert onnx2nn.verify(tiny, tiny).ok
    assert onnx2nn.verify(tiny, onnx2nn.load(tiny)).ok
    assert onnx2nn.verify(make_model()).ok


def test_a_wrong_weight_is_found_and_its_node_named(
    core: object, tiny: Path, tmp_path: Path
) -> None:
    onnx2nn.convert(tiny, tmp_path / "net.py")
    weights = load_file(tmp_path / "net.safetensors")
    weights["fc2.weight"][1, 2] += 3
    save_file(weights, tmp_path / "net.safetensors")
    report = onnx2nn.verify(tiny, tmp_path / "net.py", input_shapes={"x": [16, 4]})
    assert not report.ok
    first = report.first_difference
    assert first is not None
    assert (first.node, first.op_type, first.output, first.index) == ("gemm2", "Gemm", "scores", 2)
    assert first.inputs == [
        ("act", "float32", [16, 8]),
        ("onnx::fc2", "float32", [8, 3]),
        ("fc2.bias", "float32", [3]),
    ]
    assert [c.ok for c in report.nodes] == [True, True, False]


def test_per_node_on_demand(core: object, tiny: Path) -> None:
    report = onnx2nn.verify(tiny, per_node=True)
    assert report.ok
    assert [c.name for c in report.nodes] == ["hidden", "act", "scores"]
    assert report.first_difference is None


def test_a_batch_size_that_was_baked_in_is_found(core: object, tiny: Path, tmp_path: Path) -> None:
    onnx2nn.convert(tiny, tmp_path / "net.py")
    assert any("batch of 3" in n for n in onnx2nn.verify(tiny, tmp_path / "net.py").notes)
    code = (tmp_path / "net.py").read_text()
    (tmp_path / "net.py").write_text(code.replace("F.relu(hidden)", "F.relu(hidden.reshape(1, 8))"))
    report = onnx2nn.verify(tiny, tmp_path / "net.py")
    assert not report.ok
    assert report.error is not None
    assert report.inputs == [("x", "float32", [3, 4])]


def test_another_onnx_that_differs(core: object, tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny))
    model.graph.node[1].op_type = "Sigmoid"
    onnx.save(model, str(tmp_path / "b.onnx"))
    report = onnx2nn.verify(tiny, tmp_path / "b.onnx")
    assert not report.ok
    assert report.first_difference is not None
    assert report.first_difference.node == "relu"


def test_code_that_raises_is_a_finding(core: object, tiny: Path, tmp_path: Path) -> None:
    onnx2nn.convert(tiny, tmp_path / "net.py")
    code = (tmp_path / "net.py").read_text()
    (tmp_path / "net.py").write_text(code.replace("self.fc2(act)", "self.fc2(act[0, 0])"))
    report = onnx2nn.verify(tiny, tmp_path / "net.py")
    assert not report.ok
    assert report.error is not None
    assert "self.fc2(act[0, 0])" in report.error
    assert any("differs" in n for n in report.notes)


def test_inputs_given(core: object, tiny: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((5, 4), np.float32))
    report = onnx2nn.verify(tiny, inputs=tmp_path / "in.npz")
    assert report.ok
    assert report.inputs == [("x", "float32", [5, 4])]
    with pytest.raises(onnx2nn.Error, match="no input 'z'"):
        onnx2nn.verify(tiny, inputs={"z": np.zeros(3)})
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(onnx2nn.Error, match=r"not an \.npz"):
        onnx2nn.verify(tiny, inputs=tmp_path / "bad.npz")


def test_what_nobody_can_run_is_skipped_and_says_why(core: object) -> None:
    model = make_model()
    model.graph.node[1].op_type = "Magic"
    report = onnx2nn.verify(model)
    assert not report.ok
    assert report.skipped is not None
    assert "ONNX Runtime" in report.skipped
    assert "reference" in report.skipped


def test_missing_targets(core: object, tiny: Path, tmp_path: Path) -> None:
    for target, text in (
        ("no.py", "does not exist"),
        ("a.pt2", "does not exist"),
        ("a.pte", "not a"),
        ("a.txt", "not a"),
    ):
        with pytest.raises(onnx2nn.Error, match=text):
            onnx2nn.verify(tiny, tmp_path / target)
    (tmp_path / "broken.py").write_text("def load(:")
    with pytest.raises(onnx2nn.Error, match="cannot be executed"):
        onnx2nn.verify(tiny, tmp_path / "broken.py")


def test_random_outputs_are_compared_by_shape() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("RandomNormalLike", ["x"], ["y"]),
            helper.make_node("Relu", ["x"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3, 3]) for n in "yz"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.randn_like(x), x.relu()

    report = onnx2nn.verify(model, Net())
    assert report.ok
    assert [c.random for c in report.outputs] == [True, False]
    assert any("by shape only" in n for n in report.notes)


def array(*values: float, dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("want", "got", "ok"),
    [
        (array(1, 2, 3), array(1, 2, 3.00001), True),
        (array(1, 2, 3), array(1, 2, 3.01), False),
        # Small answers count as much as large ones.
        (array(1e-6, 2e-6, 3e-6), array(0, 0, 0), False),
        (array(1e6, 2e6, 3e6), array(1e6, 2e6, 3e6 + 1), True),
        (array(np.nan, 1, 2), array(np.nan, 1, 2), True),
        (array(np.nan, 1, 2), array(0, 1, 2), False),
        (array(np.inf, 1, 2), array(np.inf, 1, 2), True),
        (array(np.inf, 1, 2), array(-np.inf, 1, 2), False),
        (array(1, 2, 3), array(1, 2), False),
        (array(1, 2, 3), array(1, 2, 3, dtype="float64"), False),
        (array(1, 2, dtype="int64"), array(1, 2, dtype="int64"), True),
        (array(1, 2, dtype="int64"), array(1, 3, dtype="int64"), False),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), True),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), False),
        ([array(1), array(2)], [array(1), array(2)], True),
        ([array(1), array(2)], [array(1)], False),
        ([{1: 0.5, 2: 0.25}], [{1: 0.5, 2: 0.25}], True),
        ([{1: 0.5, 2: 0.25}], [{1: 0.5, 3: 0.25}], False),
        (None, None, True),
        (Random(array(1, 2)), array(5, 6), True),
        (Random(array(1, 2)), array(5, 6, 7), False),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), True),
    ],
)
def test_what_counts_as_the_same(want: object, got: object, ok: bool) -> None:
    c = compare("y", want, got)
    assert c.ok == ok
    assert (c.reason is None) == ok


def test_products_of_bytes_are_exact_on_every_cpu() -> None:
    rng = np.random.default_rng(0)
    constants = {
        "x_scale": np.float32(0.1),
        "x_zero": np.uint8(0),
        "w": rng.integers(-128, 128, (8, 64, 3, 3)).astype(np.int8),
        "w_scale": np.float32(0.001),
        "w_zero": np.int8(0),
        "y_scale": np.float32(1.0),
        "y_zero": np.uint8(128),
    }
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", ["x", *constants], ["y"])],
        "bytes",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 64, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    x = rng.integers(0, 256, (1, 64, 8, 8)).astype(np.uint8)
    report = onnx2nn.verify(model, inputs={"x": x})
    assert report.ok, report.outputs


def tiny_probabilities() -> onnx.ModelProto:
    """Sigmoids of about -17, where the oracle's own rounding is as large as the answer."""
    random = np.random.default_rng(0)
    constants = {
        "fc.weight": random.standard_normal((4, 6), np.float32) / 4,
        "fc.bias": np.full(6, -17, np.float32),
        "shape": np.array([0, 2, 3]),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["logits"], "fc"),
        helper.make_node("Sigmoid", ["logits"], ["p"], "squash"),
        helper.make_node("Reshape", ["p", "shape"], ["y"], "shaped"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [5, 4]), ("y", [5, 2, 3]))
    ]
    initializers = [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_oracles_rounding_of_a_sigmoid_is_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(tiny_probabilities(), str(tmp_path / "m.onnx"))
    report = onnx2nn.verify(tmp_path / "m.onnx")
    assert report.ok
    assert any("operators agrees on equal inputs" in note for note in report.notes)
    assert [c.rounding for c in report.outputs] == [True]
    assert report.to_dict()["outputs"][0]["rounding"] is True
    print_report(report, "m.onnx")
    assert re.search(r"^y +float32\[5, 2, 3\] .* rounding$", capsys.readouterr().out, re.MULTILINE)

    onnx2nn.convert(tmp_path / "m.onnx", tmp_path / "net.py")
    weights = load_file(tmp_path / "net.safetensors")
    weights["fc.bias"] += 1
    save_file(weights, tmp_path / "net.safetensors")
    report = onnx2nn.verify(tmp_path / "m.onnx", tmp_path / "net.py")
    assert not report.ok
    assert report.first_difference is not None
    assert report.first_difference.node == "fc"


@pytest.mark.parametrize(("dtype", "ok"), [("float16", True), ("float32", False)])
def test_a_model_in_half_precision_is_no_more_exact_for_full_outputs(dtype: str, ok: bool) -> None:
    """Converters to half precision keep inputs and outputs in float32 when they are asked to."""
    number = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}[dtype]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["a"], to=number),
            helper.make_node("Mul", ["a", "w"], ["b"]),
            helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [onnx.numpy_helper.from_array(np.full(8, 1.5, dtype), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1.5 + 0.001

    assert onnx2nn.verify(model, Rounded()).ok == ok


def test_check_without_the_compiler_of_torch(tmp_path: Path) -> None:
    """Its import takes as long as the whole check of a small model."""
    model = Path(__file__).parents[2] / "examples/digits.onnx"
    program = (
        "import sys, onnx2nn\n"
        f"onnx2nn.convert({str(model)!r}, 'net.py')\n"
        f"assert onnx2nn.verify({str(model)!r}, 'net.py').ok\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_every_output_of_a_branch_is_checked_on_equal_inputs(tmp_path: Path) -> None:
    """Branches name their values in an order of their own."""
    tiny = tiny_probabilities()
    nodes = [*tiny.graph.node[:2], helper.make_node("Neg", ["p"], ["a_in"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [5, 6]) for n in ("p", "a_in")]
    then = helper.make_graph(nodes, "then", [], ends)
    other = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "fc.weight"], ["q"]),
            helper.make_node("Neg", ["q"], ["r"]),
        ],
        "else",
        [],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [5, 6]) for n in ("q", "r")],
    )
    choice = helper.make_node(
        "If", ["c"], ["z", "a"], "choice", then_branch=then, else_branch=other
    )
    graph = helper.make_graph(
        [choice],
        "g",
        [tiny.graph.input[0], helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [5, 6]) for n in ("z", "a")],
        tiny.graph.initializer[:2],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"))
    report = onnx2nn.verify(tmp_path / "m.onnx")
    assert report.ok, report.outputs
    assert [c.name for c in report.nodes] == ["logits (then_branch of z)", "z", "a"]
    assert any(c.rounding for c in report.outputs)


def test_layers_that_a_file_numbers_otherwise(tmp_path: Path) -> None:
    """What is linear_2 here and is called linear_1 there was not changed."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal((4, 4)).astype("f"), str(i))
        for i in range(3)
    ]
    ops = [("MatMul", ["x", "0"], "a"), ("Tanh", ["a"], "b"), ("MatMul", ["b", "1"], "c")]
    ops += [("Tanh", ["c"], "d"), ("MatMul", ["d", "2"], "y")]
    nodes = [helper.make_node(op, inputs, [output]) for op, inputs, output in ops]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    onnx2nn.convert(tmp_path / "m.onnx", tmp_path / "net.py")
    names = {"linear_1": "first", "linear_2": "linear_1", "linear_3": "linear_2"}
    source, state = (tmp_path / "net.py").read_text(), load_file(tmp_path / "net.safetensors")
    source = re.sub(r"linear_\d", lambda m: names[m.group()], source)
    (tmp_path / "net.py").write_text(source)
    keys = {k: re.sub(r"linear_\d", lambda m: names[m.group()], k) for k in state}
    save_file({keys[k]: v for k, v in state.items()}, tmp_path / "net.safetensors")
    report = onnx2nn.verify(tmp_path / "m.onnx", tmp_path / "net.py", per_node=True)
    assert report.ok, report.first_difference
    assert not [n for n in report.notes if "model's own" in n]
