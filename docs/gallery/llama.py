"""Llama, converted from llama.onnx by onnx2nn.

opset 18, produced by pytorch 2.13.0+cpu
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LlamaAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(32, 32, bias=False)
        self.k_proj = nn.Linear(32, 16, bias=False)
        self.v_proj = nn.Linear(32, 16, bias=False)
        self.o_proj = nn.Linear(32, 32, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (4, 8)).transpose(1, 2)  # (batch, 4, 12, 8)
        k = self.k_proj(x).unflatten(-1, (2, 8)).transpose(1, 2)  # (batch, 2, 12, 8)
        v = self.v_proj(x).unflatten(-1, (2, 8)).transpose(1, 2)
        q1, q2 = q.chunk(2, dim=3)  # each (batch, 4, 12, 4)
        q = q * cos + torch.cat([-q2, q1], dim=3) * sin
        k1, k2 = k.chunk(2, dim=3)  # each (batch, 2, 12, 4)
        k = k * cos + torch.cat([-k2, k1], dim=3) * sin
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.o_proj(x.transpose(1, 2).flatten(2))


class LlamaMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(32, 64, bias=False)
        self.up_proj = nn.Linear(32, 64, bias=False)
        self.down_proj = nn.Linear(64, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaDecoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(32, eps=1e-6)
        self.self_attn = LlamaAttention()
        self.post_attention_layernorm = nn.RMSNorm(32, eps=1e-6)
        self.mlp = LlamaMLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        y = self.self_attn(self.input_layernorm(x), cos, sin, mask)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(60, 32)
        self.cos = nn.Buffer(torch.empty(1, 1, 12, 8), persistent=False)
        self.sin = nn.Buffer(torch.empty(1, 1, 12, 8), persistent=False)
        self.layers = nn.ModuleList(LlamaDecoderLayer() for _ in range(24))
        self.norm = nn.RMSNorm(32, eps=1e-6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed_tokens(input_ids)
        mask = attention_mask.bool()[:, None, None]
        causal_mask = torch.tril(
            torch.ones((12, 12), dtype=torch.bool, device=input_ids.device)
        )
        mask = causal_mask & mask
        mask = torch.where(mask, 0.0, torch.finfo(x.dtype).min).to(x.dtype)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, mask)
        return self.norm(x)


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = LlamaModel()
        self.lm_head = nn.Linear(32, 60, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """
        input_ids: i64[batch, 12]
        attention_mask: i64[batch, 12]
        ->
        linear_168: f32[batch, 12, 60]
        """
        return self.lm_head(self.model(input_ids, attention_mask))


def load(
    weights: str | Path = Path(__file__).parent / "llama.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Llama:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Llama()
    state = load_file(weights)
    for key in state.keys() - model.state_dict().keys():
        owner, _, name = key.rpartition(".")
        setattr(model.get_submodule(owner), name, state.pop(key))
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
