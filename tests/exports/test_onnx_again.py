"""Modules exported to ONNX again, held to ONNX Runtime's answers for the model that they came from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

import onnx2nn

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    def values(given: dict[str, tuple[int, list[Any]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(k, *v) for k, v in given.items()]

    graph = helper.make_graph(
        list(nodes),
        "g",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def drawn(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype("f")


def of_rows(kind: int = FLOAT) -> tuple[int, list[Any]]:
    return kind, ["batch", 4]


node = helper.make_node
MODELS = {
    "bounds of two kinds of numbers": model(
        [node("Clip", ["x", "low", "high"], ["y"])],
        {"x": of_rows()},
        {"y": of_rows()},
        {"low": np.float32(1), "high": np.float32(2.5)},
    ),
    "largest, of equal values the first": model(
        [node("TopK", ["x", "k"], ["values", "places"], axis=-1)],
        {"x": of_rows(INT)},
        {"values": (INT, ["batch", 3]), "places": (INT, ["batch", 3])},
        {"k": np.array([3])},
    ),
    "an input that is given out": model(
        [node("Relu", ["x"], ["y"])], {"x": of_rows()}, {"y": of_rows(), "x": of_rows()}
    ),
    "names that are none of Python's": model(
        [node("Relu", ["input.1"], ["a/b:0"]), node("Neg", ["a/b:0"], ["class"])],
        {"input.1": of_rows()},
        {"a/b:0": of_rows(), "class": of_rows()},
    ),
    "a name inside that torch gives to another value": model(
        [node("Relu", ["x"], ["neg"]), node("Neg", ["neg"], ["h"]), node("Abs", ["h"], ["y"])],
        {"x": of_rows()},
        {"neg": of_rows(), "y": of_rows()},
    ),
    "the least of all": model(
        [node("ReduceMin", ["x"], ["y"], keepdims=0)], {"x": of_rows()}, {"y": (FLOAT, [])}
    ),
    "places of 32 bits": model(
        [node("Gather", ["x", "places"], ["picked"], axis=1), node("Neg", ["picked"], ["y"])],
        {"x": of_rows(), "places": (TensorProto.INT32, [2, 3])},
        {"y": (FLOAT, ["batch", 2, 3])},
    ),
    "shifts of signed and of unsigned numbers": model(
        [
            node("BitShift", ["x", "bits"], ["left"], direction="LEFT"),
            node("BitShift", ["x", "bits"], ["right"], direction="RIGHT"),
        ],
        {"x": (TensorProto.UINT8, ["batch", 4])},
        {"left": (TensorProto.UINT8, ["batch", 4]), "right": (TensorProto.UINT8, ["batch", 4])},
        {"bits": np.array([1, 2, 3, 7], np.uint8)},
    ),
    "attention of three axes": model(
        [
            node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
            node("MatMul", ["x", "k"], ["s"]),
            node("Mul", ["s", "scale"], ["scaled"]),
            node("Softmax", ["scaled"], ["p"], axis=-1),
            node("MatMul", ["p", "x"], ["h"]),
            node("Neg", ["h"], ["y"]),
        ],
        {"x": (FLOAT, ["batch", 3, 4])},
        {"y": (FLOAT, ["batch", 3, 4])},
        {"scale": np.float32(0.5)},
    ),
    "an LSTM": model(
        [
            node("LSTM", ["x", "w", "r", "b"], ["h", "last"], hidden_size=5),
            node("Squeeze", ["h", "axis"], ["y"]),
        ],
        {"x": (FLOAT, [6, "batch", 4])},
        {"y": (FLOAT, [6, "batch", 5]), "last": (FLOAT, [1, "batch", 5])},
        {"w": drawn(1, 20, 4), "r": drawn(1, 20, 5), "b": drawn(1, 40), "axis": np.array([1])},
    ),
}


MODELS["layers of any length"] = model(
    [
        node("LSTM", ["x", "w", "r", "b"], ["h", "last"], hidden_size=5, direction="bidirectional"),
        node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "joined"], ["j"]),
        node("GRU", ["j", "w2", "r2", "b2"], ["h2"], hidden_size=3, linear_before_reset=1),
        node("Squeeze", ["h2", "axis"], ["y"]),
    ],
    {"x": (FLOAT, ["length", "batch", 4])},
    {"y": (FLOAT, ["length", "batch", 3]), "last": (FLOAT, [2, "batch", 5])},
    {
        **{"w": drawn(2, 20, 4), "r": drawn(2, 20, 5), "b": drawn(2, 40)},
        **{"w2": drawn(1, 9, 10), "r2": drawn(1, 9, 3), "b2": drawn(1, 18)},
        **{"axis": np.array([1]), "joined": np.array([0, 0, 10])},
    },
)
ROWS = [helper.make_tensor_value_info(k, FLOAT, ["batch", 4]) for k in ("a", "b")]
MODELS["one of two ways"] = model(
    [
        node("ReduceMin", ["x"], ["least"], keepdims=0),
        node("Less", ["least", "bound"], ["is_less"]),
        node(
            "If",
            ["is_less"],
            ["y"],
            then_branch=helper.make_graph([node("Add", ["x", "x"], ["a"])], "then", [], ROWS[:1]),
            else_branch=helper.make_graph([node("Neg", ["x"], ["b"])], "else", [], ROWS[1:]),
        ),
    ],
    {"x": of_rows(), "bound": (FLOAT, [])},
    {"y": of_rows()},
)


def interface(values: Any) -> list[tuple[str, list[Any]]]:
    return [
        (v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in values
    ]


@pytest.mark.parametrize("kind", MODELS)
def test_answers_names_and_dims_are_the_models(kind: str, tmp_path: Path) -> None:
    original, path = MODELS[kind], tmp_path / "again.onnx"
    assert onnx2nn.export_onnx(onnx2nn.load(original), original, path) == [str(path)]
    again = onnx.load(path)
    assert interface(again.graph.input) == interface(original.graph.input)
    assert interface(again.graph.output) == interface(original.graph.output)
    report = onnx2nn.verify(original, path)
    assert report.ok, report


def test_layers_answer_at_any_length(tmp_path: Path) -> None:
    of = MODELS["layers of any length"]
    net = onnx2nn.load(of)
    onnx2nn.export_onnx(net, of, tmp_path / "again.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "again.onnx")
    for length, batch in ((9, 1), (4, 6)):
        x = torch.randn(length, batch, 4)
        for got, want in zip(session.run(None, {"x": x.numpy()}), net(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), want, atol=1e-5, rtol=1e-5)


WHOLE = torch.arange(-6, 6, dtype=torch.float64)
EDGES = torch.tensor([-1.0, 0, 0, 1])
FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "where": lambda x: torch.where(x > 1, x < 2, x < 0.5).float(),
    "tril": lambda x: x * torch.ones(4, 4, dtype=torch.uint8).tril(-1)[1],
    "triu": lambda x: x * torch.ones(4, 4, dtype=torch.int8).triu()[1],
    "searchsorted": lambda x: torch.searchsorted(EDGES, x.round()).float(),
    "searchsorted right": lambda x: torch.searchsorted(EDGES, x.round(), right=True).float(),
    "searchsorted rows": lambda x: torch.searchsorted(x.sort().values, x).float(),
    "doubles convolved": lambda x: F.conv1d(
        x.double()[:, None], WHOLE.reshape(4, 1, 3), WHOLE[:4], stride=2, padding=1
    ).flatten(1),
    "doubles convolved in groups": lambda x: F.conv2d(
        x.double().reshape(-1, 2, 2, 1), WHOLE.reshape(6, 1, 2, 1), dilation=(1, 3), groups=2
    ).flatten(1),
    "randn": lambda x: x + torch.randn([4], generator=None).sign().abs(),
}


@pytest.mark.parametrize("form", FORMS)
def test_calls_that_onnx_or_its_runtime_lacks(form: str, tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return FORMS[form](x)

    of = model([node("Identity", ["x"], ["y"])], {"x": of_rows()}, {"y": of_rows()})
    onnx2nn.export_onnx(Net(), of, tmp_path / "again.onnx")
    x = torch.arange(-10.0, 10).reshape(5, 4) / 4
    session = onnxruntime.InferenceSession(tmp_path / "again.onnx")
    np.testing.assert_array_equal(session.run(None, {"x": x.numpy()})[0], Net()(x).numpy())


def test_forms_that_pnnx_takes(tmp_path: Path) -> None:
    """Lookups in a weight that name no axis, and layer norms with a bias, be it zeros."""
    made = model(
        [
            node("Gather", ["table", "x"], ["rows"]),
            node("LayerNormalization", ["rows", "w"], ["y"]),
        ],
        {"x": of_rows(INT)},
        {"y": (FLOAT, ["batch", 4, 6])},
        {"table": drawn(5, 6), "w": drawn(6)},
    )
    onnx2nn.export_onnx(onnx2nn.load(made), made, tmp_path / "again.onnx")
    graph = onnx.load(tmp_path / "again.onnx").graph
    lookup, norm = graph.node
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    assert (lookup.op_type, [*lookup.attribute]) == ("Gather", [])
    assert not weights[norm.input[2]].any()
    x = np.random.default_rng(0).integers(5, size=(3, 4))
    want = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})
    got = onnxruntime.InferenceSession(tmp_path / "again.onnx").run(None, {"x": x})
    np.testing.assert_allclose(got[0], want[0], atol=1e-6)


def test_reductions_as_pnnx_reads_them(tmp_path: Path) -> None:
    """Axes are attributes, of opset 17; a sum, whose axes stay an input, is over two of them."""

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            largest = x.amax(2), x.amin((1, -1), keepdim=True), x.amax((2, 3))
            means = x.mean(1), x.mean(-1, keepdim=True), x.mean((2, 3)), x.norm(dim=-1)
            sums = x.sum(1), x.sum(-1), x.sum(2, keepdim=True), x.sum((1, 2))
            return *largest, *means, *sums, *x.chunk(2, 1)

    x = drawn(2, 5, 3, 4)
    wanted = Net()(torch.from_numpy(x))
    outputs = {f"y{k}": (FLOAT, ["batch", *y.shape[1:]]) for k, y in enumerate(wanted)}
    of = model(
        [node("Identity", ["x"], [y]) for y in outputs], {"x": (FLOAT, ["batch", 5, 3, 4])}, outputs
    )
    path = tmp_path / "again.onnx"
    onnx2nn.export_onnx(Net(), of, path, for_pnnx=True)
    again = onnx.load(path)
    onnx.checker.check_model(again, full_check=True)
    assert [o.version for o in again.opset_import] == [17]
    weights = {w.name: w.dims for w in again.graph.initializer}
    axes: dict[str, set[int]] = {}
    for n in again.graph.node:
        if n.op_type.startswith("Reduce"):
            named = {a.name: [*a.ints] for a in n.attribute}.get("axes")
            axes.setdefault(n.op_type, set()).add(len(named) if named else weights[n.input[1]][0])
    assert axes == {"ReduceMax": {1}, "ReduceMin": {1}, "ReduceMean": {1, 2}, "ReduceL2": {1}} | {
        "ReduceSum": {2}
    }
    got = onnxruntime.InferenceSession(path).run(None, {"x": x})
    for want, y in zip(wanted, got, strict=True):
        np.testing.assert_allclose(y, want, atol=1e-6, rtol=1e-6)


def test_opsets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    net, path = onnx2nn.load(DIGITS), tmp_path / "again.onnx"
    with pytest.raises(onnx2nn.Error, match="opset=17: torch writes opset 18 and later ones"):
        onnx2nn.export_onnx(net, DIGITS, path, opset=17)
    with pytest.raises(onnx2nn.Error, match="opset=20 with for_pnnx"):
        onnx2nn.export_onnx(net, DIGITS, path, opset=20, for_pnnx=True)

    class Bits(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x & 3

    of = model([node("Identity", ["x"], ["y"])], {"x": of_rows(INT)}, {"y": of_rows(INT)})
    with pytest.raises(onnx2nn.Error, match="BitwiseAnd is not in opset 17"):
        onnx2nn.export_onnx(Bits(), of, path, for_pnnx=True)
    assert not [*tmp_path.iterdir()]


def test_weights_that_were_trained_further(tmp_path: Path) -> None:
    """From written source; the weights' names are the module's keys."""
    net = onnx2nn.load(DIGITS)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.01)
    path = tmp_path / "again.onnx"
    onnx2nn.export_onnx(net, DIGITS, path, opset=18)
    again = onnx.load(path)
    layers = {"stem.weight", "fc.weight", "fc.bias"}
    assert layers <= {i.name for i in again.graph.initializer}
    assert [o.version for o in again.opset_import if not o.domain] == [18]
    x = torch.randn(3, 1, 8, 8)
    got = onnx2nn.load(path)(x)
    torch.testing.assert_close(got, net(x), atol=1e-4, rtol=1e-4)  # batch norms are folded
    assert not torch.allclose(got, onnx2nn.load(DIGITS)(x), atol=1e-3)


def test_nothing_of_this_machine_is_in_it(tmp_path: Path) -> None:
    net = onnx2nn.load(DIGITS)
    for name in ("one.onnx", "two.onnx"):
        onnx2nn.export_onnx(net, DIGITS, tmp_path / name)
        net = onnx2nn.load(DIGITS)
    data = (tmp_path / "one.onnx").read_bytes()
    assert b"stack_trace" not in data
    assert str(ROOT).encode() not in data
    assert data == (tmp_path / "two.onnx").read_bytes()


def test_files_of_others_are_kept(tmp_path: Path) -> None:
    net, path = onnx2nn.load(DIGITS), tmp_path / "net.onnx"
    path.write_bytes(DIGITS.read_bytes())
    with pytest.raises(onnx2nn.Error, match="did not write"):
        onnx2nn.export_onnx(net, DIGITS, path)
    assert path.read_bytes() == DIGITS.read_bytes()
    onnx2nn.export_onnx(net, DIGITS, path, force=True)
    onnx2nn.export_onnx(net, DIGITS, path)  # ours may be replaced
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_what_torch_cannot_export_is_said(tmp_path: Path) -> None:
    kind = (TensorProto.STRING, ["n"])
    strings = model([node("StringConcat", ["a", "a"], ["b"])], {"a": kind}, {"b": kind})
    strings.opset_import[0].version = 20
    strings.ir_version = 9
    with pytest.raises(onnx2nn.Error, match="export"):
        onnx2nn.export_onnx(onnx2nn.load(strings), strings, tmp_path / "again.onnx")
    assert not [*tmp_path.iterdir()]


def test_inputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    many = model([node("SequenceAt", ["x", "first"], ["y"])], {"x": of_rows()}, {"y": of_rows()})
    many.graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    tensor = helper.make_tensor_type_proto(FLOAT, ["batch", 4])
    many.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(tensor))
    with pytest.raises(onnx2nn.Error, match="the input x, a sequence"):
        onnx2nn.export_onnx(onnx2nn.load(many), many, tmp_path / "again.onnx")


@pytest.mark.parametrize("labels", [[94, 17, 36], ["dog", "cat", "bird"]])
def test_maps_of_labels_stay_maps(labels: list[Any], tmp_path: Path) -> None:
    kind, key = ("strings", TensorProto.STRING) if "cat" in labels else ("int64s", INT)
    of = model(
        [
            node("Softmax", ["x"], ["scores"]),
            node(
                "ZipMap", ["scores"], ["y"], domain="ai.onnx.ml", **{f"classlabels_{kind}": labels}
            ),
        ],
        {"x": (FLOAT, ["batch", 3])},
        {"y": (FLOAT, [])},
    )
    of.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    maps = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))
    of.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(maps))
    path = tmp_path / "again.onnx"
    onnx2nn.export_onnx(onnx2nn.load(of), of, path)
    for rows in (1, 4):
        original, again = (
            onnxruntime.InferenceSession(m).run(None, {"x": drawn(rows, 3)})[0]
            for m in (of.SerializeToString(), path)
        )
        assert [m.keys() for m in again] == [m.keys() for m in original]
        for got, want in zip(again, original, strict=True):
            assert got == pytest.approx(want)


def test_outputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    pair = model([node("SequenceConstruct", ["x", "x"], ["y"])], {"x": of_rows()}, {"y": of_rows()})
    tensor = helper.make_tensor_type_proto(FLOAT, ["batch", 4])
    pair.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(tensor))
    with pytest.raises(onnx2nn.Error, match="the output y, a sequence"):
        onnx2nn.export_onnx(onnx2nn.load(pair), pair, tmp_path / "again.onnx")
    assert not [*tmp_path.iterdir()]


def test_a_dim_that_torch_fixes_is_open_no_more(tmp_path: Path) -> None:
    """As a length that it takes apart: another would be answered wrongly, and silently."""
    parts = model(
        [
            node("SplitToSequence", ["x"], ["parts"], axis=0),
            node("ConcatFromSequence", ["parts"], ["y"], axis=1),
        ],
        {"x": (FLOAT, ["length", 4])},
        {"y": (FLOAT, [1, "width"])},
    )
    onnx2nn.export_onnx(onnx2nn.load(parts), parts, tmp_path / "again.onnx")
    graph = onnx.load(tmp_path / "again.onnx").graph
    for value, axis in (graph.input[0], 0), (graph.output[0], 1):
        assert value.type.tensor_type.shape.dim[axis].dim_value > 0, value
