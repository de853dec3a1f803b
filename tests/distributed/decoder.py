"""A decoder as language models are, small: rotary positions, grouped heads, gated MLPs."""

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, GROUPS, WORDS, LENGTH = 64, 8, 4, 60, 12


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        head = WIDTH // HEADS
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.k_proj = nn.Linear(WIDTH, GROUPS * head, bias=False)
        self.v_proj = nn.Linear(WIDTH, GROUPS * head, bias=False)
        self.o_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        def turned(t: Tensor) -> Tensor:
            a, b = t.chunk(2, dim=-1)
            return t * cos + torch.cat([-b, a], dim=-1) * sin

        batch, length, _ = x.shape
        q = turned(self.q_proj(x).view(batch, length, HEADS, -1).transpose(1, 2))
        k = turned(self.k_proj(x).view(batch, length, GROUPS, -1).transpose(1, 2))
        v = self.v_proj(x).view(batch, length, GROUPS, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(batch, length, WIDTH))
        return out


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, 128, bias=False)
        self.up_proj = nn.Linear(WIDTH, 128, bias=False)
        self.down_proj = nn.Linear(128, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(WIDTH, eps=1e-6)
        self.attention = Attention()
        self.norm2 = nn.RMSNorm(WIDTH, eps=1e-6)
        self.mlp = MLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        # What no expression gives: a table that only the file has.
        angles = torch.rand(LENGTH, WIDTH // HEADS, generator=torch.Generator().manual_seed(1))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        out: Tensor = self.head(self.norm(x))
        return out


def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    program = torch.onnx.export(
        Decoder().eval(),
        (torch.zeros(2, LENGTH, dtype=torch.int64),),
        dynamo=True,
        verbose=False,
        input_names=["ids"],
        output_names=["logits"],
        dynamic_shapes={"ids": {0: torch.export.Dim("batch")}},
    )
    assert program is not None
    return program.model_proto
