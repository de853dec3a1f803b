"""ONNX Runtime's values, in types that numpy does not have, come back as ml_dtypes arrays."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx2nn.check.oracle import Runtime, with_outputs


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (TensorProto.BFLOAT16, "bfloat16", [1, 0.5, -3]),
        (TensorProto.FLOAT8E4M3FN, "float8_e4m3fn", [1, 0.5, -3]),
        (TensorProto.FLOAT8E5M2, "float8_e5m2", [1, 0.5, -3]),
        (TensorProto.INT4, "int4", [-8, 7, -1]),
        (TensorProto.UINT4, "uint4", [15, 0, 7]),
        (TensorProto.INT2, "int2", [-2, 1, -1, 0, 1]),
        (TensorProto.UINT2, "uint2", [3, 0, 1, 2, 3]),
    ],
)
def test_narrow_types(kind: int, name: str, values: list[float]) -> None:
    n = len(values)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["y"], to=kind),
            helper.make_node("Cast", ["narrow"], ["z"], to=TensorProto.FLOAT),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [n]),
            helper.make_tensor_value_info("narrow", kind, [n]),
        ],
        [
            helper.make_tensor_value_info("y", kind, [n]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [n]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12)
    x = np.array(values, np.float32)
    dtype = np.dtype(getattr(ml_dtypes, name))
    runtime = Runtime(model.SerializeToString())
    y, z = runtime.run({"x": x, "narrow": x.astype(dtype)})
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(np.float32), x)
    np.testing.assert_array_equal(z, x)


def test_any_value_can_be_asked_for() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    runtime = Runtime(with_outputs(model, ["a", "y"]))
    assert runtime.outputs == ["a", "y"]
    a, y = runtime.run({"x": np.array([-1, 2], np.float32)})
    assert a.tolist() == [0, 2]
    assert y.tolist() == [0, -2]
    assert len(model.graph.output) == 1
