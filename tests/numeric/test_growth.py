"""What simplification writes is no larger than what it read, but for shapes and small tables."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import onnx2nn
import onnx2nn._native as native

N = helper.make_node
MODELS = Path(os.environ.get("ONNX2NN_MODELS", Path(__file__).parents[3] / "shared" / "models"))
LARGEST = 1 << 20


def model_of(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def floats(name: str, *dims: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)


def answer(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def same(model: onnx.ModelProto, smaller: onnx.ModelProto, feeds: dict[str, Any]) -> None:
    np.testing.assert_allclose(answer(smaller, feeds), answer(model, feeds), 1e-5, 1e-6)
    assert smaller.ByteSize() <= model.ByteSize() + max(1024, model.ByteSize() // 100)


def test_a_tied_weight_stays_one_in_branches() -> None:
    """Both branches transpose the embedding; the graph around them gathers from it."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(256, 64)).astype(np.float32)

    def branch(scale: float) -> onnx.GraphProto:
        nodes = [
            N("Transpose", ["w"], ["t"], perm=[1, 0]),
            N("MatMul", ["e", "t"], ["m"]),
            N("Mul", ["m", "s"], ["b"]),
        ]
        s = numpy_helper.from_array(np.float32(scale), "s")
        return helper.make_graph(nodes, "branch", [], [floats("b", "n", 256)], [s])

    nodes = [
        N("Gather", ["w", "ids"], ["e"]),
        N("If", ["c"], ["y"], then_branch=branch(2.0), else_branch=branch(3.0)),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
    ]
    model = model_of(nodes, inputs, [floats("y", "n", 256)], {"w": w})
    smaller = onnx2nn.simplify(model, check_n=0)[0]
    for c in (True, False):
        same(model, smaller, {"ids": np.array([3, 5, 250]), "c": np.array(c)})


def test_a_tied_weight_stays_one() -> None:
    w = np.random.default_rng(1).normal(size=(256, 64)).astype(np.float32)
    nodes = [
        N("Gather", ["w", "ids"], ["e"]),
        N("Transpose", ["w"], ["t"], perm=[1, 0]),
        N("MatMul", ["e", "t"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])
    model = model_of(nodes, [ids], [floats("y", "n", 256)], {"w": w})
    same(model, onnx2nn.simplify(model, check_n=0)[0], {"ids": np.array([3, 5, 250])})


def mask_model(n: int) -> onnx.ModelProto:
    """A mask by comparing all places with all others, as the windows of a Swin have."""
    constants = {
        "zero": np.int64(0),
        "n": np.int64(n),
        "one": np.int64(1),
        "column": np.array([-1, 1]),
        "low": np.float32(-100),
        "none": np.float32(0),
        "w": np.full((128, n * n), 0.5, np.float32),
    }
    nodes = [
        N("Range", ["zero", "n", "one"], ["r"]),
        N("Reshape", ["r", "column"], ["c"]),
        N("Sub", ["r", "c"], ["d"]),
        N("Equal", ["d", "zero"], ["e"]),
        N("Where", ["e", "low", "none"], ["m"]),
        N("Add", ["x", "m"], ["s"]),
        N("Flatten", ["s"], ["f"], axis=0),
        N("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    return model_of(nodes, [floats("x", n, n)], [floats("y", 1, 128)], constants)


def test_a_mask_is_folded_over_larger_steps() -> None:
    """Differences in int64 are twice as large as the mask, which is a hundredth of the model."""
    model = mask_model(64)
    smaller = onnx2nn.simplify(model, check_n=0)[0]
    assert [n.op_type for n in smaller.graph.node][:1] == ["Add"]
    assert not {"Range", "Sub", "Equal", "Where"} & {n.op_type for n in smaller.graph.node}
    same(model, smaller, {"x": np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)})
    source = native.convert(model.SerializeToString(), {}).source
    assert "arange" not in source
    assert "where" not in source


def test_what_would_be_large_is_computed() -> None:
    constants = {"s": np.array([512, 512])}
    nodes = [N("ConstantOfShape", ["s"], ["z"]), N("Add", ["x", "z"], ["a"]), N("Exp", ["z"], ["e"]), N("Mul", ["a", "e"], ["y"])]  # fmt: skip
    model = model_of(nodes, [floats("x", 512, 512)], [floats("y", 512, 512)], constants)
    smaller = onnx2nn.simplify(model, check_n=0)[0]
    assert smaller.ByteSize() < 4096


def files() -> list[Path]:
    return sorted(p for p in MODELS.rglob("*.onnx") if p.stat().st_size <= LARGEST)


@pytest.mark.skipif(not MODELS.is_dir(), reason="no folder of real models: set ONNX2NN_MODELS")
def test_no_real_model_grows(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    grown = []
    for path in files():
        result = native.simplify(str(path), str(out), {})
        if not result["ok"]:
            continue
        if any(Path(f).suffix != ".onnx" for f in result["files"]):
            continue  # with external data, sizes of single files say nothing
        # Types of values are written, and functions inlined: neither is what folding adds.
        smaller = onnx.load(out)
        if not onnx.load(path, load_external_data=False).functions:
            del smaller.graph.value_info[:]
            before, after = path.stat().st_size, smaller.ByteSize()
            if after > before + max(1024, before // 100):
                grown.append(f"{path.relative_to(MODELS)}: {before} -> {after}")
        out.unlink()
    assert not grown, "\n".join(grown)
