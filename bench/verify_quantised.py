"""How long `verify` takes for a quantised network of some 1,349 nodes, node by node included.

usage: verify_quantised.py [--blocks N] [--size S]
Builds a detector's backbone of N blocks (QuantizeLinear and DequantizeLinear around a convolution with
int8 weights, its activation and a sum) on pictures of S x S, and prints the seconds of one check, and
those of processor time in it and in the oracle's process, with what both runs alone take beside it.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnx2nn


def network(blocks: int, size: int) -> onnx.ModelProto:
    """Blocks of Conv, Sigmoid, Mul and Add, each value through a quantiser of its own."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {"zero": np.int8(0), "zu": np.uint8(128)}

    def quantised(value: str, name: str, scale: float) -> str:
        constants[f"{name}.scale"] = np.float32(scale)
        nodes.append(
            helper.make_node("QuantizeLinear", [value, f"{name}.scale", "zu"], [f"{name}.q"])
        )
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{name}.q", f"{name}.scale", "zu"], [f"{name}.d"]
            )
        )
        return f"{name}.d"

    value, channels = quantised("image", "image", 0.03), 3
    for k in range(blocks):
        wide = min(128, 16 << (k // 16))
        stride = 2 if k % 16 == 0 else 1
        w = f"blocks.{k}.weight"
        constants[w] = rng.integers(-127, 128, (wide, channels, 3, 3)).astype(np.int8)
        constants[f"{w}.scale"] = np.float32(0.02 / (channels * 9) ** 0.5)
        nodes.append(helper.make_node("DequantizeLinear", [w, f"{w}.scale", "zero"], [f"{w}.d"]))
        nodes.append(
            helper.make_node(
                "Conv", [value, f"{w}.d"], [f"c{k}"], pads=[1] * 4, strides=[stride] * 2
            )
        )
        conv = quantised(f"c{k}", f"c{k}", 0.03)
        nodes.append(helper.make_node("Sigmoid", [conv], [f"s{k}"]))
        gate = quantised(f"s{k}", f"s{k}", 1 / 255)
        nodes.append(helper.make_node("Mul", [conv, gate], [f"m{k}"]))
        made = quantised(f"m{k}", f"m{k}", 0.03)
        if stride == 1 and wide == channels:
            nodes.append(helper.make_node("Add", [value, made], [f"a{k}"]))
            made = quantised(f"a{k}", f"a{k}", 0.03)
        value, channels = made, wide
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def processor_time() -> float:
    """Seconds that this process has computed, and those that it started and that still live."""
    total = time.process_time()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in children:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=106)
    parser.add_argument("--size", type=int, default=320)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantised.onnx"
        model = network(a.blocks, a.size)
        onnx.save(model, str(path))
        onnx2nn.convert(path, Path(folder) / "net.py")
        for nodes in ("never", "always"):
            start, busy = time.perf_counter(), processor_time()
            report = onnx2nn.verify(path, Path(folder) / "net.py", nodes=nodes)
            took, used = time.perf_counter() - start, processor_time() - busy
            print(
                f"{len(model.graph.node)} nodes, nodes={nodes}: {took:.1f} s, "
                f"{used:.1f} s of processor time, {report!r}"
            )
            for note in report.notes:
                print("   ", note)


if __name__ == "__main__":
    main()
