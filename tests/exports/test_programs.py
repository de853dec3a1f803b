"""Files that torch writes of a conversion: torch.export, AOTInductor, ExecuTorch."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.exports.environments import run
from torch import nn

import onnx2nn
from onnx2nn.errors import Error

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"


def program(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(str(path))


def two_inputs() -> onnx.ModelProto:
    """A batch and a length that both inputs share, one of them under another name too."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Mul", ["h", "gate"], ["g"]),
            helper.make_node("ReduceMean", ["g"], ["y"], axes=[1], keepdims=0),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 4]),
            helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["batch", "time", 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3)).astype("f"), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_dims_stay_open_under_their_names(tmp_path: Path) -> None:
    model = two_inputs()
    onnx2nn.convert(model, tmp_path / "net.pt2")
    exported = program(tmp_path / "net.pt2")
    net, page = exported.module(), onnx2nn.load(model)
    for batch, time in ((2, 3), (5, 7), (1, 9)):
        args = torch.randn(batch, time, 4), torch.rand(batch, time, 1)
        torch.testing.assert_close(net(*args), page(*args))
    with pytest.raises(Exception):  # noqa: B017 - of torch's own
        net(torch.randn(2, 3, 4), torch.rand(2, 4, 1))  # one length for both
    assert len(exported.range_constraints) == 2


def over_data() -> onnx.ModelProto:
    """y doubles x until its sum is above 100, or is x / 2 less 1 where that is negative at first."""
    node, info = helper.make_node, helper.make_tensor_value_info
    row, truth = [TensorProto.FLOAT, ["batch", 4]], [TensorProto.BOOL, []]

    def graph(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Any:
        return helper.make_graph(nodes, name, inputs, outputs)

    doubled = [
        node("Add", ["h_in", "h_in"], ["h_out"]),
        node("ReduceSum", ["h_out"], ["sum"], keepdims=0),
        node("Less", ["sum", "enough"], ["go_on"]),
    ]
    state = [info("i", TensorProto.INT64, []), info("go_in", *truth), info("h_in", *row)]
    step = graph("step", doubled, state, [info("go_on", *truth), info("h_out", *row)])
    then = [node("Identity", ["x"], ["h"]), node("Loop", ["", "is_little", "h"], ["a"], body=step)]
    other = [node("Div", ["x", "two"], ["half"]), node("Sub", ["half", "one"], ["b"])]
    nodes = [
        node("ReduceSum", ["x"], ["start"], keepdims=0),
        node("Greater", ["start", "zero"], ["is_positive"]),
        node("Less", ["start", "enough"], ["is_little"]),
        node(
            "If",
            ["is_positive"],
            ["y"],
            then_branch=graph("then", then, [], [info("a", *row)]),
            else_branch=graph("else", other, [], [info("b", *row)]),
        ),
    ]
    whole = graph("g", nodes, [info("x", *row)], [info("y", *row)])
    numbers = {"zero": 0, "one": 1, "two": 2, "enough": 100}
    whole.initializer.extend(numpy_helper.from_array(np.float32(v), k) for k, v in numbers.items())
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_branches_and_loops_over_data(tmp_path: Path) -> None:
    """Both ways are in the program, and the loop is one."""
    model, rows = over_data(), torch.tensor([[1.0, 2, 3, 4], [-3, -2, -1, 1]])
    page = onnx2nn.load(model)
    onnx2nn.convert(model, tmp_path / "net.pt2")
    net = program(tmp_path / "net.pt2").module()
    for x in (rows, -rows, rows.repeat(2, 1) * 20, rows[:1]):
        torch.testing.assert_close(net(x), page(x))
    assert not any("operator" in name for name in type(page).forward.__globals__)


def unrolled() -> list[str]:
    """What torch itself makes of an LSTM."""
    torch.manual_seed(0)
    program = torch.export.export(torch.nn.LSTM(4, 3), (torch.randn(2, 1, 4),))
    return [str(n.target) for n in program.graph.nodes]


def test_the_length_of_a_layer_stays_open(tmp_path: Path) -> None:
    """Whatever torch has exported in this process before; and torch goes on as it did."""
    before = unrolled()
    rng, info = np.random.default_rng(0), helper.make_tensor_value_info
    weights = {"w": rng.normal(size=(1, 12, 4)), "r": rng.normal(size=(1, 12, 3))}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)],
        "g",
        [info("x", TensorProto.FLOAT, ["length", "batch", 4])],
        [info("y", TensorProto.FLOAT, ["length", 1, "batch", 3])],
        [numpy_helper.from_array(v.astype("f"), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx2nn.convert(model, tmp_path / "net.pt2")
    net = program(tmp_path / "net.pt2").module()
    for length, batch in ((2, 3), (9, 2)):
        x = torch.randn(length, batch, 4)
        torch.testing.assert_close(net(x), onnx2nn.load(model)(x))
    assert unrolled() == before


def test_nothing_of_this_machine_is_in_it(tmp_path: Path) -> None:
    """Stack traces are of the page alone: torch would write the paths of its own files."""
    onnx2nn.convert(DIGITS, tmp_path / "net.pt2")
    traces = [n.meta.get("stack_trace", "") for n in program(tmp_path / "net.pt2").graph.nodes]
    assert any('File "Digits.py", line' in t for t in traces)
    assert not any("torch" in t or "onnx2nn_loaded" in t for t in traces)


def test_keys_are_those_of_the_page(tmp_path: Path) -> None:
    onnx2nn.convert(DIGITS, tmp_path / "net.pt2")
    exported, page = program(tmp_path / "net.pt2"), onnx2nn.load(DIGITS)
    assert {*exported.state_dict} == {*page.state_dict()}


def test_it_is_checked(tmp_path: Path) -> None:
    onnx2nn.convert(DIGITS, tmp_path / "net.pt2")
    assert onnx2nn.verify(DIGITS, tmp_path / "net.pt2").ok
    other = onnx2nn.load(two_inputs())
    args = torch.randn(2, 3, 4), torch.rand(2, 3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(other, args), str(tmp_path / "other.pt2"))
    assert not onnx2nn.verify(DIGITS, tmp_path / "other.pt2").ok


def test_files_of_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), str(path))
    before = path.read_bytes()
    with pytest.raises(Error, match="did not write"):
        onnx2nn.convert(DIGITS, path)
    assert path.read_bytes() == before
    onnx2nn.convert(DIGITS, path, force=True)
    onnx2nn.convert(DIGITS, path)  # ours may be replaced
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]


