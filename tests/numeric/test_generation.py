"""BeamSearch, GreedySearch and Sampling of com.microsoft over a small decoder, against ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from .harness import compare, expected_outputs, run_converted

WORDS, HEADS, SIZE = 11, 2, 3


def decoder() -> onnx.GraphProto:
    """A decoder whose logits depend on the last token, its place and what it keeps."""
    width = HEADS * SIZE
    past = [2, "b", HEADS, "p", SIZE]
    inputs = [
        h.make_tensor_value_info("input_ids", T.INT32, ["b", "s"]),
        h.make_tensor_value_info("position_ids", T.INT32, ["b", "s"]),
        h.make_tensor_value_info("attention_mask", T.INT32, ["b", "t"]),
        h.make_tensor_value_info("past_0", T.FLOAT, past),
    ]
    nodes = [
        h.make_node("Gather", ["table", "input_ids"], ["words"]),
        h.make_node("Gather", ["steps", "position_ids"], ["stepped"]),
        h.make_node("Add", ["words", "stepped"], ["x"]),
        h.make_node(
            "Attention",
            ["x", "qkv", "bias", "attention_mask", "past_0"],
            ["y", "present_0"],
            domain="com.microsoft",
            num_heads=HEADS,
            unidirectional=1,
        ),
        h.make_node("MatMul", ["y", "head"], ["logits"]),
    ]
    outputs = [
        h.make_tensor_value_info("logits", T.FLOAT, ["b", "s", WORDS]),
        h.make_tensor_value_info("present_0", T.FLOAT, [2, "b", HEADS, "q", SIZE]),
    ]
    rng = np.random.default_rng(3)
    shapes = {"table": (WORDS, width), "steps": (20, width), "qkv": (width, 3 * width)}
    shapes |= {"bias": (3 * width,), "head": (width, WORDS)}
    weights = [
        onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    return h.make_graph(nodes, "decoder", inputs, outputs, weights)


def search_model(op_type: str, numbers: list[Any], **attrs: Any) -> onnx.ModelProto:
    named = [f"n{i}" if v is not None else "" for i, v in enumerate(numbers)]
    names = ["ids_in", *named]
    common = {"eos_token_id": 1, "pad_token_id": 0, "model_type": 0}
    outputs = ["sequences"]
    node = h.make_node(op_type, names, outputs, domain="com.microsoft", **common, **attrs)
    node.attribute.append(h.make_attribute("decoder", decoder()))
    given = [(n, v) for n, v in zip(named, numbers, strict=True) if n]
    constants = [onnx.numpy_helper.from_array(v, n) for n, v in given]
    shape = h.make_tensor_value_info("ids_in", T.INT32, ["n", "length"])
    result = onnx.ValueInfoProto(name="sequences")
    graph = h.make_graph([node], "g", [shape], [result], constants)
    imports = [h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)]
    return h.make_model(graph, opset_imports=imports, ir_version=8)


def search(op_type: str, ids: Any, numbers: list[Any], **attrs: Any) -> None:
    model = search_model(op_type, numbers, **attrs)
    wanted = expected_outputs(model, {"ids_in": ids})
    got = run_converted(model, {"ids_in": ids}, True)
    for y, z in zip(got, wanted, strict=True):
        compare(y, z, 1e-5, 1e-5)


def ints(*values: int) -> list[Any]:
    return [np.array([v], np.int32) for v in values]


IDS = np.random.default_rng(1).integers(2, WORDS, (3, 4)).astype(np.int32)


@pytest.mark.parametrize("penalty", [1.0, 2.0])
@pytest.mark.parametrize("early", [0, 1])
@pytest.mark.parametrize("runs", [0, 2])
def test_beam_search(penalty: float, early: int, runs: int) -> None:
    factors = [np.array([penalty], np.float32), np.array([1.0], np.float32)]
    numbers = [*ints(10, 5, 3, 2), *factors]
    search("BeamSearch", IDS, numbers, early_stopping=early, no_repeat_ngram_size=runs)


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_search(penalty: float) -> None:
    padded = IDS.copy()
    padded[0, :2] = 0
    numbers = [*ints(9, 0), np.array([penalty], np.float32)]
    search("GreedySearch", padded, numbers, no_repeat_ngram_size=0)


@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampling_of_one_word(penalty: float, temperature: float) -> None:
    """Where a single word is left to draw, the answer is ONNX Runtime's."""
    numbers = [*ints(9, 0), np.array([penalty], np.float32)]
    attrs = {"top_p": 0.01, "min_tokens_to_keep": 1, "temperature": temperature}
    search("Sampling", IDS, numbers, **attrs)


@pytest.mark.parametrize("custom", [0, 1])
@pytest.mark.parametrize(("top_p", "temperature"), [(0.8, 9.0), (0.6, 30.0), (0.95, 15.0)])
def test_sampling_draws_as_often(custom: int, top_p: float, temperature: float) -> None:
    """The words of many draws are as frequent as ONNX Runtime's."""
    numbers = [*ints(5, 0), np.array([1.0], np.float32), None, None, None, None, *ints(3)]
    attrs = {"top_p": top_p, "min_tokens_to_keep": 1, "temperature": temperature}
    model = search_model("Sampling", numbers, custom=custom, **attrs)
    feeds = {"ids_in": np.repeat(IDS[:1], 4000, 0)}
    (wanted,) = expected_outputs(model, feeds)
    (got,) = run_converted(model, feeds, True)
    shares = [np.bincount(y[:, -1], minlength=WORDS) / 4000 for y in (wanted, got.numpy())]
    assert np.count_nonzero(shares[0]) > 1
    assert (shares[0] > 0).tolist() == (shares[1] > 0).tolist()
    assert np.abs(shares[0] - shares[1]).sum() < 0.08
    (again,) = run_converted(model, feeds, True)
    assert (again == got).all(), "a seed says what is drawn"
