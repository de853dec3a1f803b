"""Archives of TorchScript as torch reads them, against the module of the same conversion."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.backend.suite import cases
from tests.differential.one_node import chosen, make_case, model_of
from tests.differential.test_contrib import SPECS
from tests.numeric.test_generation import ints, search_model
from torch import Tensor, nn

import onnx2nn
import onnx2nn.tensors
from onnx2nn.errors import Error

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format old
        return torch.jit.load(str(path))


def script(model: Any, folder: Path, name: str = "net.pt") -> Any:
    path = folder / name
    onnx2nn.convert(model, path)
    return load(path)


def flat(y: Any) -> list[Any]:
    return [v for part in y for v in flat(part)] if isinstance(y, (tuple, list)) else [y]


def assert_same(got: Any, want: Any) -> None:
    ours, theirs = flat(got), flat(want)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert isinstance(a, Tensor) == isinstance(b, Tensor)
        if not isinstance(a, Tensor):
            assert a == b
            continue
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, equal_nan=True)


def exported(
    net: nn.Module, args: tuple[Tensor, ...], path: Path, dynamo: bool, **options: Any
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), args, str(path), dynamo=dynamo, verbose=False, **options)
    return path


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, d, d), nn.BatchNorm2d(8)) for d in (1, 2, 2)
        )
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        x = nn.functional.interpolate(self.up(x), scale_factor=2.0, mode="bilinear")
        return self.head(x.mean((2, 3)))


class Tagger(nn.Module):
    """Tied weights, and recurrent layers with and without states that come in."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 3, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x, _ = self.lstm(self.embed(ids))
        x, h = self.gru(x, h)
        return self.head(x), h


