"""Shapes that are given for inputs: sizes, dims that stay, names; and what the model refuses."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import onnx2nn


def model(nodes: list[onnx.NodeProto], dims: list[Any], **weights: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x:0", TensorProto.FLOAT, dims),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["b"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(__import__("numpy").array(v), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def relu(dims: list[Any]) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x:0"], ["y"])], dims)


def shape_of(proto: onnx.ModelProto, shapes: Any) -> list[Any]:
    return list(onnx2nn.convert(proto, input_shapes=shapes).inputs[0]["shape"])


def test_dims_stay_are_fixed_or_get_a_name() -> None:
    proto = relu(["b", 3, "h", None])
    assert shape_of(proto, {"x:0": [1, 3, -1, -1]}) == [1, 3, "h", None]
    assert shape_of(proto, {"x:0": [None, 3, 8, 9]}) == ["b", 3, 8, 9]
    assert shape_of(proto, {"x:0": [1, 3, None, "height"]}) == [1, 3, "h", "height"]
    # One name, one size: that of the model's own symbol, too.
    assert shape_of(proto, {"x:0": ["side", 3, "side", "b"]}) == ["side", 3, "side", "b"]
    small, ok = onnx2nn.simplify(proto, input_shapes={"x:0": [2, None, "h", 7]})
    assert ok
    dims = small.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value or d.dim_param for d in dims] == [2, 3, "h", 7]


def test_the_check_draws_what_is_given(tmp_path: Path) -> None:
    proto = relu(["b", 3, "h", "w"])
    report = onnx2nn.verify(proto, input_shapes={"x:0": [2, 3, "s", "s"]})
    assert report.ok
    shape = report.inputs[0][2]
    assert shape is not None
    assert shape[:2] == [2, 3]
    assert shape[2] == shape[3]


FLAT = [
    helper.make_node("Reshape", ["x:0", "one"], ["r"]),
    helper.make_node("Gemm", ["r", "w"], ["y"]),
]


@pytest.mark.parametrize(
    ("dims", "shape", "said"),
    [
        # The model says so.
        ([1, 4], [2, 4], 'dim 0 of the input "x:0" is 1 in the model, not 2'),
        ([1, 4], ["batch", 4], 'dim 0 of the input "x:0" is 1 in the model, not batch'),
        # Its nodes do, of whose shapes one is baked in.
        (["b", 4], [2, 4], "do not multiply"),
        (["b", 4], [1, 5], 'dim 1 of the input "x:0" is 4 in the model, not 5'),
    ],
)
def test_what_the_model_fixes_is_refused(
    dims: list[Any], shape: list[Any], said: str, tmp_path: Path
) -> None:
    proto = model(FLAT, dims, one=[1, -1], w=[[1.0], [1.0], [1.0], [1.0]])
    proto.graph.initializer[1].CopyFrom(
        helper.make_tensor("w", TensorProto.FLOAT, [4, 1], [1, 2, 3, 4])
    )
    onnx2nn.convert(proto, input_shapes={"x:0": [1, 4]})
    for call in (onnx2nn.convert, onnx2nn.api.simplify_unchecked):
        with pytest.raises(onnx2nn.Error) as error:
            call(
                proto,
                tmp_path / ("m.py" if call is onnx2nn.convert else "m.onnx"),
                input_shapes={"x:0": shape},
            )
        assert said in str(error.value)
        assert "x:0" in str(error.value)
        assert "dynamic axis" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_baked_sizes_of_a_reshape_and_channels() -> None:
    nodes = [helper.make_node("Reshape", ["x:0", "to"], ["y"])]
    baked = model(nodes, ["b", 4], to=[1, 2, 2])
    with pytest.raises(onnx2nn.Error, match="has 8 elements"):
        onnx2nn.convert(baked, input_shapes={"x:0": [2, 4]})
    conv = model([helper.make_node("Conv", ["x:0", "w"], ["y"])], ["b", "c", 8, 8])
    conv.graph.initializer.append(
        helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1, 2, 3])
    )
    onnx2nn.convert(conv, input_shapes={"x:0": [1, 3, None, None]})
    with pytest.raises(onnx2nn.Error, match="4 channels, not 3"):
        onnx2nn.convert(conv, input_shapes={"x:0": [1, 4, None, None]})


@pytest.mark.parametrize(
    ("shapes", "said"),
    [({"x": [1]}, "no input"), ({"x:0": [1]}, "has 2 dims"), ({"x:0": [1, 2, 3]}, "has 2 dims")],
)
def test_shapes_that_fit_no_input(shapes: Any, said: str) -> None:
    with pytest.raises(onnx2nn.Error, match=said):
        onnx2nn.convert(relu(["b", 4]), input_shapes=shapes)
