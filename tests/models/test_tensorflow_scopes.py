"""Layers of Keras and scopes of TensorFlow, from the names that their exporters give to nodes."""

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

D = 4


def dense(layers: list[str], nodes: dict[str, list[str]] | None = None) -> bytes:
    """Dense layers with a rectifier each, one after the other, under these scopes; `nodes` has the names of the
    product, sum and rectifier where they are others."""
    random = np.random.default_rng(0)
    made, weights = [], []
    x = "x"
    for layer in layers:
        names = (nodes or {}).get(layer, [f"{layer}/{op}" for op in ("MatMul", "BiasAdd", "Relu")])
        w, b = f"{layer}/MatMul/ReadVariableOp:0", f"{layer}/BiasAdd/ReadVariableOp:0"
        for name, shape in ((w, (D, D)), (b, (D,))):
            weights.append(
                numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
            )
        made += [
            helper.make_node("MatMul", [x, w], [f"{layer}/MatMul:0"], names[0]),
            helper.make_node("Add", [f"{layer}/MatMul:0", b], [f"{layer}/BiasAdd:0"], names[1]),
            helper.make_node("Relu", [f"{layer}/BiasAdd:0"], [f"{layer}/Relu:0"], names[2]),
        ]
        x = f"{layer}/Relu:0"
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", D]) for n in ("x", x)]
    graph = helper.make_graph(made, "g", ports[:1], ports[1:], weights)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def keys(data: bytes) -> list[str]:
    """Of the weights, after a comparison of both forms with ONNX Runtime."""
    x = np.random.default_rng(1).normal(size=(3, D)).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    nets = [build(run_native(as_source(data), {"flat": flat})) for flat in (False, True)]
    for net in nets:
        with torch.no_grad():
            np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), expected, atol=1e-5)
    assert list(nets[0].state_dict()) == list(nets[1].state_dict())
    return [k.removesuffix(".weight") for k in nets[0].state_dict() if k.endswith(".weight")]


CASES: dict[str, tuple[list[str], list[str]]] = {
    "functional": (["model/dense", "model/dense_1", "model/out"], ["dense", "dense_1", "out"]),
    "nested": (["net/encoder/fc", "net/head/fc"], ["encoder.fc", "head.fc"]),
    "called": (
        ["StatefulPartitionedCall/model/a", "StatefulPartitionedCall/model/b/PartitionedCall"],
        ["a", "b"],
    ),
    "counted": (["functional_1/dense_1", "functional_1/dense_1_2"], ["dense", "dense_1"]),
    "counted by the author": (["net_1/fc_1", "net_1/fc_2"], ["fc_1", "fc_2"]),
    "steps": (["m/a/Tensordot", "m/b/einsum"], ["a", "b"]),
    "one layer": (["sequential/dense"], ["dense"]),
    "no root": (["dense", "dense_1"], ["dense", "dense_1"]),
    "members": (["m/forward", "m/class"], ["forward_", "class"]),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_have_their_names(case: str) -> None:
    layers, expected = CASES[case]
    assert keys(dense(layers)) == expected


def test_operations_that_became_one() -> None:
    """TensorFlow Lite joins their names; tf2onnx counts what it makes."""
    names = {
        "m/a": ["m/a/MatMul;m/a/BiasAdd", "m/a/BiasAdd__12", "Relu__13"],
        "m/b": ["Gemm__15", "m/b/BiasAdd", "m/b/Relu"],
    }
    assert keys(dense(["m/a", "m/b"], names)) == ["a", "b"]


def test_a_weight_is_called_by_its_use() -> None:
    data = dense(["m/a"], {"m/a": ["m/a/MatMul", "m/a/add/add", "m/a/Relu"]})
    assert "ReadVariableOp" not in onnx2nn.convert(data).source


@pytest.mark.parametrize(
    "layers",
    [
        ["conv1/7x7", "conv2/3x3"],
        ["m/" * 80 + "a", "m/" * 80 + "b"],
        ["m/a b", "m/\n", "m/'"],
        ["m//a", "m/"],
        ["m/a/b", "m/a"],
        ["m/" + "a" * 5000, "m/a"],
    ],
    ids=["numbers", "deep", "odd", "empty", "inside", "long"],
)
def test_other_names_do_no_harm(layers: list[str]) -> None:
    keys(dense(layers))


def test_other_tools_names_are_not_read() -> None:
    """Caffe's names have one level for several layers."""
    names = {k: [k, k + "_bias", k + "_relu"] for k in ("inception/1x1", "inception/3x3")}
    assert keys(dense(list(names), names)) == ["linear_1", "linear_2"]


def recurrent(layer: str, x: str) -> list[onnx.NodeProto]:
    """Three rounds of tanh(h W + x) as Keras' exporters write a layer, whose test has no scope; its last h."""
    kinds = (TensorProto.INT64, []), (TensorProto.BOOL, []), (TensorProto.FLOAT, [1, D])
    node, scope = helper.make_node, f"m/{layer}/"
    steps = [
        node(
            "MatMul", ["h", f"{scope}Cast/ReadVariableOp:0"], [f"{scope}mm"], f"{scope}while/MatMul"
        ),
        node("Add", [f"{scope}mm", x], [f"{scope}add"], f"{scope}while/add"),
        node("Tanh", [f"{scope}add"], ["next"], f"{scope}while/Tanh"),
        node("Less", ["i", "five"], ["more"], f"cond___{scope}while/Less"),
        node("Identity", ["next"], ["row"]),
    ]
    ins = [helper.make_tensor_value_info(n, *k) for n, k in zip(("i", "c", "h"), kinds)]
    outs = [
        helper.make_tensor_value_info(n, *k)
        for n, k in zip(("more", "next", "row"), (*kinds[1:], kinds[2]))
    ]
    body = helper.make_graph(steps, "body", ins, outs)
    rows = [f"{scope}last", f"{scope}rows"]
    return [
        node("Loop", ["three", "yes", "m/zeros"], rows, f"{scope}while_loop", body=body),
        node("Gather", [rows[1], "minus_one"], [f"{scope}out"], f"{scope}strided_slice", axis=0),
    ]


def test_what_a_loop_collects_is_read_after_it() -> None:
    """Also where the layers around the loops are modules, and the loops are not."""
    node = helper.make_node
    nodes = [
        *recurrent("forward", "x"),
        node("Neg", ["x"], ["m/backward/x"], "m/backward/Neg"),
        *recurrent("backward", "m/backward/x"),
        node("Concat", ["m/forward/out", "m/backward/out"], ["m/both"], "m/concat", axis=1),
        node("MatMul", ["m/both", "m/dense/MatMul/ReadVariableOp:0"], ["y"], "m/dense/MatMul"),
    ]
    random = np.random.default_rng(0)
    weights = {
        "three": np.array(3),
        "five": np.array(5),
        "minus_one": np.array(-1),
        "yes": np.array(True),
        "m/zeros": np.zeros((1, D), "f"),
        "m/forward/Cast/ReadVariableOp:0": random.normal(size=(D, D)).astype("f"),
        "m/backward/Cast/ReadVariableOp:0": random.normal(size=(D, D)).astype("f"),
        "m/dense/MatMul/ReadVariableOp:0": random.normal(size=(2 * D, D)).astype("f"),
    }
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, D]) for n in ("x", "y")]
    tensors = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    opset = helper.make_opsetid("", 15)
    data = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    x = random.normal(size=(1, D)).astype("f")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    for flat in (False, True):
        net = build(run_native(as_source(data), {"flat": flat}))
        np.testing.assert_allclose(net(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-5)
