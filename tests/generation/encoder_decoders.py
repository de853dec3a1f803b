"""A small encoder and its decoder, which keeps keys and values of its own and of the encoder's states."""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from tests.generation.decoders import HEADS, LAYERS, SIZE, VOCABULARY, WIDTH, Attention, merge
from torch import Tensor, nn


def bias_of(mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), 0.0, -1e9)[:, None, None]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.attention = nn.Embedding(VOCABULARY, WIDTH), Attention()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.wte(input_ids)
        return x + self.attention(x, None, None, bias_of(attention_mask))[0]


class Cross(nn.Module):
    """Attention to the encoder's states, or to the keys and values that were made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, seen: tuple[Tensor, ...], bias: Tensor) -> tuple[Tensor, ...]:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (HEADS, SIZE)).transpose(1, 2)

        k, v = seen if len(seen) == 2 else (split(self.k(seen[0])), split(self.v(seen[0])))
        y = nn.functional.scaled_dot_product_attention(split(self.q(x)), k, v, attn_mask=bias)
        return self.o(y.transpose(1, 2).flatten(2)), k, v


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(32, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.own = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.others = nn.ModuleList(Cross() for _ in range(LAYERS))
        self.lm_head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, mask: Tensor, input_ids: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """given: the encoder's states, or of each layer its own keys and values and the encoder's."""
        past = given[0].shape[2] if len(given) > 1 else 0
        new = torch.arange(input_ids.shape[1]) + past
        x = self.wte(input_ids) + self.wpe(new)
        bias = torch.where(torch.arange(past + input_ids.shape[1]) <= new[:, None], 0.0, -1e9)
        present: list[Tensor] = []
        for i, (own, others) in enumerate(zip(self.own, self.others, strict=True)):
            caches = given[4 * i : 4 * i + 4] if len(given) > 1 else (None, None, given[0])
            y, *both = own(self.norm(x), *caches[:2], bias)
            x = x + y
            y, *cross = others(self.norm(x), caches[2:], bias_of(mask))
            x, present = x + y, [*present, *both, *cross]
        return self.lm_head(x), *present


def write(folder: Path) -> None:
    """encoder, decoder, decoder_with_past and merged.onnx."""
    torch.manual_seed(0)
    encoder, decoder = Encoder().eval(), Decoder().eval()
    with torch.no_grad():
        for p in [*encoder.parameters(), *decoder.parameters()]:
            p.mul_(1.7)
    names = [
        f"{{}}.{i}.{side}.{kind}"
        for i in range(LAYERS)
        for side in ("decoder", "encoder")
        for kind in ("key", "value")
    ]
    past, present = ([n.format(w) for n in names] for w in ("past_key_values", "present"))
    ids, mask = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)
    states = torch.randn(2, 5, WIDTH)
    caches = [torch.randn(2, HEADS, 4 if ".decoder" in n else 5, SIZE) for n in names]
    axes: dict[str, dict[int, str]] = {
        "attention_mask": {0: "batch", 1: "length"},
        "encoder_attention_mask": {0: "batch", 1: "length"},
        "input_ids": {0: "batch", 1: "new"},
        "encoder_hidden_states": {0: "batch", 1: "length"},
        "last_hidden_state": {0: "batch", 1: "length"},
        "logits": {0: "batch", 1: "new"},
    }
    for n in [*past, *present]:
        axes[n] = {0: "batch", 2: ("past" if n in past else "all") if ".decoder" in n else "length"}
    asked = ["encoder_attention_mask", "input_ids"]
    files: dict[str, tuple[nn.Module, tuple[Any, ...], list[str], list[str]]] = {
        "encoder": (
            encoder,
            (torch.ones_like(mask), mask),
            ["input_ids", "attention_mask"],
            ["last_hidden_state"],
        ),
        "decoder": (
            decoder,
            (mask, ids, states),
            [*asked, "encoder_hidden_states"],
            ["logits", *present],
        ),
        "decoder_with_past": (
            decoder,
            (mask, ids, *caches),
            [*asked, *past],
            ["logits", *present],
        ),
    }
    for name, (net, args, inputs, outputs) in files.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                args,
                folder / f"{name}.onnx",
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={n: axes[n] for n in [*inputs, *outputs]},
                opset_version=17,
                dynamo=False,
            )
    first, later = (onnx.load(folder / f"{n}.onnx") for n in ("decoder", "decoder_with_past"))
    merge(first, later, folder / "merged.onnx")
