"""What torch does to a module works on converted ones: networks that torch exports, and answers of their own.

Each test compares with the original network's answers, under the same tool where that changes them.
"""

import copy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchao.quantization import Int8WeightOnlyConfig, quantize_

import onnx2nn

pytest.importorskip("onnxscript")

ROWS = 3


class Residual(nn.Module):
    """Convolutions with norms, a skip, and a picture normalised by buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]).reshape(1, 3, 1, 1))
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        # Norms after the activation: those right after a convolution are folded by the exporters.
        x = self.bn1(F.relu(self.conv1((x - self.mean) / self.std)))
        x = x + self.bn2(F.relu(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class Text(nn.Module):
    """Attention over tokens with learnt and with rotary positions."""

    inv_freq: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.position = nn.Parameter(torch.randn(6, 16) * 0.1)
        self.register_buffer("inv_freq", 100.0 ** (-torch.arange(4) / 4.0), persistent=False)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 20)

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[2], dtype=torch.float32), self.inv_freq)
        a, b = x.chunk(2, dim=-1)
        return torch.cat(
            (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1
        )

    def forward(self, tokens: Tensor) -> Tensor:
        b, n = tokens.shape
        x = self.embedding(tokens) + self.position
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        return self.out(x + y.transpose(1, 2).reshape(b, n, 16))


class Summary(nn.Module):
    """Two outputs, and a class token that is repeated for each row of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.mlp(x)
        return self.head(x[:, 0]), F.normalize(x[:, 1:].mean(1), dim=-1)


class Windows(nn.Module):
    """Attention within shifted windows, a norm over groups, and a picture that is made larger."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 2, stride=2)
        self.norm = nn.GroupNorm(4, 16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.randn(2, 4, 4) * 0.1)
        self.out = nn.ConvTranspose2d(16, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.patches(F.pad(x, (1, 1, 1, 1), mode="reflect"))))
        b, c, h, w = x.shape
        y = torch.roll(x.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        y = y.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(y).reshape(-1, 4, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = (F.softmax(q @ k.transpose(-2, -1) * 8**-0.5 + self.bias, dim=-1) @ v).transpose(1, 2)
        y = self.proj(y.reshape(-1, 4, c)).reshape(b, h // 2, w // 2, 2, 2, c)
        y = torch.roll(y.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c), (1, 1), (1, 2))
        y = x + y.permute(0, 3, 1, 2)
        return self.out(F.interpolate(y, scale_factor=2.0, mode="bilinear"))


class Recurrent(nn.Module):
    """An LSTM in both directions over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.rnn = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(self.rnn(self.embedding(tokens))[0])


INPUTS = {
    Residual: lambda: torch.rand(ROWS, 3, 8, 8),
    Text: lambda: torch.randint(0, 20, (ROWS, 6)),
    Summary: lambda: torch.rand(ROWS, 3, 8, 8),
    Windows: lambda: torch.rand(ROWS, 3, 10, 10),
    Recurrent: lambda: torch.randint(0, 20, (ROWS, 6)),
}


class Case(NamedTuple):
    original: nn.Module
    converted: nn.Module
    x: Tensor
    onnx: Path
    source: Path
    module: ModuleType


