"""ModelProtos above what protobuf serialises are saved aside, tensor by tensor."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx2nn
from onnx2nn import pieces
from onnx2nn import source as sources


def model(typed: bool) -> onnx.ModelProto:
    """A weight in the graph, one in a branch, one in a Constant, and a small one."""
    rng = np.random.default_rng(0)

    def tensor(name: str) -> TensorProto:
        value = rng.standard_normal((40, 40), np.float32)
        if typed:
            return helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.reshape(-1))
        return numpy_helper.from_array(value, name)

    def branch(name: str) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["m", name], [name + "y"])]
        outputs = [helper.make_tensor_value_info(name + "y", TensorProto.FLOAT, None)]
        return helper.make_graph(nodes, name, [], outputs, [tensor(name)])

    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=tensor("")),
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("MatMul", ["a", "c"], ["b"]),
            helper.make_node("Add", ["b", "s"], ["m"]),
            helper.make_node("If", ["p"], ["y"], then_branch=branch("t"), else_branch=branch("e")),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40]),
            helper.make_tensor_value_info("p", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor("w"), numpy_helper.from_array(np.float32([1.0]), "s")],
    )
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    proto.metadata_props.add(key="k", value="v")
    return proto


@pytest.mark.parametrize("typed", [False, True])
def test_saved_in_pieces_it_is_the_same(typed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(typed)
    before = proto.SerializeToString()
    monkeypatch.setattr(sources, "_PROTOBUF_LIMIT", 1000)
    source = sources.as_source(proto)
    assert isinstance(source.data, str)
    assert proto.SerializeToString() == before
    small = onnx.load(source.data, load_external_data=False)
    assert small.ByteSize() < 3000
    assert small.metadata_props[0].value == "v"
    report = onnx2nn.verify(proto)
    assert report.ok
    simplified, ok = onnx2nn.simplify(proto)
    assert ok
    assert simplified.graph.node
    assert onnx2nn.load(proto) is not None


def test_no_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: object, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sources, "_PROTOBUF_LIMIT", 1000)
    monkeypatch.setattr(pieces, "save", full)
    with pytest.raises(onnx2nn.Error, match="No space left on device; TMPDIR"):
        onnx2nn.convert(model(False))
