"""Makes the small models of this folder, the same bytes each time.

usage: make_models.py [FOLDER]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

FOLDER = Path(__file__).parent
F32, I64 = T.FLOAT, T.INT64


class Builder:
    """A graph under construction; weights are seeded by the model's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(sum(map(ord, name)))

    def weight(self, name: str, *shape: int) -> str:
        """A float initialiser."""
        values = (self.random.standard_normal(shape) * 0.2).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, name: str, values: list[int]) -> str:
        """An int64 initialiser."""
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def node(self, op: str, inputs: list[str], outputs: list[str], **attributes: object) -> str:
        """Adds a node and returns the name of its first output."""
        name = attributes.pop("name", f"/{op}_{len(self.nodes)}")
        self.nodes.append(h.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def model(self, inputs: list, outputs: list, opset: int = 17) -> onnx.ModelProto:
        """The model; inputs and outputs are (name, type, shape)."""
        graph = h.make_graph(
            self.nodes,
            self.name,
            [h.make_tensor_value_info(*i) for i in inputs],
            [h.make_tensor_value_info(*o) for o in outputs],
            self.weights,
        )
        return h.make_model(
            graph, producer_name="golden", ir_version=8, opset_imports=[h.make_opsetid("", opset)]
        )


def mlp(b: Builder) -> onnx.ModelProto:
    """Three linear layers, as PyTorch exports them."""
    x = "input"
    for i, (n, m) in enumerate([(8, 16), (16, 16), (16, 4)]):
        w, bias = b.weight(f"net.{2 * i}.weight", m, n), b.weight(f"net.{2 * i}.bias", m)
        x = b.node(
            "Gemm",
            [x, w, bias],
            ["logits" if i == 2 else f"/net/net.{2 * i}/Gemm_output_0"],
            transB=1,
        )
        if i < 2:
            x = b.node("Relu", [x], [f"/net/net.{2 * i + 1}/Relu_output_0"])
    return b.model([("input", F32, ["batch", 8])], [("logits", F32, ["batch", 4])])


def residual(b: Builder) -> onnx.ModelProto:
    """A small image classifier with a residual block."""

    def conv(x: str, name: str, n: int, m: int, out: str, stride: int = 1) -> str:
        w = b.weight(f"{name}.weight", m, n, 3, 3)
        return b.node(
            "Conv", [x, w], [out], kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2
        )

    def norm(x: str, name: str, n: int, out: str) -> str:
        parts = [b.weight(f"{name}.{p}", n) for p in ("weight", "bias", "running_mean")]
        b.weights.append(numpy_helper.from_array(np.ones(n, np.float32), f"{name}.running_var"))
        return b.node("BatchNormalization", [x, *parts, f"{name}.running_var"], [out])

    x = conv("image", "stem.conv", 3, 8, "/stem/conv/Conv_output_0", 2)
    x = norm(x, "stem.bn", 8, "/stem/bn/BatchNormalization_output_0")
    x = skip = b.node("Relu", [x], ["/stem/relu/Relu_output_0"])
    x = b.node("MaxPool", [x], ["/pool/MaxPool_output_0"], kernel_shape=[2, 2], strides=[2, 2])
    skip = x
    x = conv(x, "layer1.0.conv1", 8, 8, "/layer1/layer1.0/conv1/Conv_output_0")
    x = norm(x, "layer1.0.bn1", 8, "/layer1/layer1.0/bn1/BatchNormalization_output_0")
    x = b.node("Relu", [x], ["/layer1/layer1.0/relu/Relu_output_0"])
    x = conv(x, "layer1.0.conv2", 8, 8, "/layer1/layer1.0/conv2/Conv_output_0")
    x = b.node("Add", [x, skip], ["/layer1/layer1.0/Add_output_0"])
    x = b.node("Relu", [x], ["/layer1/layer1.0/relu_1/Relu_output_0"])
    x = b.node("GlobalAveragePool", [x], ["/avgpool/GlobalAveragePool_output_0"])
    x = b.node("Flatten", [x], ["/Flatten_output_0"], axis=1)
    x = b.node(
        "Gemm", [x, b.weight("fc.weight", 5, 8), b.weight("fc.bias", 5)], ["logits"], transB=1
    )
    b.node("Softmax", [x], ["probabilities"], axis=-1)
    return b.model(
        [("image", F32, ["batch", 3, 32, 32])],
        [("logits", F32, ["batch", 5]), ("probabilities", F32, ["batch", 5])],
    )


def dynamic_reshape(b: Builder) -> onnx.ModelProto:
    """Shape arithmetic: heads are split off and put back, with no tensor made of it."""
    b.node("Shape", ["x"], ["shape"])
    for i, name in enumerate(("n", "t")):
        b.node("Gather", ["shape", b.ints(f"i{i}", [i])], [name], axis=0)
    b.node(
        "Concat", ["n", "t", b.ints("heads", [4]), b.ints("rest", [-1])], ["split_shape"], axis=0
    )
    b.node("Reshape", ["x", "split_shape"], ["split"])
    b.node("Transpose", ["split"], ["by_head"], perm=[0, 2, 1, 3])
    b.node("Mul", ["t", b.ints("two", [2])], ["twice"])
    b.node("Concat", ["n", b.ints("minus", [-1]), "twice"], ["out_shape"], axis=0)
    b.node("Reshape", ["by_head", "out_shape"], ["y"])
    return b.model([("x", F32, ["batch", "time", 16])], [("y", F32, ["batch", 8, "t2"])])


def transformer(b: Builder) -> onnx.ModelProto:
    """A pre-norm transformer block as the exporter writes it, weights renamed to onnx::MatMul_N."""
    d, heads = 16, 4
    scope = "/encoder/layer.0/"

    def norm(x: str, name: str) -> str:
        parts = [b.weight(f"encoder.layer.0.{name}.{p}", d) for p in ("weight", "bias")]
        out = f"{scope}{name}/LayerNormalization_output_0"
        return b.node(
            "LayerNormalization", [x, *parts], [out], name=f"{scope}{name}/LayerNormalization"
        )

    def linear(x: str, name: str, n: int, m: int) -> str:
        w = b.weight(f"onnx::MatMul_{100 + len(b.nodes)}", n, m)
        path = f"{scope}{name.replace('.', '/')}"
        x = b.node("MatMul", [x, w], [f"{path}/MatMul_output_0"], name=f"{path}/MatMul")
        bias = b.weight(f"encoder.layer.0.{name}.bias", m)
        return b.node("Add", [bias, x], [f"{path}/Add_output_0"], name=f"{path}/Add")

    def split(x: str, name: str, perm: list[int]) -> str:
        shape = b.ints(f"{name}_shape", [0, -1, heads, d // heads])
        x = b.node("Reshape", [x, shape], [f"{name}_split"])
        return b.node("Transpose", [x], [f"{name}_heads"], perm=perm)

    y = norm("hidden", "norm1")
    q = split(linear(y, "attention.query", d, d), "q", [0, 2, 1, 3])
    k = split(linear(y, "attention.key", d, d), "k", [0, 2, 3, 1])
    v = split(linear(y, "attention.value", d, d), "v", [0, 2, 1, 3])
    b.weights.append(numpy_helper.from_array(np.array(2.0, np.float32), "scale"))
    x = b.node("Div", [b.node("MatMul", [q, k], ["scores"]), "scale"], ["scaled"])
    x = b.node("MatMul", [b.node("Softmax", [x], ["weights"], axis=-1), v], ["mixed"])
    x = b.node("Transpose", [x], ["mixed_back"], perm=[0, 2, 1, 3])
    x = b.node("Reshape", [x, b.ints("merged_shape", [0, 0, d])], ["merged"])
    x = residual_ = b.node("Add", [linear(x, "attention.output", d, d), "hidden"], ["residual_1"])
    x = linear(norm(x, "norm2"), "mlp.up", d, 4 * d)
    # GELU, spelt out.
    for name, value in (("root2", 2**0.5), ("one", 1.0), ("half", 0.5)):
        b.weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
    g = b.node("Add", [b.node("Erf", [b.node("Div", [x, "root2"], ["g1"])], ["g2"]), "one"], ["g3"])
    x = b.node("Mul", [b.node("Mul", [x, g], ["g4"]), "half"], ["g5"])
    b.node("Add", [linear(x, "mlp.down", 4 * d, d), residual_], ["output"])
    shape = ["batch", "seq", d]
    return b.model([("hidden", F32, shape)], [("output", F32, shape)])


def control_flow(b: Builder) -> onnx.ModelProto:
    """An If on a value of the run, and a Loop that collects what it computes."""
    scalar = numpy_helper.from_array(np.array(0.0, np.float32), "zero")
    b.weights.append(scalar)
    b.node("ReduceSum", ["x"], ["total"], keepdims=0)
    b.node("Greater", ["total", "zero"], ["positive"])
    then = h.make_graph(
        [h.make_node("Mul", ["x", b.weight("gain", 4)], ["scaled"])],
        "then",
        [],
        [h.make_tensor_value_info("scaled", F32, ["n", 4])],
    )
    other = h.make_graph(
        [h.make_node("Neg", ["x"], ["negated"])],
        "else",
        [],
        [h.make_tensor_value_info("negated", F32, ["n", 4])],
    )
    b.node("If", ["positive"], ["start"], then_branch=then, else_branch=other)
    body = h.make_graph(
        [
            h.make_node("Identity", ["go"], ["go_on"]),
            h.make_node("MatMul", ["state", "step"], ["moved"]),
            h.make_node("Tanh", ["moved"], ["next"]),
            h.make_node("ReduceMax", ["next"], ["peak"], keepdims=0),
        ],
        "body",
        [
            h.make_tensor_value_info("i", I64, []),
            h.make_tensor_value_info("go", T.BOOL, []),
            h.make_tensor_value_info("state", F32, ["n", 4]),
        ],
        [
            h.make_tensor_value_info("go_on", T.BOOL, []),
            h.make_tensor_value_info("next", F32, ["n", 4]),
            h.make_tensor_value_info("peak", F32, []),
        ],
    )
    b.weight("step", 4, 4)
    b.weights.append(numpy_helper.from_array(np.array(3, np.int64), "trips"))
    b.node("Loop", ["trips", "", "start"], ["final", "peaks"], body=body)
    return b.model([("x", F32, ["n", 4])], [("final", F32, ["n", 4]), ("peaks", F32, ["trips"])])


def shared_weights(b: Builder) -> onnx.ModelProto:
    """An embedding whose table is also the output layer, and one linear layer called twice."""
    b.weight("embed.weight", 11, 6)
    b.weight("mix.weight", 6, 6)
    x = b.node("Gather", ["embed.weight", "tokens"], ["/embed/Gather_output_0"])
    x = b.node("MatMul", [x, "mix.weight"], ["/mix/MatMul_output_0"])
    x = b.node(
        "MatMul",
        [b.node("Relu", [x], ["/Relu_output_0"]), "mix.weight"],
        ["/mix_1/MatMul_output_0"],
    )
    table = b.node("Transpose", ["embed.weight"], ["table"], perm=[1, 0])
    b.node("MatMul", [x, table], ["scores"])
    return b.model([("tokens", I64, ["batch", "seq"])], [("scores", F32, ["batch", "seq", 11])])


def name_collisions(b: Builder) -> onnx.ModelProto:
    """Names that Python, torch or each other have taken."""
    x = b.node("Add", ["self", "torch"], ["forward"])
    x = b.node("Mul", [x, b.weight("class", 3)], ["class.weight"])
    x = b.node("Add", [x, b.weight("lambda.weight", 3)], ["a.b"])
    x = b.node("Sub", [x, b.weight("lambda", 3)], ["a/b"])
    x = b.node("Mul", [x, b.weight("weight 1", 3)], ["a_b"])
    x = b.node("Add", [x, b.weight("1", 3)], ["training"])
    b.node("Div", [x, "F"], ["x"])
    b.node("Relu", ["x"], ["Relu"])
    inputs = [(n, F32, ["N", 3]) for n in ("self", "torch", "F")]
    return b.model(inputs, [("Relu", F32, ["N", 3]), ("x", F32, ["N", 3])])


def several_outputs(b: Builder) -> onnx.ModelProto:
    """Several outputs, one of them an input, one given twice, one constant."""
    b.node("Split", ["x", b.ints("sizes", [2, 4])], ["left", "right"], axis=1)
    b.node("TopK", ["right", b.ints("k", [2])], ["values", "indices"])
    b.node("Identity", ["x"], ["same"])
    b.node(
        "Constant", [], ["answer"], value=numpy_helper.from_array(np.array([4.5, 2], np.float32))
    )
    return b.model(
        [("x", F32, ["N", 6])],
        [
            ("left", F32, ["N", 2]),
            ("values", F32, ["N", 2]),
            ("indices", I64, ["N", 2]),
            ("same", F32, ["N", 6]),
            ("answer", F32, [2]),
        ],
    )


def detector(b: Builder) -> onnx.ModelProto:
    """The end of a detector: upsampling, concatenation, a grid of boxes that is computed once."""
    scale = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    b.weights.append(scale)
    x = b.node("Resize", ["small", "", "scales"], ["up"], mode="nearest")
    x = b.node("Concat", [x, "large"], ["both"], axis=1)
    w = b.weight("head.weight", 6, 8, 1, 1)
    x = b.node("Conv", [x, w, b.weight("head.bias", 6)], ["raw"], kernel_shape=[1, 1])
    x = b.node("Reshape", [x, b.ints("flat", [0, 6, -1])], ["boxes_first"])
    x = b.node("Transpose", [x], ["boxes_last"], perm=[0, 2, 1])
    x = b.node("Sigmoid", [x], ["squashed"])
    parts = [
        b.node(
            "Slice",
            [x, b.ints(f"from{i}", [lo]), b.ints(f"to{i}", [hi]), b.ints(f"axis{i}", [2])],
            [f"part{i}"],
        )
        for i, (lo, hi) in enumerate([(0, 2), (2, 4), (4, 6)])
    ]
    b.weights.append(
        numpy_helper.from_array(
            np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1)
            .reshape(1, 16, 2)
            .astype(np.float32),
            "grid",
        )
    )
    xy = b.node("Add", [parts[0], "grid"], ["centres"])
    b.node("Concat", [xy, parts[1], parts[2]], ["boxes"], axis=-1)
    return b.model(
        [("small", F32, ["batch", 4, 2, 2]), ("large", F32, ["batch", 4, 4, 4])],
        [("boxes", F32, ["batch", 16, 6])],
    )


MODELS: list[Callable[[Builder], onnx.ModelProto]] = [
    mlp,
    residual,
    dynamic_reshape,
    transformer,
    control_flow,
    shared_weights,
    name_collisions,
    several_outputs,
    detector,
]


def make(folder: Path) -> None:
    """Writes all models into `folder`."""
    for build in MODELS:
        model = build(Builder(build.__name__))
        onnx.checker.check_model(model, full_check=True)
        (folder / f"{build.__name__}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
