"""Tables that an exporter computed and that one expression gives bit for bit: what stands on the page for them."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import onnx2nn
from onnx2nn.core import run_native
from onnx2nn.loading import build
from onnx2nn.source import as_source

N = 6
ROW, COLUMN = np.indices((N, N))
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LOW = np.float32(-1e4)


def added(table: np.ndarray) -> bytes:
    """x + table, through a cast where the table holds no floats."""
    cast = [helper.make_node("Cast", ["x"], ["y"], to=helper.np_dtype_to_tensor_dtype(table.dtype))]
    operation = "And" if table.dtype == bool else "Add"
    nodes = [
        *cast,
        helper.make_node(
            "Constant", [], ["/Constant_output_0"], value=numpy_helper.from_array(table)
        ),
        helper.make_node(operation, ["y", "/Constant_output_0"], ["z"]),
        helper.make_node("Cast", ["z"], ["out"], to=FLOAT),
    ]
    return model(nodes, [helper.make_tensor_value_info("x", FLOAT, ["batch", 1, N, N])])


def model(nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto]) -> bytes:
    out = helper.make_tensor_value_info("out", FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [out])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


CASES: dict[str, tuple[np.ndarray, str | None]] = {
    "arange": (np.arange(N), "torch.arange(6, device=x.device)"),
    "int32": (np.arange(N, dtype=np.int32), "torch.arange(6, dtype=torch.int32, device=x.device)"),
    "from": (np.arange(2, 2 + N)[None, None], "torch.arange(2, 8, device=x.device)"),
    "step": (np.arange(5, 5 - 2 * N, -2)[None], "torch.arange(5, -7, -2, device=x.device)"),
    "column": (np.arange(N)[:, None], "torch.arange(6, device=x.device).unsqueeze(1)"),
    "matrix": (np.arange(N * N).reshape(N, N), "torch.arange(36, device=x.device).reshape(6, 6)"),
    "difference": (COLUMN - ROW, "torch.arange(6, device=x.device).unsqueeze(1)"),
    "offset": (40 + ROW - COLUMN, "torch.arange(40, 46, device=x.device)"),
    "sum": (10 * ROW + COLUMN, "torch.arange(0, 60, 10, device=x.device).unsqueeze(1)"),
    "distance": (abs(ROW - COLUMN), "torch.abs("),
    "rows": (np.tile(np.arange(N), (N, 1)), "torch.arange(6, device=x.device).expand(6, -1)"),
    "zeros": (np.zeros((N, N), np.int64), None),
    "full": (np.full((N, N), 7), "torch.full((6, 6), 7, device=x.device)"),
    "tril": (COLUMN <= ROW, "torch.tril(torch.ones((6, 6), dtype=torch.bool, device=x.device))"),
    "triu": ((COLUMN > ROW)[None], "torch.triu("),
    "window": ((COLUMN <= ROW) & (COLUMN > ROW - 3), "), -2"),
    "eye": (ROW == COLUMN, "torch.eye(6, dtype=torch.bool, device=x.device)"),
    "counts": ((COLUMN <= ROW).astype(np.int64), "torch.ones((6, 6), dtype=torch.int64"),
    "infinite": (
        np.where(COLUMN > ROW, -np.inf, 0).astype(np.float32),
        ".new_full((6, 6), -torch.inf), 1)",
    ),
    "low": (
        np.where(COLUMN > ROW, LOW, 0)[None, None].astype(np.float32),
        ".new_full((6, 6), -10000.0), 1)",
    ),
    # No expression gives these, or none that all dtypes can hold.
    "data": (np.array([3, 1, 4, 1, 5, 9]), None),
    "holes": ((COLUMN <= ROW) & (COLUMN != ROW - 2), None),
    "almost": (np.array([0, 1, 2, 3, 4, 6]), None),
    "lowest": (np.where(COLUMN > ROW, np.finfo(np.float32).min, 0).astype(np.float32), None),
    "negative zero": (np.where(COLUMN > ROW, LOW, -0.0).astype(np.float32), None),
    "huge": (np.arange(N) + 2**62, None),
}


def answers(data: bytes, *args: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, args, strict=True)))[0]


@pytest.mark.parametrize("case", CASES)
def test_a_table_is_its_expression(case: str, tmp_path: Path) -> None:
    table, text = CASES[case]
    data = added(table)
    source = onnx2nn.convert(data).source
    assert text is None or text in source, source
    x = np.random.default_rng(0).normal(size=(2, 1, N, N)).astype(np.float32)
    expected = answers(data, x)
    for flat in (False, True):
        net = build(run_native(as_source(data), {"flat": flat}))
        got = net(torch.from_numpy(x)).numpy()
        assert got.shape == expected.shape
        assert (got == expected).all()
        assert text is None or not [*net.buffers(), *net.parameters()]
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    onnx2nn.convert(path, tmp_path / "net.pt")
    script = torch.jit.load(tmp_path / "net.pt")
    assert (script(torch.from_numpy(x)).numpy() == expected).all()


def positions() -> bytes:
    """Positions that an embedding looks up, and a causal mask that two layers add."""
    random = np.random.default_rng(0)
    weights = {
        "net.word_embeddings.weight": random.normal(size=(10, 64)),
        "net.position_embeddings.weight": random.normal(size=(N, 64)),
    }
    tables = {
        "/net/Constant_output_0": np.arange(N)[None],
        "/net/Constant_1_output_0": np.where(COLUMN > ROW, -np.inf, 0).astype(np.float32),
    }
    scores = [
        node
        for k, x in enumerate("hk")
        for node in (
            helper.make_node(
                "Transpose", [x], [f"t{k}"], f"/net/layer.{k}/Transpose", perm=[0, 2, 1]
            ),
            helper.make_node("MatMul", [x, f"t{k}"], [f"s{k}"], f"/net/layer.{k}/MatMul"),
            helper.make_node(
                "Add", [f"s{k}", "/net/Constant_1_output_0"], [f"m{k}"], f"/net/layer.{k}/Add"
            ),
            helper.make_node("Softmax", [f"m{k}"], [f"w{k}"], f"/net/layer.{k}/Softmax", axis=-1),
            helper.make_node(
                "MatMul", [f"w{k}", x], ["k" if k == 0 else "out"], f"/net/layer.{k}/MatMul_1"
            ),
        )
    ]
    nodes = [
        *(
            helper.make_node("Constant", [], [k], k[:-9], value=numpy_helper.from_array(v))
            for k, v in tables.items()
        ),
        helper.make_node(
            "Gather", ["net.word_embeddings.weight", "ids"], ["a"], "/net/word_embeddings/Gather"
        ),
        helper.make_node(
            "Gather",
            ["net.position_embeddings.weight", "/net/Constant_output_0"],
            ["b"],
            "/net/position_embeddings/Gather",
        ),
        helper.make_node("Add", ["a", "b"], ["h"], "/net/Add"),
        *scores,
    ]
    data = onnx.load_from_string(
        model(nodes, [helper.make_tensor_value_info("ids", INT64, ["batch", N])])
    )
    for k, v in weights.items():
        data.graph.initializer.append(numpy_helper.from_array(v.astype(np.float32), k))
    return data.SerializeToString()


def exported(net: torch.nn.Module, ids: torch.Tensor) -> Callable[..., torch.Tensor]:
    dims = ({0: torch.export.Dim("batch")},)
    return torch.export.export(net, (ids,), dynamic_shapes=dims).module()


FORMS: dict[str, Callable[[torch.nn.Module, torch.Tensor], Callable[..., torch.Tensor]]] = {
    "eager": lambda net, _: net,
    "trace": lambda net, _: torch.fx.symbolic_trace(net),
    "compile": lambda net, _: torch.compile(net, fullgraph=True, backend="eager"),
    "export": exported,
}


@pytest.mark.parametrize("form", FORMS)
def test_tables_are_made_in_every_form(form: str) -> None:
    data = positions()
    net = onnx2nn.load(data)
    ids = torch.arange(2 * N).reshape(2, N) % 10
    expected = answers(data, ids.numpy())
    with torch.no_grad():
        got = FORMS[form](net, ids)(ids).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_tables_follow_device_and_dtype(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(positions())
    onnx2nn.convert(path, tmp_path / "net.py")
    scope: dict[str, object] = {"__file__": str(tmp_path / "net.py"), "__name__": "net"}
    exec(compile((tmp_path / "net.py").read_text(), "net.py", "exec"), scope)
    load = scope["load"]
    assert callable(load)
    net = load()
    assert set(net.state_dict()) == {f"net.{k}_embeddings.weight" for k in ("word", "position")}
    assert not list(net.buffers())
    ids = torch.zeros(2, N, dtype=torch.int64)
    assert load(dtype=torch.float16)(ids).dtype == torch.float16
    assert load(device="meta")(ids.to("meta")).device.type == "meta"
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    assert "position_ids = torch.arange(6, device=" in (tmp_path / "net.py").read_text()


@pytest.mark.skipif("ONNX2NN_MODELS" not in os.environ, reason="needs the real models")
def test_a_table_that_a_branch_gives_stays() -> None:
    """One that other statements compute with, and that is itself what a branch gives."""
    folder = Path(os.environ["ONNX2NN_MODELS"]) / "onnxruntime__onnxruntime-qnn"
    path = folder / "onnxruntime__test__testdata__ort_github_issue_11536.onnx"
    source = onnx2nn.convert(path).source
    assert "dims1 = self.one" in source
    assert "axis2 - self.one" in source
