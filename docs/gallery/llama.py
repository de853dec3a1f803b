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

    def forward(self, x: Tensor, y: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (4, 8))
        q = q.transpose(1, 2)
        k = self.k_proj(x).unflatten(-1, (2, 8))
        k = k.transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (2, 8))
        v = v.transpose(1, 2)
        x = q * y
        slice_2, slice_3 = q.chunk(2, dim=3)
        x2 = -slice_3
        x = x + torch.cat([x2, slice_2], dim=3) * z
        y = k * y
        slice_4, slice_5 = k.chunk(2, dim=3)
        x2 = -slice_5
        y = y + torch.cat([x2, slice_4], dim=3) * z
        x = F.scaled_dot_product_attention(x, y, v, attn_mask=mask, enable_gqa=True)
        x = x.transpose(1, 2).flatten(2)
        return self.o_proj(x)


class LlamaMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(32, 64, bias=False)
        self.up_proj = nn.Linear(32, 64, bias=False)
        self.down_proj = nn.Linear(64, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.gate_proj(x))
        x = y * self.up_proj(x)
        return self.down_proj(x)


class LlamaDecoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(32, eps=1e-6)
        self.self_attn = LlamaAttention()
        self.post_attention_layernorm = nn.RMSNorm(32, eps=1e-6)
        self.mlp = LlamaMLP()

    def forward(self, x: Tensor, y: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        x2 = self.input_layernorm(x)
        y = self.self_attn(x2, y, z, mask)
        x = x + y
        y = self.post_attention_layernorm(x)
        return x + self.mlp(y)


class LlamaModel(nn.Module):
    bitwise_and: Tensor
    unsqueeze_14: Tensor
    unsqueeze_15: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(60, 32)
        self.register_buffer(
            "bitwise_and", torch.empty(1, 1, 12, 12, dtype=torch.bool), persistent=False
        )
        self.register_buffer("unsqueeze_14", torch.empty(1, 1, 12, 8), persistent=False)
        self.register_buffer("unsqueeze_15", torch.empty(1, 1, 12, 8), persistent=False)
        self.layers = nn.ModuleList(LlamaDecoderLayer() for _ in range(24))
        self.norm = nn.RMSNorm(32, eps=1e-6)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        embed_tokens = self.embed_tokens(x)
        mask = attention_mask.to(torch.bool)
        mask = mask.unsqueeze(1).unsqueeze(2)
        mask = self.bitwise_and & mask
        x = self.unsqueeze_14
        y = self.unsqueeze_15
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        for layer in self.layers:
            embed_tokens = layer(embed_tokens, x, y, mask)
        return self.norm(embed_tokens)


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
) -> Llama:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Llama()
    state = load_file(weights)
    constants = {k: state.pop(k) for k in state.keys() - model.state_dict().keys()}
    model.load_state_dict(state, strict=True, assign=True)
    for key, value in constants.items():
        owner, _, name = key.rpartition(".")
        setattr(model.get_submodule(owner), name, value)
    return model.eval()
