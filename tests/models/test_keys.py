"""The state_dict of what is written is the original's: `load_state_dict(original, strict=True)` works, and the answers
are the original's. Tied weights are one parameter under both keys; what the graph computes is no entry."""

import copy
import io
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import onnx2nn
from pages import written


class Head(nn.Module):
    """A head that shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(200, 64)
        self.body = nn.Linear(64, 64)
        self.lm_head = nn.Linear(64, 200, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.lm_head(self.body(self.wte(x)).relu())


class Masked(nn.Module):
    """A causal mask and positions, which no state_dict holds, and an order, which it does."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(12, 12)
        mask = torch.full((12, 12), float("-inf")).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0, 6) / 6), persistent=False)
        self.register_buffer("index", torch.randint(0, 12, (12, 12)))

    def forward(self, x: Tensor) -> Tensor:
        turned = x[..., :6] * self.inv_freq
        scores = self.proj(torch.cat([turned, x[..., 6:]], -1))
        return (scores[..., self.index].sum(-1) + self.mask).softmax(-1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attn(x, x, x, need_weights=False)[0])


class Functional(nn.Module):
    """Parameters that belong to no module of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(24))
        self.gain = nn.Parameter(torch.randn(24))
        self.in_weight = nn.Parameter(torch.randn(24, 24))
        self.in_bias = nn.Parameter(torch.randn(24))

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.cls_token
        return F.linear(y, self.in_weight, self.in_bias) * self.gain


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    for p in layer.parameters():
        nn.init.normal_(p)
    return nn.TransformerEncoder(layer, 2)


def twins() -> nn.Module:
    """Layers that begin with equal weights, which exporters keep once."""
    layer = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU())
    return nn.Sequential(layer, copy.deepcopy(layer))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8))
    )


def ids() -> Tensor:
    return torch.randint(0, 40, (2, 7))


class Names(nn.Module):
    """Names that are no identifiers, or keywords: of chains, of a dict, of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        stem = [("conv-1", nn.Conv2d(3, 8, 3)), ("relu-1", nn.ReLU()), ("2nd", nn.Conv2d(8, 8, 1))]
        self.stem = nn.Sequential(OrderedDict(stem))
        self.branches = nn.ModuleDict(
            {"3x3": nn.Conv2d(8, 8, 3, padding=1), "5-x": nn.Conv2d(8, 8, 1)}
        )
        self.add_module("0", nn.Conv2d(8, 8, 1))
        self.register_parameter("scale-x", nn.Parameter(torch.randn(8, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.branches["3x3"](x) - self.branches["5-x"](x)
        return getattr(self, "0")(x) * getattr(self, "scale-x")


class Lists(nn.Module):
    """Lists and dicts of parameters, which are multiplied as they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(12, 12)) for _ in range(3))
        self.biases = nn.ParameterDict({k: nn.Parameter(torch.randn(12)) for k in "abc"})
        self.gain = nn.Parameter(torch.rand(12) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights, self.biases.values()):
            x = torch.tanh(x @ weight + bias)
        return x * self.gain


class Conv1D(nn.Module):
    """GPT-2's projection, whose weight lies as (in, out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(*x.shape[:-1], -1)


class JoinedBias(nn.Module):
    """A projection to queries, keys and values with two biases, as BEiT's."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(24, 72, bias=False)
        self.q_bias = nn.Parameter(torch.randn(24))
        self.v_bias = nn.Parameter(torch.randn(24))

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, -1)
        return (q @ k.transpose(1, 2)).softmax(-1) @ v


class Prediction(nn.Module):
    """BERT's head, whose bias is that of its last layer as well."""

    def __init__(self, words: int = 30) -> None:
        super().__init__()
        self.dense = nn.Linear(16, 16)
        self.decoder = nn.Linear(16, words)
        self.bias = nn.Parameter(torch.zeros(words))
        self.decoder.bias = self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.dense(x).relu())


class Language(nn.Module):
    """RoBERTa: a head with the embedding's weight, and a bias under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.lm_head = Prediction(80)
        self.embeddings = nn.Sequential(nn.Embedding(80, 16), nn.LayerNorm(16))
        self.embeddings[0].weight = self.lm_head.decoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.lm_head(self.embeddings(x))


class Lent(nn.Module):
    """An embedding whose weight two modules share, as BART's and T5's."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(200, 64)
        self.encoder = nn.Sequential(nn.Embedding(200, 64), nn.Linear(64, 64))
        self.decoder = nn.Sequential(nn.Embedding(200, 64), nn.Linear(64, 64))
        for part in self.encoder, self.decoder:
            part[0].weight = self.shared.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x) + self.decoder(x + 1)


class RMSNorm(nn.Module):
    """Llama's, with the Cast that exporters leave in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(24))

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * y.to(x.dtype)


class ScaledEmbedding(nn.Embedding):
    """Gemma's and BART's: an embedding of a class of its own, with a number that no state_dict holds."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.register_buffer("embed_scale", torch.tensor(width**0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.embed_scale


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(ScaledEmbedding(200, 64), nn.Linear(64, 64))
        self.lm_head = nn.Linear(64, 200, bias=False)
        self.lm_head.weight = self.body[0].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.lm_head(self.body(x).relu())


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight, as NF-ResNets do."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(weight, None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "tied": (Head, ids),
    "scaled": (Scaled, ids),
    "buffers": (Masked, lambda: torch.randn(2, 12, 12)),
    "attention": (Attention, lambda: torch.randn(2, 5, 32)),
    "functional": (Functional, lambda: torch.randn(2, 5, 24)),
    "twins": (twins, lambda: torch.randn(2, 5, 32)),
    "convolutions": (convolutions, lambda: torch.randn(2, 3, 9, 9)),
    "names": (Names, lambda: torch.randn(2, 3, 9, 9)),
    "lists": (Lists, lambda: torch.randn(2, 5, 12)),
    "conv1d": (
        lambda: nn.Sequential(Conv1D(12, 12), nn.GELU(), Conv1D(12, 24)),
        lambda: torch.randn(2, 5, 12),
    ),
    "joined bias": (lambda: nn.Sequential(JoinedBias()), lambda: torch.randn(2, 5, 24)),
    "prediction": (lambda: nn.Sequential(Prediction()), lambda: torch.randn(2, 5, 16)),
    "language": (Language, ids),
    "lent": (Lent, ids),
    "rms norm": (lambda: nn.Sequential(RMSNorm(), nn.Linear(24, 8)), lambda: torch.randn(2, 5, 24)),
    "standardised": (
        lambda: nn.Sequential(Standardised(32, 64, 3), nn.ReLU()),
        lambda: torch.randn(2, 32, 5, 5),
    ),
    "encoder": (encoder, lambda: torch.randn(2, 5, 16)),
}


