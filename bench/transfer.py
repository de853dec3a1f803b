"""Weights of one library's network for another library's module of the same architecture.

usage: transfer.py [--match RE] [--list] [--json FILE]

Runs in the environment of zoo.py (see there), with the project on PYTHONPATH. Each pair is an author's
network with seeded random weights, exported by one of torch's exporters, and a module that computes the
same, written by others. `onnx2nn.transfer.transfer` fills it, and says itself whether ONNX Runtime agrees;
here the module is held against the author's network as well. Prints a line for each pair and exporter:
how it was found, how many batch norms had been folded, the largest difference, the seconds.
"""

import argparse
import contextlib
import copy
import io
import itertools
import json
import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import randomise
from zoo_networks import timm, tm, transformers, tv

from onnx2nn.api import Error
from onnx2nn.transfer.weights import transfer


class Logits(nn.Module):
    """A transformers model as a function of tensors: one of its results by name."""

    def __init__(self, model: nn.Module, result: str = "logits") -> None:
        super().__init__()
        self.model, self.result = model, result

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.model(*inputs), self.result)


class Masked(Logits):
    """The same for a model that takes tokens and a mask."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return getattr(self.model(input_ids=input_ids, attention_mask=attention_mask), self.result)


class Block(nn.Module):
    """A block of GPT-2 with nn.Linear, as nanoGPT has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        split = (n, length, self.heads, width // self.heads)
        q, k, v = (
            t.view(split).transpose(1, 2) for t in self.qkv(self.ln_1(x)).split(width, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(n, length, width))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class NanoGPT(nn.Module):
    """GPT-2 as nanoGPT writes it: nn.Linear, one projection, the head tied."""

    def __init__(self, vocabulary: int, positions: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, x: Tensor) -> Any:
        y = self.wte(x) + self.wpe(torch.arange(x.shape[1], device=x.device))
        for block in self.h:
            y = block(y)
        return self.lm_head(self.ln_f(y))


class PlainBert(nn.Module):
    """BERT of nn.TransformerEncoderLayer."""

    def __init__(self, vocabulary: int, positions: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.kinds = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Any:
        y = self.words(x) + self.kinds(torch.zeros_like(x))
        y = y + self.places(torch.arange(x.shape[1], device=x.device))
        return self.encoder(self.norm(y))


@dataclass
class Pair:
    """An author's network, somebody else's, and inputs."""

    author: Callable[[], nn.Module]
    other: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]


def images(size: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(1, 3, size, size),)


def tokens() -> tuple[Tensor, ...]:
    return (torch.randint(3, 90, (1, 12)),)


def tokens_and_mask() -> tuple[Tensor, ...]:
    return torch.randint(3, 90, (2, 12)), torch.ones(2, 12, dtype=torch.int64)


def of_transformers(
    model: str,
    settings: dict[str, Any],
    attention: str = "sdpa",
    result: str = "logits",
    wrap: Any = Logits,
) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        kind = getattr(transformers, model)
        config = kind.config_class(**settings)
        return wrap(kind._from_config(config, attn_implementation=attention), result)

    return make


def of_timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **settings)


def both(name: str, a: Any, b: Any, inputs: Any) -> dict[str, Pair]:
    first, second = name.split()
    return {
        f"{first} for {second}": Pair(a, b, inputs),
        f"{second} for {first}": Pair(b, a, inputs),
    }


BERT = {
    "vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 40,
}  # fmt: skip
GPT2 = {"vocab_size": 90, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
LLAMA = {
    "vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40,
}  # fmt: skip
VIT = {
    "image_size": 64, "patch_size": 16, "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 96, "num_labels": 10, "layer_norm_eps": 1e-6,
}  # fmt: skip
SWIN = {
    "image_size": 64, "patch_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [3, 6],
    "window_size": 4, "num_labels": 10,
}  # fmt: skip
CONVNEXT = {"hidden_sizes": [24, 48, 96, 192], "depths": [2, 2, 2, 2], "num_labels": 10}
T5 = {
    "vocab_size": 90, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
}  # fmt: skip

timm_vit = partial(
    tm.VisionTransformer,
    img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=3, mlp_ratio=2, num_classes=10,
)  # fmt: skip
tv_vit = partial(tv.VisionTransformer, 64, 16, 2, 3, 48, 96, num_classes=10)
timm_swin = partial(
    tm.SwinTransformer,
    img_size=64, patch_size=4, embed_dim=24, depths=(2, 2), num_heads=(3, 6), window_size=4, num_classes=10,
)  # fmt: skip
tv_swin = partial(tv.SwinTransformer, [4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=10)
timm_convnext = partial(tm.ConvNeXt, depths=(2, 2, 2, 2), dims=(24, 48, 96, 192), num_classes=10)
hf_convnext = of_transformers("ConvNextForImageClassification", CONVNEXT, "eager")


def tv_convnext() -> nn.Module:
    setting = tv.convnext.CNBlockConfig
    widths = [24, 48, 96, 192, None]
    blocks = [setting(a, b, 2) for a, b in itertools.pairwise(widths)]
    return tv.ConvNeXt(blocks, num_classes=10)


PAIRS: dict[str, Pair] = {
    **both("timm-vit torchvision-vit", timm_vit, tv_vit, images(64)),
    **both("transformers-vit torchvision-vit", of_transformers("ViTForImageClassification", VIT), tv_vit, images(64)),
    **both("transformers-vit timm-vit", of_transformers("ViTForImageClassification", VIT), timm_vit, images(64)),
    **both("timm-swin torchvision-swin", timm_swin, tv_swin, images(64)),
    **both("transformers-swin torchvision-swin", of_transformers("SwinForImageClassification", SWIN), tv_swin, images(64)),
    **both("timm-convnext torchvision-convnext", timm_convnext, tv_convnext, images(64)),
    **both("timm-convnext timm-convnext-1x1", timm_convnext, partial(timm_convnext, conv_mlp=True), images(64)),
    **both("transformers-convnext torchvision-convnext", hf_convnext, tv_convnext, images(64)),
    **both("timm-resnet50 torchvision-resnet50", of_timm("resnet50"), tv.resnet50, images(64)),
    **both("transformers-resnet50 torchvision-resnet50", of_transformers("ResNetForImageClassification", {"num_labels": 1000}, "eager"), tv.resnet50, images(64)),
    **both("timm-densenet121 torchvision-densenet121", of_timm("densenet121"), tv.densenet121, images(64)),
    **both("timm-vgg11 torchvision-vgg11", of_timm("vgg11"), tv.vgg11, images(224)),
    **both("timm-mobilenetv3 torchvision-mobilenetv3", of_timm("mobilenetv3_large_100"), tv.mobilenet_v3_large, images(64)),
    **both("timm-efficientnet torchvision-efficientnet", of_timm("efficientnet_b0"), tv.efficientnet_b0, images(64)),
    **both("timm-regnet torchvision-regnet", of_timm("regnety_004"), tv.regnet_y_400mf, images(64)),
    **both("bert-sdpa bert-eager", of_transformers("BertForSequenceClassification", BERT, wrap=Masked), of_transformers("BertForSequenceClassification", BERT, "eager", wrap=Masked), tokens_and_mask),
    **both("bert nn.TransformerEncoder", of_transformers("BertModel", BERT, result="last_hidden_state"), partial(PlainBert, 90, 40, 32, 4, 2), tokens),
    **both("gpt2 nanogpt", of_transformers("GPT2LMHeadModel", GPT2), partial(NanoGPT, 90, 40, 32, 4, 2), tokens),
    **both("llama-sdpa llama-eager", of_transformers("LlamaForCausalLM", LLAMA), of_transformers("LlamaForCausalLM", LLAMA, "eager"), tokens),
    **both("roberta bert", of_transformers("RobertaModel", BERT | {"pad_token_id": 1}, result="last_hidden_state"), partial(PlainBert, 90, 40, 32, 4, 2), tokens),
    **both("t5encoder-sdpa t5encoder-eager", of_transformers("T5EncoderModel", T5, result="last_hidden_state"), of_transformers("T5EncoderModel", T5, "eager", "last_hidden_state"), tokens),
}  # fmt: skip


def exported(net: nn.Module, args: tuple[Tensor, ...], path: Path, dynamo: bool) -> None:
    options: dict[str, Any] = {"verbose": False} if dynamo else {"opset_version": 17}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(net, args, path, dynamo=dynamo, **options)


def measure(pair: Pair, dynamo: bool) -> dict[str, Any]:
    torch.manual_seed(7)
    author = pair.author()
    randomise(author)
    author.eval()
    args = pair.inputs()
    other = pair.other().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        exported(author, args, path, dynamo)
        began = time.perf_counter()
        try:
            found = transfer(other, path)
        except Error as error:
            return {"ok": False, "error": str(error), "s": time.perf_counter() - began}
        seconds = time.perf_counter() - began
    filled = copy.deepcopy(other)
    filled.load_state_dict(found.state, strict=True)
    with torch.no_grad():
        right, ours = author(*args), filled(*args)
    off = float((right - ours).abs().max() / right.abs().max())
    return {
        "ok": bool(found.report.ok) and off < 1e-4,
        "how": found.how,
        "folded": found.folded,
        "kept": found.kept,
        "off": off,
        "s": seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--match", default="", help="pairs whose name has this in it (a regular expression)"
    )
    parser.add_argument("--list", action="store_true", help="name the pairs, and do nothing")
    parser.add_argument("--json", type=Path, help="write what was measured here, a line for each")
    options = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    wrong = total = 0
    for name, pair in PAIRS.items():
        for dynamo in (False, True):
            label = f"{name} ({'dynamo' if dynamo else 'legacy'})"
            if not re.search(options.match, label):
                continue
            if options.list:
                print(label)
                continue
            try:
                result = measure(pair, dynamo)
            except Exception as error:  # an exporter that does not take the author's network
                result = {"ok": None, "error": f"{type(error).__name__}: {str(error)[:300]}"}
            total += 1
            wrong += not result["ok"]
            print(label, json.dumps(result), flush=True)
            if options.json:
                with options.json.open("a") as out:
                    out.write(json.dumps({"pair": label, **result}) + "\n")
    if not options.list:
        print(f"{total - wrong} of {total}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