@pytest.fixture(
    scope="module",
    params=[(kind, dynamo) for kind in INPUTS for dynamo in (True, False)],
    ids=lambda p: f"{p[0].__name__}-{'dynamo' if p[1] else 'legacy'}",
)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    kind, dynamo = request.param
    torch.manual_seed(0)
    original = kind().eval()
    x = INPUTS[kind]()
    folder = tmp_path_factory.mktemp(kind.__name__)
    path = folder / "model.onnx"
    options: dict[str, Any] = {"opset_version": 18}
    if dynamo:
        options |= {"dynamic_shapes": ({0: "batch"},), "external_data": False, "verbose": False}
    else:
        options |= {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(original, (x,), path, dynamo=dynamo, **options)
    # A package that another process may import too.
    name = f"written_{kind.__name__.lower()}_{'dynamo' if dynamo else 'legacy'}"
    source = folder / f"{name}.py"
    onnx2nn.convert(str(path), str(source))
    sys.path.insert(0, str(folder))
    try:
        module = __import__(name)
        yield Case(original, module.load(), x, path, source, module)
    finally:
        sys.path.remove(str(folder))


def tensors(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def assert_same(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    for ours, theirs in zip(tensors(got), tensors(want), strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=tolerance, atol=tolerance)


def test_answers(case: Case) -> None:
    assert_same(case.converted(case.x), case.original(case.x))


def test_only_what_is_trained_is_a_parameter(case: Case) -> None:
    ours = sum(p.numel() for p in case.converted.parameters())
    assert ours == sum(p.numel() for p in case.original.parameters())


def test_a_step_of_training_has_the_original_s_gradients(case: Case) -> None:
    lengths = []
    for net in case.original, case.converted:
        net.zero_grad()
        sum((y**2).mean() for y in tensors(net(case.x))).backward()
        grads = [p.grad for p in net.parameters()]
        assert all(g is not None for g in grads)
        lengths.append(sorted(float(g.norm()) for g in grads))
        net.zero_grad()
    torch.testing.assert_close(
        torch.tensor(lengths[1]), torch.tensor(lengths[0]), rtol=1e-4, atol=1e-6
    )


def test_compile_without_a_break(case: Case) -> None:
    compiled = torch.compile(case.converted, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(allow_rnn=isinstance(case.original, Recurrent)):
        assert_same(compiled(case.x), case.original(case.x))


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_free_batch(case: Case, strict: bool) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(case.converted, (case.x,), dynamic_shapes=shapes, strict=strict)
    more = torch.cat((case.x, case.x[:2]))
    assert_same(program.module()(more), case.original(more))


def test_symbolic_trace(case: Case) -> None:
    traced = torch.fx.symbolic_trace(case.converted)
    more = torch.cat((case.x, case.x[:2]))
    assert_same(traced(more), case.original(more))


def test_functional_call(case: Case) -> None:
    state = {
        k: v * 1.5 if v.is_floating_point() else v for k, v in case.converted.state_dict().items()
    }
    changed = copy.deepcopy(case.converted)
    changed.load_state_dict(state)
    got = torch.func.functional_call(case.converted, state, (case.x,))
    assert_same(got, changed(case.x))
    assert not torch.equal(tensors(got)[0], tensors(case.converted(case.x))[0])


def test_vmap_over_the_batch(case: Case) -> None:
    if isinstance(case.original, Recurrent):
        pytest.skip("torch has no rule to batch an LSTM by")
    each = torch.vmap(lambda row: case.converted(row[None]))(case.x)
    assert_same(tuple(y[:, 0] for y in tensors(each)), case.original(case.x))


def test_deepcopy(case: Case) -> None:
    copied = copy.deepcopy(case.converted)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert_same(case.converted(case.x), case.original(case.x))


def test_the_whole_module_loads_in_another_process(case: Case, tmp_path: Path) -> None:
    torch.save(case.converted, tmp_path / "whole.pt")
    torch.save(case.x, tmp_path / "x.pt")
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]);"
        "net = torch.load(sys.argv[2] + '/whole.pt', weights_only=False);"
        "torch.save(net(torch.load(sys.argv[2] + '/x.pt')), sys.argv[2] + '/y.pt')"
    )
    subprocess.run(
        [sys.executable, "-c", code, case.source.parent, tmp_path], check=True, timeout=120
    )
    assert_same(torch.load(tmp_path / "y.pt"), case.original(case.x))


class Answers(Dataset[Tensor]):
    """A data set whose rows the network makes, in whatever process asks for them."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        self.net, self.x = net, x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        with torch.no_grad():
            return tensors(self.net(self.x[i : i + 1]))[0][0]


def test_spawned_workers_of_a_data_loader(case: Case) -> None:
    if not isinstance(case.original, Residual):
        pytest.skip("one network shows it: the process costs seconds")
    loader = DataLoader(
        Answers(case.converted, case.x),
        batch_size=ROWS,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    (got,) = loader
    assert_same(got, tensors(case.original(case.x))[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(case: Case, dtype: torch.dtype) -> None:
    net = copy.deepcopy(case.converted).to(dtype)
    x = case.x.to(dtype) if case.x.is_floating_point() else case.x
    got = net(x)
    assert all(y.dtype == dtype for y in tensors(got))
    assert_same(got, case.original(case.x), 0.1)


def test_load_with_device_and_dtype(case: Case) -> None:
    net = onnx2nn.load(str(case.onnx), device="cpu", dtype=torch.float64)
    assert all(p.dtype == torch.float64 for p in net.parameters())
    x = case.x.double() if case.x.is_floating_point() else case.x
    assert_same(net(x), case.original(case.x))
    assert all(p.is_meta for p in onnx2nn.load(str(case.onnx), device="meta").parameters())


def test_to_another_device(case: Case) -> None:
    net = copy.deepcopy(case.converted).to("meta")
    assert [y.shape for y in tensors(net(case.x.to("meta")))] == [
        y.shape for y in tensors(case.original(case.x))
    ]


def test_autocast(case: Case) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        got, want = case.converted(case.x), case.original(case.x)
    assert_same(got, want, 0.05)


def test_linear_layers_are_quantised(case: Case) -> None:
    net = copy.deepcopy(case.converted)
    quantize_(net, Int8WeightOnlyConfig())
    linear = [m.weight for m in net.modules() if isinstance(m, nn.Linear)]
    assert linear
    assert all(type(w) is not nn.Parameter for w in linear)
    assert_same(net(case.x), case.original(case.x), 0.1)
