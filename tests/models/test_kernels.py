"""Kernels that ONNX Runtime fuses from an exported block, before and after simplification: none may be lost."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from onnx2nn import _native


class Attention(nn.Module):
    """As the first implementations of BERT wrote it."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.output = nn.Linear(size, size)
        self.heads, self.head_size = heads, size // heads

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.heads, self.head_size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / self.head_size**0.5
        if mask is not None:
            scores = scores + mask
        context = torch.matmul(torch.softmax(scores, dim=-1), v).permute(0, 2, 1, 3).contiguous()
        return self.output(context.view(context.size(0), context.size(1), -1))


class Bert(nn.Module):
    """Embeddings, and a block whose norms come after."""

    def __init__(self, size: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.words, self.places, self.kinds = (
            nn.Embedding(100, size),
            nn.Embedding(32, size),
            nn.Embedding(2, size),
        )
        self.norm, self.norm1, self.norm2 = (nn.LayerNorm(size) for _ in range(3))
        self.attention = Attention(size, heads)
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, ids: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        places = torch.arange(ids.size(1)).unsqueeze(0)
        x = self.norm(self.words(ids) + self.kinds(kinds) + self.places(places))
        away = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        x = self.norm1(self.attention(x, away) + x)
        return self.norm2(self.down(nn.functional.gelu(self.up(x))) + x)


class Vit(nn.Module):
    """Patches, and a block whose norms come before, with torch's own attention."""

    def __init__(self, size: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, size, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, size))
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.output = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.heads = heads

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        n, s, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, s, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.output(y.transpose(1, 2).reshape(n, s, c))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Convs(nn.Module):
    """Convolutions, each with another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        f = nn.functional
        acts = [torch.relu, f.relu6, torch.sigmoid, f.leaky_relu, f.hardswish, f.silu]
        for conv, norm, act in zip(self.convs, self.norms, acts, strict=True):
            x = act(norm(conv(x)))
        return x.mean((2, 3))


IDS = torch.ones(2, 8, dtype=torch.int64)
NETS: dict[str, tuple[type[nn.Module], tuple[Tensor, ...], list[str]]] = {
    "bert": (Bert, (IDS, torch.zeros_like(IDS), IDS), ["ids", "kinds", "mask"]),
    "vit": (Vit, (torch.randn(2, 3, 32, 32),), ["image"]),
    "convs": (Convs, (torch.randn(2, 3, 16, 16),), ["x"]),
}


def export(name: str, opset: int, dynamo: bool) -> bytes:
    net, args, names = NETS[name]
    torch.manual_seed(0)
    model = net().eval()
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm):  # as if trained
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    if dynamo:
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.onnx.export(
            model,
            args,
            input_names=names,
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in args),
            verbose=False,
        )
        assert program is not None
        return program.model_proto.SerializeToString()
    file = io.BytesIO()
    torch.onnx.export(
        model,
        args,
        file,
        input_names=names,
        opset_version=opset,
        dynamo=False,
        dynamic_axes={n: {0: "batch"} for n in names},
    )
    return file.getvalue()


def kernels(
    model: bytes, folder: Path, feed: dict[str, np.ndarray]
) -> tuple[Counter[str], np.ndarray]:
    """Those that the runtime has after its own optimisations, and what they compute."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(folder / "optimized.onnx", load_external_data=False)
    return Counter(n.op_type for n in optimized.graph.node), session.run(None, feed)[0]


# What the runtime makes of several nodes.
FUSED = [
    "Attention",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "BiasGelu",
    "FastGelu",
    "QuickGelu",
    "Gelu",
    "LayerNormalization",
    "FusedConv",
    "FusedMatMul",
    "FusedGemm",
]


@pytest.mark.parametrize(
    ("name", "opset", "dynamo"),
    [
        ("bert", 13, False),
        ("bert", 17, False),
        pytest.param("bert", 20, True, marks=pytest.mark.slow),
        ("vit", 17, False),
        pytest.param("vit", 20, True, marks=pytest.mark.slow),
        ("convs", 13, False),
    ],
)
def test_no_kernel_is_lost(name: str, opset: int, dynamo: bool, tmp_path: Path) -> None:
    model = export(name, opset, dynamo)
    _, args, names = NETS[name]
    feed = {n: a.numpy() for n, a in zip(names, args, strict=True)}
    before, want = kernels(model, tmp_path, feed)
    result = _native.simplify(model, None, {})
    assert result["ok"]
    after, got = kernels(result["model"], tmp_path, feed)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    lost = {op: (before[op], after[op]) for op in FUSED if after[op] < before[op]}
    assert not lost, (before, after)
    assert after.total() <= before.total(), (before, after)
