"""Inputs that make sense: inside the tables they index, equal symbols of equal size, seeded."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx2nn.check.inputs import candidates, wanted_inputs


def model(nodes: list[Any], inputs: list[Any], tensors: dict[str, np.ndarray]) -> onnx.ModelProto:
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in tensors.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def ints(name: str, *dims: Any) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT64, dims)


def test_indices_lie_inside_their_table() -> None:
    m = model(
        [
            helper.make_node("Cast", ["ids"], ["i"], to=TensorProto.INT32),
            helper.make_node("Unsqueeze", ["i", "axes"], ["u"]),
            helper.make_node("Gather", ["table", "u"], ["y"]),
        ],
        [ints("ids", "batch", "seq")],
        {"table": np.zeros((5, 2), np.float32), "axes": np.array([0])},
    )
    (w,) = wanted_inputs(m)
    assert (w.role.kind, w.role.bound) == ("index", 5)
    drawn = [next(iter(candidates(m, seed)))["ids"] for seed in range(20)]
    assert max(x.max() for x in drawn) == 4
    assert min(x.min() for x in drawn) == 0


@pytest.mark.parametrize(("indices", "least"), [([3, 900, 0], 901), ([-40, 2], 40)])
def test_sizes_take_constant_indices(indices: list[int], least: int) -> None:
    m = model(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Gather", ["f", "columns"], ["y"], axis=-1),
        ],
        [ints("x", "rows", "columns_of_x")],
        {"columns": np.array(indices)},
    )
    (w,) = wanted_inputs(m)
    assert w.least == {1: least}
    assert all(c["x"].shape[1] >= least for c in candidates(m))


def test_searches_get_lengths_that_fit() -> None:
    names = ["ids", "max_length", "min_length", "num_beams", "num_return_sequences"]
    node = helper.make_node("BeamSearch", names, ["y"], domain="com.microsoft")
    m = model([node], [ints("ids", "batch", "seq"), *(ints(n, 1) for n in names[1:])], {})
    drawn = next(iter(candidates(m)))
    assert drawn["ids"].shape[1] < drawn["max_length"][0]
    assert drawn["num_return_sequences"][0] <= drawn["num_beams"][0]


def test_one_hot_uses_inside_nested_graphs_and_along_an_axis() -> None:
    inner = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["g"], axis=1)],
        "then",
        [],
        [helper.make_tensor_value_info("g", TensorProto.FLOAT, None)],
    )
    m = model(
        [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        [helper.make_tensor_value_info("c", TensorProto.BOOL, []), ints("ids", 3)],
        {"table": np.zeros((2, 7), np.float32)},
    )
    by_name = {w.name: w.role for w in wanted_inputs(m)}
    assert by_name["ids"].bound == 7
    assert by_name["c"].kind == "true"


def test_equal_symbols_have_equal_sizes_and_sums_add_up() -> None:
    m = model(
        [helper.make_node("Identity", ["a"], ["y"])],
        [
            ints("a", "batch", "seq"),
            ints("b", "batch", "past", 4),
            ints("attention_mask", "batch", "past + seq"),
        ],
        {},
    )
    for _, feed in zip(range(10), candidates(m)):
        a, b, mask = feed["a"], feed["b"], feed["attention_mask"]
        assert a.shape[0] == b.shape[0] == mask.shape[0]
        assert mask.shape[1] == a.shape[1] + b.shape[1]
        assert set(np.unique(mask)) <= {0, 1}
        assert mask[:, 0].all()


def test_the_same_seed_gives_the_same_inputs() -> None:
    m = model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        {},
    )
    first, second = (next(iter(candidates(m, 3)))["x"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (1, 3, 224, 224)
    assert not np.array_equal(first, next(iter(candidates(m, 4)))["x"])
    assert next(iter(candidates(m, shapes={"x": [2, 3, 5, 6]})))["x"].shape == (2, 3, 5, 6)


def test_types() -> None:
    kinds = [
        TensorProto.UINT8,
        TensorProto.BOOL,
        TensorProto.STRING,
        TensorProto.BFLOAT16,
        TensorProto.INT4,
    ]
    names = ["a", "b", "c", "d", "e"]
    m = model(
        [helper.make_node("Identity", ["a"], ["y"])],
        [helper.make_tensor_value_info(n, k, [64]) for n, k in zip(names, kinds)],
        {},
    )
    feed = next(iter(candidates(m)))
    assert feed["a"].dtype == np.uint8
    assert feed["a"].max() > 100
    assert feed["b"].dtype == bool
    assert feed["c"][0] == "a"
    assert feed["d"].dtype.name == "bfloat16"
    assert feed["e"].dtype.name == "int4"


def test_initialisers_are_not_inputs() -> None:
    m = model(
        [helper.make_node("Identity", ["a"], ["y"])],
        [ints("a", 3), ints("w", 3)],
        {"w": np.zeros(3, np.int64)},
    )
    assert [w.name for w in wanted_inputs(m)] == ["a"]
