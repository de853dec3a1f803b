"""The check of a simplified model: what it finds, what it lets pass, and what it costs in memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from onnx2nn import _native
from onnx2nn.check import skeleton
from onnx2nn.check.equivalence import Original
from onnx2nn.check.skeleton import Skeleton, Weights
from onnx2nn.errors import Error
from onnx2nn.simplification import simplify_checked
from onnx2nn.source import Source

WIDTH = 512


def info(name: str, dims: Any, elem: int = T.FLOAT) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, elem, dims)


def stack(blocks: int = 2, width: int = WIDTH) -> onnx.ModelProto:
    """MatMul, Add and Relu, with weights of `width` squared."""
    rng = np.random.default_rng(3)
    nodes, weights, x = [], [], "x"
    for k in range(blocks):
        w = rng.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5)
        weights += [numpy_helper.from_array(w, f"w{k}")]
        weights += [numpy_helper.from_array(w[0], f"b{k}")]
        nodes += [
            h.make_node("MatMul", [x, f"w{k}"], [f"m{k}"], f"matmul{k}"),
            h.make_node("Add", [f"m{k}", f"b{k}"], [f"a{k}"], f"add{k}"),
            h.make_node("Identity", [f"a{k}"], [f"i{k}"], f"identity{k}"),
            h.make_node("Relu", [f"i{k}"], [f"r{k}"], f"relu{k}"),
        ]
        x = f"r{k}"
    graph = h.make_graph(nodes, "g", [info("x", ["batch", width])], [info(x, None)], weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of files as small as the tests' are mapped too."""
    monkeypatch.setattr(skeleton, "_LARGE_FILE", 0)
    monkeypatch.setattr(skeleton, "_LARGE_TENSOR", 1024)


@pytest.mark.parametrize("form", ["raw", "typed", "external"])
def test_large_weights_are_mapped_and_the_rest_is_kept(
    form: str, tmp_path: Path, mapped: None
) -> None:
    model = stack()
    if form == "typed":
        for t in model.graph.initializer:
            values = numpy_helper.to_array(t).reshape(-1).tolist()
            t.CopyFrom(h.make_tensor(t.name, T.FLOAT, t.dims, values))
    whole = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    path = tmp_path / "model.onnx"
    onnx.save_model(model, str(path), save_as_external_data=form == "external", location="w.bin")
    if form == "external":
        (tmp_path / "model.onnx.data").touch()
    found = Skeleton(str(path))
    weights = Weights(found.folder, found.places).arrays
    assert set(weights) == set(whole)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, whole[name])
    assert isinstance(found.model, bytes)
    assert len(found.model) < 4096
    bare = onnx.load_from_string(found.model)
    assert [n.output for n in bare.graph.node] == [n.output for n in model.graph.node]
    assert [list(t.dims) for t in bare.graph.initializer] == [[*w.shape] for w in whole.values()]


@pytest.mark.usefixtures("mapped")
def test_a_damaged_file_is_left_to_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(stack().SerializeToString()[:-3])
    assert Skeleton(str(path)).model == str(path)
    with pytest.raises(Error):
        simplify_checked(str(path), tmp_path / "out.onnx")


@pytest.mark.parametrize("external", [False, True])
def test_one_wrong_weight_is_found(external: bool, tmp_path: Path, mapped: None) -> None:
    right, wrong = tmp_path / "right.onnx", tmp_path / "wrong.onnx"
    model = stack()
    onnx.save_model(model, str(right), save_as_external_data=external, location="right.onnx.data")
    original = Original(Source(str(right)))
    assert [r.ok for r in original.compare(Source(str(right)))] == [True] * 3
    shapes = [r.inputs[0][2] for r in original.compare(Source(str(right)))]
    assert shapes == [[1, WIDTH], [1, WIDTH], [3, WIDTH]]
    model = stack()
    value = numpy_helper.to_array(model.graph.initializer[-1]).copy()
    value[-1] += 0.5
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(value, "b1"))
    onnx.save_model(model, str(wrong), save_as_external_data=external, location="wrong.onnx.data")
    reports = original.compare(Source(str(wrong)))
    assert [r.ok for r in reports] == [False]


def break_with(monkeypatch: pytest.MonkeyPatch, rewrite: Any, name: str) -> None:
    """With that rewrite, a rule and a node, the weight of that name is written wrongly."""
    real = _native.simplify

    def broken(model: Any, out: Any, options: dict[str, Any]) -> Any:
        result = real(model, out, options)
        if rewrite in result["log"]:
            # Staged, or where it was to be.
            path = Path(options.get("staging") or Path(out).parent) / Path(out).name
            written = onnx.load(path)
            for t in written.graph.initializer:
                if t.name == name:
                    value = -numpy_helper.to_array(t)
                    t.CopyFrom(numpy_helper.from_array(value, name))
            onnx.save_model(written, path)
        return result

    monkeypatch.setattr(_native, "simplify", broken)