NETS: dict[str, tuple[type[nn.Module], tuple[Tensor, ...]]] = {
    "residual": (Residual, (torch.randn(2, 3, 16, 16),)),
    "tagger": (Tagger, (torch.randint(11, (2, 5)), torch.zeros(1, 2, 6))),
}


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", NETS)
def test_a_network_of_torch(name: str, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, args = NETS[name]
    original = make().eval()
    model = exported(original, args, tmp_path / "m.onnx", dynamo)
    net = script(model, tmp_path)
    page = onnx2nn.load(model)
    assert_same(net(*args), original(*args))
    assert set(net.state_dict()) == set(page.state_dict())
    named = dict(page.named_parameters(remove_duplicate=False))
    assert {k for k, _ in net.named_parameters()} <= set(named)
    assert all(p.requires_grad for p in net.parameters())
    frozen = torch.jit.freeze(net)
    assert_same(frozen(*args), original(*args))
    assert_same(torch.jit.optimize_for_inference(net)(*args), original(*args))


def test_it_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, args = NETS["residual"]
    model = exported(make().eval(), args, tmp_path / "m.onnx", True)
    net = script(model, tmp_path)
    net(*args).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_it_is_saved_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, args = NETS["tagger"]
    net = script(exported(make().eval(), args, tmp_path / "m.onnx", True), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.save(str(tmp_path / "again.pt"))
    assert_same(load(tmp_path / "again.pt")(*args), net(*args))


def test_tied_weights_share_their_storage(tmp_path: Path) -> None:
    make, args = NETS["tagger"]
    # Folding would transpose a copy.
    model = exported(make().eval(), args, tmp_path / "m.onnx", False, do_constant_folding=False)
    net = script(model, tmp_path)
    state = net.state_dict()
    assert state["head.weight"].data_ptr() == state["embed.weight"].data_ptr()


@pytest.mark.parametrize("permuted", [False, True], ids=["module", "function"])
def test_layer_norm_without_bias(permuted: bool, tmp_path: Path) -> None:
    """It has one of zeros, without which pnnx leaves it as it is."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("LayerNormalization", ["p" if permuted else "x", "w"], ["y"])]
    if permuted:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["p"], perm=[0, 2, 1]))
    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info("x", F32, [2, 8, 8])],
        [helper.make_tensor_value_info("y", F32, [2, 8, 8])],
        [numpy_helper.from_array(rng.normal(size=8).astype("f"), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    net, x = script(model, tmp_path), torch.randn(2, 8, 8)
    assert_same(net(x), onnx2nn.load(model)(x))
    assert list(net.state_dict()) == list(onnx2nn.load(model).state_dict())
    assert "zeros_like" in str(net.inlined_graph)


def test_modules_of_one_kind_share_a_class(tmp_path: Path) -> None:
    net = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(6)])
    model = exported(net, (torch.randn(2, 4),), tmp_path / "m.onnx", True)
    loaded = script(model, tmp_path)
    kinds = {m.original_name for m in loaded.modules()}
    assert len(kinds) <= 4  # the model, a block, a layer, perhaps a list


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.onnx")), ids=lambda p: p.stem)
def test_golden_models(path: Path, tmp_path: Path) -> None:
    report = onnx2nn.verify(path, onnx2nn.convert(path, tmp_path / "net.pt").files[0])
    assert report.ok, str(report)


def loop(stop_at: int | None) -> onnx.ModelProto:
    """Doubles x round by round, collects, and stops early where a sum is reached."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["x_in", "x_in"], ["x_out"]),
            helper.make_node("ReduceSum", ["x_out"], ["total"], keepdims=0),
            helper.make_node("Less", ["total", "bar"], ["go"]),
            helper.make_node("Cast", ["i"], ["seen"], to=F32),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", I64, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("x_in", F32, [2]),
        ],
        [
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("x_out", F32, [2]),
            helper.make_tensor_value_info("seen", F32, []),
        ],
        [numpy_helper.from_array(np.float32(stop_at or 1e30), "bar")],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y", "steps"], body=body)],
        "g",
        [helper.make_tensor_value_info("n", I64, []), helper.make_tensor_value_info("x", F32, [2])],
        [
            helper.make_tensor_value_info("y", F32, [2]),
            helper.make_tensor_value_info("steps", F32, ["k"]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("stop_at", [None, 20])
def test_loops(stop_at: int | None, tmp_path: Path) -> None:
    model = loop(stop_at)
    net, page = script(model, tmp_path), onnx2nn.load(model)
    for n in (1, 3, 6):
        args = (torch.tensor(n), torch.tensor([1.0, 2.0]))
        assert_same(net(*args), page(*args))


def test_gru_in_full(tmp_path: Path) -> None:
    """Both directions, rows of different lengths, and a form that nn.GRU has not."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((2, 12, 3), np.float32),
        "r": random.standard_normal((2, 12, 4), np.float32),
        "b": random.standard_normal((2, 24), np.float32),
    }
    node = helper.make_node(
        "GRU",
        ["x", "w", "r", "b", "lengths"],
        ["y", "h"],
        hidden_size=4,
        direction="bidirectional",
        clip=0.8,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", F32, ["time", "batch", 3]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        ],
        [helper.make_tensor_value_info(n, F32, None) for n in ("y", "h")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    net, page = script(model, tmp_path), onnx2nn.load(model)
    for lengths in ([5, 2], [1, 4], [0, 3]):
        args = (torch.randn(5, 2, 3), torch.tensor(lengths, dtype=torch.int32))
        assert_same(net(*args), page(*args))


@pytest.mark.parametrize("head_from_outside", [False, True])
@pytest.mark.parametrize("kind", ["BeamSearch", "GreedySearch", "Sampling"])
def test_a_search_over_a_decoder(kind: str, head_from_outside: bool, tmp_path: Path) -> None:
    """The decoder is a method, which takes what it reads of the function around it."""
    factor = [np.array([1.3], np.float32)]
    if kind == "BeamSearch":
        numbers = [*ints(8, 0, 3, 2), *factor, *factor]
    else:
        numbers = [*ints(8, 0), *factor]
        numbers += [None] * 4 + ints(7) if kind == "Sampling" else []
    model = search_model(kind, numbers)
    if head_from_outside:
        decoder = model.graph.node[0].attribute[-1].g
        head = next(w for w in decoder.initializer if w.name == "head")
        model.graph.input.append(helper.make_tensor_value_info("head", F32, list(head.dims)))
        decoder.initializer.remove(head)
    net, page = script(model, tmp_path), onnx2nn.load(model)
    torch.manual_seed(0)
    ids = torch.randint(2, 11, (2, 3), dtype=torch.int32)
    args = (ids, torch.randn(6, 11)) if head_from_outside else (ids,)
    assert_same(net(*args), page(*args))
    assert_same(torch.jit.freeze(net)(*args), page(*args))


@pytest.mark.parametrize("sequence", [False, True])
def test_a_variable_that_may_be_none(sequence: bool, tmp_path: Path) -> None:
    """One branch gives an optional's value, the other an optional without one."""
    plain = helper.make_tensor_type_proto(F32, [2])
    kind = helper.make_sequence_type_proto(plain) if sequence else plain
    optional = helper.make_value_info("o", helper.make_optional_type_proto(kind))
    made = [helper.make_node("SequenceConstruct", ["x", "x"], ["s"])] if sequence else []
    there = [*made, helper.make_node("Optional", ["s" if sequence else "x"], ["o"])]
    absent = [helper.make_node("Optional", [], ["o"], type=kind)]
    got = [helper.make_node("OptionalGetElement", ["o"], ["e"])]
    last = helper.make_node(
        "SequenceAt" if sequence else "Abs", ["e", "one"][: 1 + sequence], ["a"]
    )
    result = helper.make_tensor_value_info("a", F32, [2])
    graph = helper.make_graph(
        [
            helper.make_node("Greater", ["n", "one"], ["c"]),
            helper.make_node(
                "If",
                ["c"],
                ["o"],
                then_branch=helper.make_graph(there, "there", [], [optional]),
                else_branch=helper.make_graph(absent, "absent", [], [optional]),
            ),
            helper.make_node("OptionalHasElement", ["o"], ["has"]),
            helper.make_node(
                "If",
                ["has"],
                ["y"],
                then_branch=helper.make_graph([*got, last], "got", [], [result]),
                else_branch=helper.make_graph(
                    [helper.make_node("Neg", ["x"], ["a"])], "none", [], [result]
                ),
            ),
        ],
        "g",
        [helper.make_tensor_value_info("n", I64, []), helper.make_tensor_value_info("x", F32, [2])],
        [helper.make_tensor_value_info("y", F32, [2])],
        [numpy_helper.from_array(np.int64(1), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    net, page = script(model, tmp_path), onnx2nn.load(model)
    for n in (1, 2):
        args = (torch.tensor(n), torch.tensor([-1.0, 2.0]))
        assert_same(net(*args), page(*args))


def test_maps_by_numbers(tmp_path: Path) -> None:
    node = helper.make_node(
        "ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[94, 17, 36]
    )
    scores = helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F32, []))
    y = helper.make_value_info("y", helper.make_sequence_type_proto(scores))
    x = helper.make_tensor_value_info("x", F32, ["n", 3])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    values = torch.tensor([[0.5, 0.25, 2.0], [0.0, 1.0, 3.0]])
    assert_same(script(model, tmp_path)(values), onnx2nn.load(model)(values))


CONTRIB = {
    *("AttnLSTM", "BifurcationDetector", "DynamicQuantizeLSTM", "DynamicTimeWarping"),
    *("GatedDeltaNet", "GatherPacked", "LabelEncoder", "MatMulFpQ4", "QLinearAveragePool"),
    *("QLinearConcat", "SVMClassifier", "VarlenNGramHashMapping"),
}


@pytest.mark.parametrize("name", sorted(CONTRIB))
def test_operators_of_other_domains(name: str, tmp_path: Path) -> None:
    """Helpers that the front end of TorchScript takes in a form of their own."""
    taken = 0
    for spec in (s for s in SPECS if s.op_type == name and s.domain != "com.ms.internal.nhwc"):
        for options in chosen(spec, 4):
            case = make_case(spec, options)
            assert case is not None
            model, feeds = model_of(spec, case, case.inputs, case.attrs)
            try:
                net = script(model, tmp_path)
            except Error:
                if name not in ("LabelEncoder", "SVMClassifier"):  # with strings
                    raise
                continue
            given = [onnx2nn.tensors.to_torch(v) for v in feeds.values()]
            with torch.no_grad():
                assert_same(net(*given), onnx2nn.load(model)(*given))
            taken += 1
    assert taken > 0


def test_onnx_cases(tmp_path: Path) -> None:
    """What TorchScript takes of ONNX's own cases computes what the page does."""
    taken = 0
    refused: list[tuple[str, str]] = []
    for case in cases().values():
        if not case.data_sets:
            continue
        try:
            page = onnx2nn.load(case.model)
            feed = [onnx2nn.tensors.to_torch(v) for v in case.data_sets[0][0]]
            with torch.no_grad():
                torch.manual_seed(0)
                want = page(*feed)
        except Exception:
            continue  # those that do not run are in the manifest
        try:
            net = script(case.model, tmp_path, "case.pt")
        except Error as error:
            refused.append((case.name, error.diagnostics[0]["code"]))
            continue
        with torch.no_grad():
            torch.manual_seed(0)
            assert_same(net(*feed), want)
        taken += 1
    assert taken > 1980
    assert len(refused) < 50
    assert {code for _, code in refused} == {"unsupported-output"}


def test_helpers_are_those_of_the_runtime() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gen_script_helpers.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run tools/gen_script_helpers.py\n{done.stdout}{done.stderr}"


def test_what_it_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("StringConcat", ["a", "a"], ["b"], name="glue")],
            "g",
            [helper.make_tensor_value_info("a", TensorProto.STRING, ["n"])],
            [helper.make_tensor_value_info("b", TensorProto.STRING, ["n"])],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    with pytest.raises(Error, match="TorchScript has no input such as a") as caught:
        onnx2nn.convert(model, tmp_path / "net.pt")
    assert caught.value.diagnostics[0]["hint"]
    assert not (tmp_path / "net.pt").exists()


def test_a_refusal_says_where(tmp_path: Path) -> None:
    """The node's name, else the value that it gives, and what carries the model."""
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, ["h", "w", 3])
    for name, place in (("", "value y"), ("read", "node read")):
        node = helper.make_node("ImageDecoder", ["x"], ["y"], name=name)
        graph = helper.make_graph([node], "g", [x], [y])
        imports = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=9)
        with pytest.raises(Error, match=f"image_decoder \\({place}\\)") as caught:
            onnx2nn.convert(model, tmp_path / "net.pt")
        assert ".py" in caught.value.diagnostics[0]["hint"]


def test_a_file_of_others_is_kept(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "net.pt")
    with pytest.raises(Error, match="did not write"):
        onnx2nn.convert(GOLDEN / "mlp.onnx", tmp_path / "net.pt")
    onnx2nn.convert(GOLDEN / "mlp.onnx", tmp_path / "net.pt", force=True)
    onnx2nn.convert(GOLDEN / "mlp.onnx", tmp_path / "net.pt")  # ours may be replaced
    assert load(tmp_path / "net.pt")


def test_a_file_whose_name_is_not_ascii(tmp_path: Path) -> None:
    """The class is called after the file, and TorchScript reads names of ASCII alone."""
    onnx2nn.convert(GOLDEN / "mlp.onnx", tmp_path / "net.pt", class_name="Résumé")
    assert load(tmp_path / "net.pt").original_name == "Model"


def test_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one.pt", "two.pt"):
        onnx2nn.convert(GOLDEN / "transformer.onnx", tmp_path / name, class_name="Net")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()
