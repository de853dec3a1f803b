"""Time the native simplifier on generated graphs of growing size: a curve that has to stay straight.

usage: simplify_scale.py PROGRAM [--sizes 1000,10000,100000] [--runs 3]

PROGRAM is onnx2nn's native program, built with the release preset. Kinds of graphs: `chain`, one operator after the
other; `constants`, a chain each of whose additions has a constant of its own; `fan-out`, one value with as many users
as there are nodes; `outputs`, as many graph outputs; `shapes`, a chain of Reshapes with their shape arithmetic;
`nested`, one If with all nodes in its branch; `branches`, an If for every ten nodes. Prints the least processor time
of each in seconds, which other work on the machine changes less than the time on the wall, and microseconds a node.
"""

import argparse
import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Nodes = list[onnx.NodeProto]
UNARY = ["Relu", "Neg", "Abs", "Identity", "Sigmoid"]


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8])


def row(n: int, start: str, prefix: str) -> tuple[Nodes, str]:
    """A chain of `n` unary operators after `start`, and the name of what comes out."""
    names = [start] + [f"{prefix}{i}" for i in range(n)]
    return [helper.make_node(UNARY[i % 5], [names[i]], [names[i + 1]]) for i in range(n)], names[-1]


def model(
    nodes: Nodes, outputs: list[str], constants: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [value("x")], [value(o) for o in outputs], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(n: int) -> onnx.ModelProto:
    nodes, last = row(n, "x", "v")
    return model(nodes, [last])


def constants(n: int) -> onnx.ModelProto:
    nodes: Nodes = []
    weights = {}
    last = "x"
    for i in range(n // 2):
        weights[f"c{i}"] = np.array([i], np.float32)
        nodes += [
            helper.make_node("Add", [last, f"c{i}"], [f"a{i}"]),
            helper.make_node("Tanh", [f"a{i}"], [f"t{i}"]),
        ]
        last = f"t{i}"
    return model(nodes, [last], weights)


def fan_out(n: int) -> onnx.ModelProto:
    names = [f"v{i}" for i in range(n)]
    nodes = [helper.make_node("LeakyRelu", ["r"], [v], alpha=float(i)) for i, v in enumerate(names)]
    ends = [helper.make_node("Relu", ["x"], ["r"]), *nodes, helper.make_node("Sum", names, ["y"])]
    return model(ends, ["y"])


def outputs(n: int) -> onnx.ModelProto:
    names = [f"v{i}" for i in range(n)]
    nodes = [helper.make_node("LeakyRelu", ["x"], [v], alpha=float(i)) for i, v in enumerate(names)]
    return model(nodes, names)


def shapes(n: int) -> onnx.ModelProto:
    nodes: Nodes = []
    last = "x"
    for i in range(n // 6):
        nodes += [
            helper.make_node("Relu", [last], [f"r{i}"]),
            helper.make_node("Shape", [f"r{i}"], [f"s{i}"]),
            helper.make_node("Gather", [f"s{i}", "zero"], [f"g{i}"]),
            helper.make_node("Unsqueeze", [f"g{i}", "axes"], [f"u{i}"]),
            helper.make_node("Concat", [f"u{i}", "rest"], [f"c{i}"], axis=0),
            helper.make_node("Reshape", [f"r{i}", f"c{i}"], [f"v{i}"]),
        ]
        last = f"v{i}"
    numbers = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    return model(nodes, [last], numbers)


def branch(name: str, n: int) -> onnx.GraphProto:
    nodes, last = row(n, "x", name)
    return helper.make_graph(nodes, name, [], [value(last)])


def chosen(name: str, n: int) -> onnx.NodeProto:
    """An If on the values of the input, of `n` nodes in all."""
    return helper.make_node(
        "If",
        ["c"],
        [name],
        then_branch=branch(name + "t", n // 2),
        else_branch=branch(name + "e", n - n // 2),
    )


CONDITION = [
    helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
    helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
]


def nested(n: int) -> onnx.ModelProto:
    return model([*CONDITION, chosen("y", n)], ["y"])


def branches(n: int) -> onnx.ModelProto:
    names = [f"y{i}" for i in range(n // 10)]
    ifs = [chosen(name, 9) for name in names]
    return model([*CONDITION, *ifs, helper.make_node("Sum", names, ["z"])], ["z"])


KINDS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "chain": chain,
    "constants": constants,
    "fan-out": fan_out,
    "outputs": outputs,
    "shapes": shapes,
    "nested": nested,
    "branches": branches,
}


def processor_time() -> float:
    """Seconds that the programs run so far have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program")
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    sizes = [int(s) for s in args.sizes.split(",")]
    print(f"{'nodes':10}" + "".join(f"{n:>20,}" for n in sizes))
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        for kind, make in KINDS.items():
            line = f"{kind:10}"
            for n in sizes:
                path.write_bytes(make(n).SerializeToString())
                best = float("inf")
                for _ in range(args.runs):
                    start = processor_time()
                    command = [args.program, "simplify", str(path), str(out), "-q"]
                    subprocess.run(command, check=True, capture_output=True)
                    best = min(best, processor_time() - start)
                line += f"{best:9.3f} s {1e6 * best / n:6.1f} us"
            print(line, flush=True)


if __name__ == "__main__":
    main()
