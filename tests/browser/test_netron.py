"""What Netron draws of each output, read from the page that it makes in Chromium."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from tests.exports.environments import chromium, environment, run

import onnx2nn

# The environments are installed by the first test that needs them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"
GOLDEN = ROOT / "tests" / "golden"
MODELS = [
    "control_flow",
    "detector",
    "dynamic_reshape",
    "name_collisions",
    "residual",
    "several_outputs",
    "shared_weights",
    "transformer",
]


def pages(folder: Path, *files: str) -> Iterator[list[dict[str, Any]]]:
    """The nodes that Netron draws of each file."""
    done = subprocess.run(
        [chromium(), ROOT / "tools" / "netron_pages.py", *files],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        page = json.loads(line)
        assert not page["message"], page
        yield page["nodes"]


def fields(node: dict[str, Any], *sections: str) -> Iterator[str]:
    """The values that the sidebar shows of a node."""
    for section in sections:
        for _, values in node.get(section, []):
            yield from values


def field(node: dict[str, Any], name: str) -> str | None:
    return next((v for n, (v, *_) in node.get("Node", []) if n == name), None)


def types(nodes: list[dict[str, Any]]) -> Counter[str]:
    """Counts by operator; the frames around graphs inside of nodes are none."""
    return Counter(str(field(n, "type")) for n in nodes if "type" in dict(n.get("Node", [])))


def shown(nodes: list[dict[str, Any]]) -> set[str]:
    """All names of values and weights."""
    return {v for n in nodes for v in fields(n, "Inputs", "Outputs")}


# ---- What there is to draw ----


def onnx_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                yield from onnx_nodes(a.g)


def check_onnx(file: Path, nodes: list[dict[str, Any]]) -> None:
    model = onnx.load(file, load_external_data=False)
    there = [*onnx_nodes(model.graph)]
    assert types(nodes) == Counter(n.op_type for n in there)
    assert {field(n, "name") for n in nodes} >= {n.name for n in there if n.name}
    used = {i for n in there for i in n.input}
    assert shown(nodes) >= used & {t.name for t in model.graph.initializer}


def script_kinds(block: Any) -> Iterator[str]:
    for node in block.nodes():
        yield node.kind()
        for inner in node.blocks():
            yield from script_kinds(inner)


def check_script(file: Path, nodes: list[dict[str, Any]]) -> None:
    net = torch.jit.load(file)
    # Constants, lists of them and reads of weights are shown with the nodes that take them.
    there = Counter(
        k
        for k in script_kinds(net.inlined_graph)
        if k.startswith("aten::") or k in ("prim::If", "prim::Loop")
    )
    assert Counter({k: n for k, n in types(nodes).items() if k in there}) == there
    # Netron gives weights to the nodes of the main graph alone, whoever wrote the archive.
    if "prim::If" not in there and "prim::Loop" not in there:
        weights = {k for k in net.state_dict() if "num_batches_tracked" not in k}
        assert shown(nodes) >= weights


def check_program(file: Path, nodes: list[dict[str, Any]]) -> None:
    program = torch.export.load(str(file))
    there = [n for n in program.graph.nodes if n.op == "call_function"]
    # An item of a tuple is an output of the node that makes the tuple.
    there = [n for n in there if n.target.__name__ != "getitem"]
    drawn = types(nodes)
    del drawn["placeholder"]  # a weight that several nodes read
    assert sum(drawn.values()) == len(there)
    made = {v for n in nodes for v in fields(n, "Outputs")}
    assert made >= {n.name for n in there if isinstance(n.meta.get("val"), torch.Tensor)}
    assert shown(nodes) >= {k for k in program.state_dict if "num_batches_tracked" not in k}
    assert ROOT.as_posix() not in json.dumps(nodes)


def check_weights(keys: Iterable[str], nodes: list[dict[str, Any]]) -> None:
    assert shown(nodes) >= {*keys}


# ---- The outputs ----


def test_simplified(tmp_path: Path) -> None:
    for name in MODELS:
        small, ok = onnx2nn.simplify(str(GOLDEN / f"{name}.onnx"))
        assert ok
        onnx.save(small, tmp_path / f"{name}.onnx")
    files = [f"{name}.onnx" for name in MODELS]
    for file, nodes in zip(files, pages(tmp_path, *files), strict=True):
        check_onnx(tmp_path / file, nodes)


def test_torchscript(tmp_path: Path) -> None:
    for name in MODELS:
        onnx2nn.convert(GOLDEN / f"{name}.onnx", tmp_path / f"{name}.pt")
    files = [f"{name}.pt" for name in MODELS]
    for file, nodes in zip(files, pages(tmp_path, *files), strict=True):
        check_script(tmp_path / file, nodes)


def test_program(tmp_path: Path) -> None:
    # Not control_flow: its branches are graphs of their own, and check_program counts the main one.
    names = [m for m in MODELS if m != "control_flow"]
    for name in names:
        onnx2nn.convert(GOLDEN / f"{name}.onnx", tmp_path / f"{name}.pt2")
    files = [f"{name}.pt2" for name in names]
    for file, nodes in zip(files, pages(tmp_path, *files), strict=True):
        check_program(tmp_path / file, nodes)


def test_weights(tmp_path: Path) -> None:
    onnx2nn.convert(DIGITS, tmp_path / "net.py")
    onnx2nn.convert(DIGITS, tmp_path / "state.pth")
    keys = [*onnx2nn.load(DIGITS).state_dict()]
    for nodes in pages(tmp_path, "net.safetensors", "state.pth"):
        check_weights(keys, nodes)


def test_exported_again(tmp_path: Path) -> None:
    onnx2nn.export_onnx(onnx2nn.load(DIGITS), DIGITS, tmp_path / "again.onnx")
    (nodes,) = pages(tmp_path, "again.onnx")
    check_onnx(tmp_path / "again.onnx", nodes)


def test_ncnn(tmp_path: Path) -> None:
    """The file of layers that pnnx makes of ours."""
    onnx2nn.convert(DIGITS, tmp_path / "net.pt")
    done = subprocess.run(
        [environment("ncnn") / "pnnx", "net.pt", "inputshape=[1,1,8,8]", "fp16=0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = ["net.ncnn.param", "net.pnnx.param"]
    for file, nodes in zip(files, pages(tmp_path, *files), strict=True):
        lines = [line.split() for line in (tmp_path / file).read_text().splitlines()[2:]]
        layers = {
            name for kind, name, *_ in lines if kind not in ("Input", "pnnx.Input", "pnnx.Output")
        }
        assert {field(n, "name") for n in nodes} == layers
        weights = Counter(name for n in nodes for name, _ in n.get("Inputs", []))
        assert weights["weight"] == weights["bias"] == 6


WRITE = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import onnx2nn
onnx2nn.convert(sys.argv[2], "net.pte")
print(json.dumps(None))
"""


def test_executorch(tmp_path: Path) -> None:
    """What was given to XNNPACK is shown as a function, with its operators inside."""
    run("executorch", WRITE, tmp_path, str(ROOT / "python"), str(DIGITS))
    (nodes,) = pages(tmp_path, "net.pte")
    inside = types([f for n in nodes for f in n.get("function", [])])
    there = Counter(n.op_type for n in onnx.load(DIGITS).graph.node)
    convolutions = sum(n for k, n in inside.items() if "Conv" in k)
    assert convolutions == there["Conv"]
    assert inside["XNNMaxPooling2d"] == there["MaxPool"]
    assert inside["XNNAdd"] == there["Add"]
    assert inside["XNNFullyConnected"] == there["Gemm"]