@pytest.mark.usefixtures("mapped")
def test_the_rule_and_node_at_fault_are_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(stack(), str(path))
    log = simplify_checked(str(path), out).result["log"]
    before = out.read_bytes()
    assert len(log) > 2
    break_with(monkeypatch, log[1], "b1")
    outcome = simplify_checked(str(path), out)
    assert not outcome.ok
    assert outcome.culprit == log[1]
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "out.onnx"]


@pytest.mark.parametrize("external", [False, True])
def test_in_place(external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(stack(), str(path), save_as_external_data=external, location="m.onnx.data")
    data = tmp_path / "m.onnx.data"
    # Weights that others wrote are left where they are.
    files = ["m.onnx", "m.onnx.1.data"] if external else ["m.onnx"]
    original = Original(Source(str(path)))
    kept = [f.read_bytes() for f in (path, data) if f.exists()]
    with monkeypatch.context() as patch:
        break_with(patch, ("fold-identity", "identity0"), "b1")
        assert not simplify_checked(str(path), path).ok
    assert [f.read_bytes() for f in (path, data) if f.exists()] == kept
    outcome = simplify_checked(str(path), path)
    assert outcome.ok
    assert [Path(f).name for f in outcome.result["files"]] == files
    assert sorted(p.name for p in tmp_path.iterdir()) == files + external * ["m.onnx.data"]
    assert all(r.ok for r in original.compare(Source(str(path))))
    assert "Identity" not in {n.op_type for n in onnx.load(str(path)).graph.node}


def cancelling(last: float, otherwise: bool = False) -> Source:
    """Sums that cancel to next to nothing: the answer is all rounding but for `last`."""
    mean = [h.make_node("ReduceMean", ["d"], ["z"], keepdims=0)]
    if otherwise:
        mean = [
            h.make_node("Mul", ["d", "part"], ["parts"]),
            h.make_node("ReduceSum", ["parts"], ["z"], keepdims=0),
        ]
    graph = h.make_graph(
        [
            h.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
            h.make_node("Sub", ["x", "m"], ["d"]),
            *mean,
            h.make_node("Add", ["z", "c"], ["y"]),
        ],
        "g",
        [info("x", [1000])],
        [info("y", [])],
        [
            numpy_helper.from_array(np.array(last, np.float32), "c"),
            numpy_helper.from_array(np.array(1e-3, np.float32), "part"),
        ],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    return Source(model.SerializeToString())


def test_digits_that_rounding_made_are_no_difference_and_others_are() -> None:
    feed = {"x": np.random.default_rng(0).standard_normal(1000).astype(np.float32)}
    for last in (0.0, 1e-7):
        original = Original(cancelling(last), 1, inputs=feed)
        [same] = original.compare(cancelling(last, otherwise=True))
        assert same.ok
        assert "rounding that grows" in same.notes[-1]
    original = Original(cancelling(1e-4), 1, inputs=feed)
    assert not original.compare(cancelling(1.01e-4, otherwise=True))[0].ok
    assert not original.compare(cancelling(1.0, otherwise=True))[0].ok


def test_what_nobody_can_run_is_skipped_and_says_why(tmp_path: Path) -> None:
    graph = h.make_graph(
        [h.make_node("Magic", ["x"], ["y"], domain="custom")],
        "g",
        [info("x", [2])],
        [info("y", [2])],
    )
    imports = [h.make_opsetid("", 17), h.make_opsetid("custom", 1)]
    model = h.make_model(graph, opset_imports=imports, ir_version=8)
    outcome = simplify_checked(model, tmp_path / "out.onnx")
    assert outcome.ok is None
    assert "ONNX Runtime: " in str(outcome.skipped)
    assert "reference" in str(outcome.skipped)


def test_simplifying_imports_no_torch(tmp_path: Path) -> None:
    onnx.save(stack(1, 8), str(tmp_path / "m.onnx"))
    code = (
        "import sys; from onnx2nn.cli import main; "
        "code = main(['simplify', 'm.onnx', 'out.onnx', '-q']); "
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root / "python")},
        check=True,
    )


def test_weights_are_not_copied_into_memory(tmp_path: Path) -> None:
    """What the check of a large file takes stays a fraction of the file."""
    onnx.save(stack(24, 1024), str(tmp_path / "m.onnx"))
    code = (
        # Not getrusage: its peak is the parent's too, from before this program was started.
        "peak = lambda: int(next(x for x in open('/proc/self/status') if x.startswith('VmHWM'))"
        ".split()[1]) / 1024\n"
        "from onnx2nn.cli import main; import numpy, onnx, onnxruntime\n"
        "onnxruntime.SessionOptions()\n"
        "before = peak()\n"
        "assert main(['simplify', 'm.onnx', 'out.onnx', '-q']) == 0\n"
        "print(peak() - before)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root / "python"), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    size = (tmp_path / "m.onnx").stat().st_size / 2**20
    # The pages of one file at a time, were none given back; each copy in memory would add to it.
    assert 1 < float(done.stdout) < 1.5 * size
