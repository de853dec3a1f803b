"""Bert, converted from bert.onnx by onnx2nn.

opset 21, produced by pytorch 2.13.0+cpu
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BertEmbeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(60, 32)
        self.token_type_embeddings = nn.Embedding(2, 32)
        self.bias = nn.Buffer(torch.empty(1, 12, 32), persistent=False)
        self.LayerNorm = nn.LayerNorm(32, eps=1e-12)

    def forward(self, input_ids: Tensor) -> Tensor:
        token_type_ids = torch.zeros(
            (1, 12), dtype=torch.int64, device=input_ids.device
        )
        x = token_type_ids.expand(input_ids.shape[0], -1)  # (batch, 12)
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(x)
        return self.LayerNorm(x + self.bias)


class BertSelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(32, 32)
        self.key = nn.Linear(32, 32)
        self.value = nn.Linear(32, 32)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (4, 8)).transpose(1, 2)  # (batch, 4, 12, 8)
        key = self.key(x).unflatten(-1, (4, 8)).transpose(1, 2)
        x = self.value(x).unflatten(-1, (4, 8)).transpose(1, 2)
        x = F.scaled_dot_product_attention(query, key, x, attn_mask=mask)
        return x.transpose(1, 2).flatten(2)


class BertOutput(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, 32)
        self.LayerNorm = nn.LayerNorm(32, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class BertIntermediate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class BertPooler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x[:, 0]))


class BertAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self = BertSelfAttention()
        self.output = BertOutput(32)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.self(x, mask), x)


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = BertAttention()
        self.intermediate = BertIntermediate()
        self.output = BertOutput(64)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer() for _ in range(24))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mask = torch.where(mask, 0.0, torch.finfo(x.dtype).min).to(x.dtype)
        for layer in self.layer:
            x = layer(x, mask)
        return x


class BertModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings()
        self.encoder = BertEncoder()
        self.pooler = BertPooler()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embeddings(input_ids)
        mask = attention_mask.bool()[:, None, None]
        return self.pooler(self.encoder(x, mask))


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert = BertModel()
        self.classifier = nn.Linear(32, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """
        input_ids: i64[batch, 12]
        attention_mask: i64[batch, 12]
        ->
        linear_145: f32[batch, 2]
        """
        return self.classifier(self.bert(input_ids, attention_mask))


def load(
    weights: str | Path = Path(__file__).parent / "bert.safetensors",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Bert:
    """The model in eval mode, with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Bert()
    state = load_file(weights)
    for key in state.keys() - model.state_dict().keys():
        owner, _, name = key.rpartition(".")
        setattr(model.get_submodule(owner), name, state.pop(key))
    model.load_state_dict(state, strict=True, assign=True)
    return model.to(device, dtype).eval()
