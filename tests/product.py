"""A model of one product, for tests of what is written where."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_model(path: Path, seed: int, data: str = "") -> None:
    """A product with a matrix of 16 KiB, in a file of its own where `data` names one."""
    matrix = np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Identity", ["product"], ["same"]),
            helper.make_node("Relu", ["same"], ["y"]),
        ],
        "graph",
        [value("x", TensorProto.FLOAT, ["n", 64])],
        [value("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(matrix, "w")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=f"{seed}"
    )
    onnx.save(model, path, save_as_external_data=bool(data), location=data, size_threshold=0)


def write_layers(path: Path, number: int) -> None:
    """Products with three matrices of 4 KiB whose elements all end in the digit `number`."""
    value = helper.make_tensor_value_info
    names = ["a", "b", "c"]
    nodes = [
        helper.make_node("MatMul", [f"x{i}", f"{name}.weight"], [f"x{i + 1}"])
        for i, name in enumerate(names)
    ]
    matrices = [np.full((32, 32), 10 * i + number, np.float32) for i in range(len(names))]
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x0", TensorProto.FLOAT, ["n", 32])],
        [value("x3", TensorProto.FLOAT, ["n", 32])],
        [
            numpy_helper.from_array(matrix, f"{name}.weight")
            for name, matrix in zip(names, matrices, strict=True)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
