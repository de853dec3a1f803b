"""Faults inside branches and bodies: each is found, and the inner node named."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import onnx2nn

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '
BRANCH = """g (float[2,8] x) => (float[2,8] y) <float[8] w = {1,-2,3,-4,5,-6,7,8}, float zero = {0.0}> {
  h = Add (x, w)  s = ReduceSum <keepdims = 0> (h)  c = Greater (s, zero)
  z = If (c) <
    then_branch = yes () => (float[2,8] t3) { t1 = Mul (h, w)  t2 = Elu (t1)  t3 = Sub (t2, x) },
    else_branch = no () => (float[2,8] e1) { e1 = Neg (h) }
  >
  y = Sigmoid (z)
}"""
SAME_STEPS = """g (float[2,8] x) => (float[2,8] y) <float[8] w = {1,-2,3,-4,5,-6,7,8}, float zero = {0.0}> {
  h = Add (x, w)  s = ReduceSum <keepdims = 0> (h)  c = Greater (s, zero)
  z = If (c) <
    then_branch = yes () => (float[2,8] t2) { t1 = Mul (h, w)  t2 = Elu (t1) },
    else_branch = no () => (float[2,8] e2) { e1 = Mul (h, h)  e2 = Elu (e1) }
  >
  y = Sigmoid (z)
}"""
LOOP = """g (float[2,8] x, int64 n) => (float[2,8] y) <float[8] w = {1,-2,3,-4,5,-6,7,8}> {
  h = Add (x, w)
  z = Loop (n, , h) <
    body = turn (int64 i, bool on, float[2,8] s) => (bool go, float[2,8] b3) {
      go = Identity (on)  b1 = Mul (s, w)  b2 = Elu (b1)  b3 = Sub (b2, x)
    }
  >
  y = Sigmoid (z)
}"""
SCAN = """g (float[5,8] x) => (float[8] last, float[5,8] y) <float[8] w = {1,-2,3,-4,5,-6,7,8}> {
  h = Mul (x, w)
  last, z = Scan (w, h) <
    num_scan_inputs = 1,
    body = turn (float[8] s, float[8] row) => (float[8] next, float[8] b2) {
      b1 = Mul (s, row)  b2 = Elu (b1)  next = Sub (s, row)
    }
  >
  y = Sigmoid (z)
}"""
NESTED = """g (float[2,8] x, int64 n) => (float[2,8] y) <float[8] w = {1,-2,3,-4,5,-6,7,8}, float zero = {0.0}> {
  z = Loop (n, , x) <
    body = turn (int64 i, bool on, float[2,8] s) => (bool go, float[2,8] b2) {
      go = Identity (on)  b1 = Mul (s, w)  m = ReduceSum <keepdims = 0> (b1)  c = Less (m, zero)
      b2 = If (c) <
        then_branch = yes () => (float[2,8] t1) { t1 = Elu (b1) },
        else_branch = no () => (float[2,8] e1) { e0 = Neg (b1)  e1 = Elu (e0) }
      >
    }
  >
  y = Sigmoid (z)
}"""


def named(graph: onnx.GraphProto) -> None:
    """Give each node the name of its operator."""
    for node in graph.node:
        node.name = node.op_type
        for a in node.attribute:
            if a.HasField("g"):
                named(a.g)


def written(text: str, folder: Path) -> tuple[Path, Path]:
    proto = onnx.parser.parse_model(HEAD + text)
    named(proto.graph)
    onnx.save(proto, str(folder / "m.onnx"))
    onnx2nn.convert(folder / "m.onnx", folder / "net.py")
    return folder / "m.onnx", folder / "net.py"


def values(text: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    found: dict[str, np.ndarray] = {"x": rng.standard_normal((5, 8)).astype(np.float32)}
    if "[2,8] x" in text:
        found["x"] = found["x"][:2] + np.float32(1)
    if "int64 n" in text:
        found["n"] = np.array(3)
    return found


ALL = {"a branch": BRANCH, "like branches": SAME_STEPS, "a loop": LOOP, "a scan": SCAN}
ALL["a branch in a loop"] = NESTED


@pytest.mark.parametrize("name", ALL)
def test_nothing_planted_is_right(name: str, tmp_path: Path) -> None:
    model, net = written(ALL[name], tmp_path)
    # Another way to say the same, so that the source is not the one that is written.
    source = net.read_text()
    assert "F.elu(" in source, source
    for text in source, source.replace("F.elu(", "F.celu("):
        net.write_text(text)
        report = onnx2nn.verify(model, net, inputs=values(ALL[name]), nodes="always")
        assert report.ok, (report, report.notes, report.first_difference)
        assert not any("as one" in note for note in report.notes), report.notes


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("other", ["F.selu(", "F.relu(", "F.leaky_relu("])
def test_a_fault_inside_is_found_and_named(name: str, other: str, tmp_path: Path) -> None:
    model, net = written(ALL[name], tmp_path)
    net.write_text(net.read_text().replace("F.elu(", other))
    report = onnx2nn.verify(model, net, inputs=values(ALL[name]))
    assert report.ok is False, report
    assert report.first_difference is not None, report.notes
    assert report.first_difference.op_type == "Elu", report.first_difference
    outer = next(
        k
        for k, n in enumerate(onnx.load(model).graph.node)
        if n.attribute[0:1] and n.op_type in ("If", "Loop", "Scan")
    )
    assert report.first_difference.index == outer


def test_values_of_branches_are_compared_by_name(tmp_path: Path) -> None:
    model, net = written(BRANCH, tmp_path)
    report = onnx2nn.verify(model, net, inputs=values(BRANCH), per_node=True)
    names = {c.name for c in report.nodes}
    assert {"h", "s", "c", "z", "t1 (then_branch of z)", "t2 (then_branch of z)"} <= names
