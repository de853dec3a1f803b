"""A model of one product, for tests of what is written where."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PROGRAM = Path(__file__).parents[1] / "build/ci/bin/onnx2nn"


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
