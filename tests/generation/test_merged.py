"""Merged decoders: two branches on `use_cache_branch` become one function, and stay two where they differ."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from tests.generation.changes import branch, double_weight, exchange_outputs
from tests.generation.decoders import HEADS, LAYERS, SIZE, VOCABULARY, Layout, export, merged

import onnx2nn
from onnx2nn import _native

CHOICE = "if use_cache_branch else 0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merged") / "net.onnx"
    merged(path)
    return path


def inputs(use_cache: bool, past: int, seed: int) -> dict[str, np.ndarray]:
    """As a caller may give them: caches that are there although nobody wants them included."""
    random = np.random.default_rng(seed)
    batch, new = 2, 3
    total = new + (past if use_cache else 0)
    mask = np.ones((batch, total), np.int64)
    mask[0, : total - new] = 0
    feed: dict[str, Any] = {
        "input_ids": random.integers(0, VOCABULARY, (batch, new)),
        "attention_mask": mask,
        "position_ids": np.arange(total - new, total)[None].repeat(batch, 0),
    }
    for i in range(LAYERS):
        for kind in "key", "value":
            cache = random.standard_normal((batch, HEADS, past, SIZE), np.float32)
            feed[f"past_key_values.{i}.{kind}"] = cache
    return feed | {"use_cache_branch": np.array([use_cache])}


def assert_right(model: Path) -> None:
    """On both branches, with caches of several lengths."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    net = onnx2nn.load(model)
    order = [i.name for i in session.get_inputs()]
    for seed, (use_cache, past) in enumerate(
        [(True, 4), (True, 1), (False, 0), (False, 1), (False, 5)]
    ):
        feed = inputs(use_cache, past, seed)
        got = net(*(torch.from_numpy(feed[name]) for name in order))
        for mine, wanted in zip(got, session.run(None, feed), strict=True):
            assert mine.shape == wanted.shape
            # What a sum leaves of large numbers has their error.
            atol = 1e-6 * np.abs(wanted).max(initial=10.0)
            torch.testing.assert_close(mine, torch.from_numpy(wanted), rtol=1e-4, atol=atol)


def test_one_function(model: Path, tmp_path: Path) -> None:
    source = _native.convert(str(model)).source
    assert source.count("use_cache_branch else") == 1
    assert CHOICE in source
    assert "        if " not in source.split("def empty_cache")[0]
    assert_right(model)
    # No longer than that of the branch with caches by itself, but for the choice.
    alone = tmp_path / "alone.onnx"
    export(Layout("torchscript"), alone)
    plain = _native.convert(str(alone)).source
    assert len(source.splitlines()) <= len(plain.splitlines()) + 2 * LAYERS + 8
    # Weights are there once.
    mine, wanted = (onnx2nn.load(path).state_dict() for path in (model, alone))
    assert sum(x.numel() for x in mine.values()) == sum(x.numel() for x in wanted.values())


def other_weight(model: onnx.ModelProto) -> None:
    """The first tokens go through a last layer of their own."""
    graph = branch(model, "else_branch")
    node = next(n for n in graph.node if n.op_type == "MatMul")
    double_weight(model, graph, node)


def other_operator(model: onnx.ModelProto) -> None:
    graph = branch(model, "then_branch")
    node = next(n for n in graph.node if n.op_type == "Erf")
    node.op_type = "Tanh"


def other_output(model: onnx.ModelProto) -> None:
    """Keys and values change places where there is no cache."""
    exchange_outputs(branch(model, "else_branch"), 1, 2)


def inner_branch(model: onnx.ModelProto) -> None:
    graph = branch(model, "then_branch")
    node = next(n for n in graph.node if n.op_type == "Erf")
    shape, value = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    bodies = [
        helper.make_graph(
            [helper.make_node(op, [node.input[0]], [f"{op}_y"])],
            op,
            [],
            [shape(f"{op}_y", value, None)],
        )
        for op in ("Erf", "Tanh")
    ]
    node.op_type = "If"
    node.input[:] = ["use_cache_branch"]
    for name, body in zip(("then_branch", "else_branch"), bodies, strict=True):
        node.attribute.append(helper.make_attribute(name, body))


@pytest.mark.parametrize("change", [other_weight, other_operator, other_output, inner_branch])
def test_branches_that_differ_stay(model: Path, tmp_path: Path, change: Any) -> None:
    changed = onnx.load(model)
    change(changed)
    path = tmp_path / "net.onnx"
    onnx.save(changed, path)
    assert CHOICE not in _native.convert(str(path)).source
    assert_right(path)


def test_branches_the_other_way_round(model: Path, tmp_path: Path) -> None:
    """The branch with caches is taken where the input says no."""
    changed = onnx.load(model)
    for a in changed.graph.node[0].attribute:
        a.name = {"then_branch": "else_branch", "else_branch": "then_branch"}[a.name]
    path = tmp_path / "net.onnx"
    onnx.save(changed, path)
    assert "0 if use_cache_branch else" in _native.convert(str(path)).source
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    net = onnx2nn.load(path)
    for use_cache, past in (True, 3), (False, 2):
        feed = inputs(use_cache, past, 0) | {"use_cache_branch": np.array([not use_cache])}
        got = net(*(torch.from_numpy(feed[i.name]) for i in session.get_inputs()))
        for mine, wanted in zip(got, session.run(None, feed), strict=True):
            torch.testing.assert_close(mine, torch.from_numpy(wanted), rtol=1e-4, atol=1e-5)