def exported(net: nn.Module, x: Tensor, dynamo: bool) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(net, (x,), dynamo=True, verbose=False)
            assert program is not None
            program.save(file)
        else:
            torch.onnx.export(net, (x,), file, dynamo=False)
    return file.getvalue()


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", MODULES)
def test_the_state_is_the_originals(name: str, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, example = MODULES[name]
    net, x = make().eval(), example()
    if name not in {"twins", "encoder"}:  # whose layers begin with equal weights
        for p in net.parameters():
            nn.init.normal_(p)
    model = exported(net, x, dynamo)
    ours, loaded = written(model, tmp_path), onnx2nn.load(model)
    original = net.state_dict()
    # The newer exporter keeps what it made of the order, and not the order itself.
    gone = {"index"} if (name, dynamo) == ("buffers", True) else set()
    for mine in (ours, loaded):
        state = mine.state_dict()
        assert set(state) == set(original) - gone
        for key, value in state.items():
            torch.testing.assert_close(value, original[key], rtol=0, atol=0, msg=key)
        with torch.no_grad():
            torch.testing.assert_close(mine(x), net(x), rtol=1e-4, atol=1e-5)
    ours.load_state_dict({k: original[k] for k in original if k not in gone}, strict=True)
    assert all(p.requires_grad for p in ours.parameters())
    names = {k for k, _ in net.named_parameters()}
    if name not in {
        "tied",
        "scaled",
        "lent",
        "prediction",
        "language",
    }:  # of several keys, one is named
        assert {k for k, _ in ours.named_parameters()} == names


def test_a_tied_weight_stays_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Head().eval(), ids()
    for mine in (written(exported(net, x, True), tmp_path), onnx2nn.load(exported(net, x, True))):
        assert mine.lm_head.weight is mine.wte.weight
        mine(x).sum().backward()
        net.zero_grad()
        net(x).sum().backward()
        torch.testing.assert_close(mine.wte.weight.grad, net.wte.weight.grad)


class Folded(nn.Module):
    """Convolutions into which exporters fold the norms that follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.downsample = nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.bn1(self.conv1(x)).relu())


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
def test_a_folded_norm_leaves_the_convolution_its_name(dynamo: bool) -> None:
    torch.manual_seed(0)
    net, x = Folded().eval(), torch.randn(2, 3, 8, 8)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    mine = onnx2nn.load(exported(net, x, dynamo))
    with torch.no_grad():
        torch.testing.assert_close(mine(x), net(x), rtol=1e-4, atol=1e-5)
    owners = {key.rpartition(".")[0] for key in mine.state_dict()}
    assert owners == {"conv1", "downsample.0"}


class Tables(nn.Module):
    """Blocks with tables that the exporter computes and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Scaled(5 + i) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Scaled(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("log", torch.randn(4, 6, generator=generator), persistent=False)
        self.register_buffer("shift", torch.randn(4, 6, generator=generator), persistent=False)
        self.proj = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x) * self.log.exp() + self.shift.sin()


def test_modules_with_computed_tables_share_a_class() -> None:
    torch.manual_seed(0)
    net, x = Tables().eval(), torch.randn(2, 4, 6)
    model = exported(net, x, True)
    source = onnx2nn.convert(model).source
    assert source.count("class ") == 2
    assert "self.scale = nn.Buffer(" in source
    with torch.no_grad():
        torch.testing.assert_close(onnx2nn.load(model)(x), net(x))


class Looked(nn.Module):
    """Looks up what it makes of real numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x.long()) * 2


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
def test_indices_of_real_numbers_may_be_negative(dynamo: bool) -> None:
    """ONNX counts those from the end; nn.Embedding refuses them."""
    torch.manual_seed(0)
    net = Looked().eval()
    mine = onnx2nn.load(exported(net, torch.tensor([[0.5, 2.5]]), dynamo))
    got = mine(torch.tensor([[-1.5, 2.5]]))
    torch.testing.assert_close(got, net(torch.tensor([[4.0, 2.0]])))