def test_what_torch_cannot_export_is_said(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("StringConcat", ["a", "a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("b", TensorProto.STRING, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(Error, match="export"):
        onnx2nn.convert(model, tmp_path / "net.pt2")
    assert not [*tmp_path.iterdir()]


FULL_DISK = """
import resource, signal, sys
import onnx2nn
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # every larger file ends in an error
try:
    if sys.argv[2].endswith(".onnx"):
        onnx2nn.export_onnx(onnx2nn.load(sys.argv[1]), sys.argv[1], sys.argv[2])
    else:
        onnx2nn.convert(sys.argv[1], sys.argv[2])
except onnx2nn.Error as error:
    sys.exit(3)
"""


@pytest.mark.parametrize("name", ["net.pt2", "net.pt", "net.pth", "net.onnx"])
def test_a_disk_that_is_full(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(DIGITS), str(path)], check=False)
    assert done.returncode == 3
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_aot_inductor(tmp_path: Path) -> None:
    """torch compiles the program to a package that runs without Python source."""
    onnx2nn.convert(DIGITS, tmp_path / "net.pt2")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        package = torch._inductor.aoti_compile_and_package(
            program(tmp_path / "net.pt2"), package_path=str(tmp_path / "compiled.pt2")
        )
        net = torch._inductor.aoti_load_package(package)
        x = torch.randn(3, 1, 8, 8)
        torch.testing.assert_close(net(x), onnx2nn.load(DIGITS)(x), atol=1e-4, rtol=1e-4)


WRITE_AND_RUN = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import numpy as np, torch, onnx2nn
from executorch.runtime import Runtime
onnx2nn.convert(sys.argv[2], "net.pte")
onnx2nn.convert(sys.argv[2], "net.pte")  # ours may be replaced
x = torch.from_numpy(np.load("x.npy"))
method = Runtime.get().load_program("net.pte").load_method("forward")
print(json.dumps(method.execute([x])[0].tolist()))
"""


def attention() -> onnx.ModelProto:
    """Two heads, after which batch and length become one axis, as GPT-2's exporters write it."""
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Reshape", ["x", "apart"], ["heads"]),
        node("Transpose", ["heads"], ["q"], perm=[0, 2, 1, 3]),
        node("Transpose", ["heads"], ["k"], perm=[0, 2, 3, 1]),
        node("MatMul", ["q", "k"], ["s"]),
        node("Div", ["s", "scale"], ["scaled"]),
        node("Softmax", ["scaled"], ["p"], axis=-1),
        node("MatMul", ["p", "q"], ["of_heads"]),
        node("Transpose", ["of_heads"], ["back"], perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "rows"], ["h"]),
        node("Gemm", ["h", "w", "b"], ["y"]),
    ]
    weights = {
        "apart": np.array([0, 3, 2, 4]),
        "rows": np.array([-1, 8]),
        "scale": np.float32(2),
        "w": np.random.default_rng(0).normal(size=(8, 5)).astype("f"),
        "b": np.ones(5, "f"),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 3, 8])],
        [info("y", TensorProto.FLOAT, [None, 5])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def talking_heads() -> onnx.ModelProto:
    """A softmax between convolutions, as EfficientFormerV2 has it: not over the axis that they have last."""
    node, info = helper.make_node, helper.make_tensor_value_info
    weights = np.random.default_rng(0).normal(size=(2, 4, 4, 1, 1)).astype("f")
    graph = helper.make_graph(
        [
            node("Conv", ["x", "w0"], ["h"]),
            node("Softmax", ["h"], ["p"], axis=-1),
            node("Conv", ["p", "w1"], ["y"]),
        ],
        "g",
        [info("x", TensorProto.FLOAT, [2, 4, 5, 5])],
        [info("y", TensorProto.FLOAT, [2, 4, 5, 5])],
        [numpy_helper.from_array(w, f"w{k}") for k, w in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def volumes() -> onnx.ModelProto:
    """Convolutions of three axes, of which ExecuTorch has no kernel: with strides, pads, holes, and in groups."""
    node, info = helper.make_node, helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(6, 2, 3, 3, 3)).astype("f"),
        "b0": rng.normal(size=6).astype("f"),
        "w1": rng.normal(size=(4, 3, 2, 1, 3)).astype("f"),
    }
    graph = helper.make_graph(
        [
            node("Conv", ["x", "w0", "b0"], ["h"], strides=[2, 1, 2], pads=[1, 1, 1, 1, 1, 1]),
            node("Relu", ["h"], ["r"]),
            node("Conv", ["r", "w1"], ["y"], group=2, dilations=[2, 1, 1]),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 2, 6, 6, 8])],
        [info("y", TensorProto.FLOAT, ["batch", 4, 1, 6, 2])],
        [numpy_helper.from_array(w, k) for k, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_executorch(tmp_path: Path) -> None:
    """.pte files, run by ExecuTorch's own runtime."""
    cases = [(DIGITS, (1, 1, 8, 8))]
    for model, shape in (
        (attention(), (2, 3, 8)),
        (talking_heads(), (2, 4, 5, 5)),
        (volumes(), (2, 2, 6, 6, 8)),
    ):
        cases.append((tmp_path / f"{len(cases)}.onnx", shape))
        onnx.save(model, cases[-1][0])
    for path, shape in cases:
        x = torch.randn(shape)
        np.save(tmp_path / "x.npy", x.numpy())
        got = run("executorch", WRITE_AND_RUN, tmp_path, str(ROOT / "python"), str(path))
        torch.testing.assert_close(torch.tensor(got), onnx2nn.load(path)(x), atol=1e-4, rtol=1e-4)


def test_without_executorch(tmp_path: Path) -> None:
    with pytest.raises(Error, match="pip install executorch"):
        onnx2nn.convert(DIGITS, tmp_path / "net.pte")
