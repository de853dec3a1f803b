"""`generate` of a page gives, token for token, what a loop over ONNX Runtime gives."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.generation.decoders import LAYERS, LAYOUTS, SIZE, VOCABULARY
from torch import Tensor

import onnx2nn
from onnx2nn import _native

NEW_TOKENS = 12


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder in each layout."""
    folder = tmp_path_factory.mktemp("decoders")
    for name, write in LAYOUTS.items():
        write(folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in LAYOUTS}


@pytest.fixture(params=[*LAYOUTS])
def model(request: Any, models: dict[str, Path]) -> Path:
    return models[request.param]


# One is enough of what the layout has no part in.
SOME = pytest.mark.parametrize("model", ["optimum", "bare", "genai-4-bit"], indirect=True)


def takes(model: Path, name: str) -> bool:
    return any(i.name == name for i in onnx.load(model).graph.input)


def chosen(logits: Tensor, options: dict[str, Any]) -> Tensor:
    """The next token of each row: the plain way to say what temperature, top_k and top_p mean."""
    temperature = options.get("temperature", 0.0)
    if not temperature:
        return logits.argmax(-1)
    p = (logits / temperature).softmax(-1)
    for row in p:
        ranked = row.argsort(descending=True)[: options.get("top_k", len(row))]
        of_these = row[ranked] / row[ranked].sum()
        before = of_these.cumsum(0) - of_these
        kept = ranked[before < options.get("top_p", 1.0)]
        row[[i for i in range(len(row)) if i not in kept]] = 0.0
    p = p / p.sum(-1, keepdim=True)
    return torch.multinomial(p, 1, generator=options.get("generator"))[:, 0]


def loop(model: Path, ids: Tensor, mask: Tensor, **options: Any) -> Tensor:
    """ONNX Runtime, asked for one token after the other."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    kinds = {
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(float)": np.float32,
        "tensor(bool)": np.bool_,
    }
    inputs = {i.name: (kinds[i.type], i.shape) for i in session.get_inputs()}
    sizes = {"batch": len(ids), "batch_size": len(ids), "kv_cache_dim": SIZE}
    past = {
        name: np.zeros([sizes.get(d, 0) if isinstance(d, str) else d for d in shape], kind)
        for name, (kind, shape) in inputs.items()
        if name.startswith("past")
    }
    end, pad = options.get("eos_token_id"), options.get("pad_token_id", 0)
    ended = np.zeros(len(ids), bool)
    tokens = ids
    for _ in range(options.get("max_new_tokens", NEW_TOKENS)):
        places = np.maximum(np.cumsum(mask.numpy(), 1) - 1, 0)[:, -tokens.shape[1] :]
        feed = {"input_ids": tokens.numpy(), "attention_mask": mask.numpy(), "position_ids": places}
        feed["use_cache_branch"] = np.array([tokens.shape != ids.shape])
        feed = {n: feed[n].astype(kind) for n, (kind, _) in inputs.items() if n in feed}
        logits, *present = session.run(None, feed | past)
        past = dict(zip(past, present, strict=True))
        best = chosen(torch.from_numpy(logits[:, -1]), options).numpy()
        best[ended] = pad
        tokens = torch.from_numpy(best)[:, None]
        ids, mask = torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1)
        if end is not None:
            ended |= np.isin(best, end)
        if ended.all():
            break
    return ids


def prompts(model: Path) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Three prompts, the second padded where the model can be told; and the mask to give."""
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (3, 6))
    mask = torch.ones_like(ids)
    if not takes(model, "attention_mask"):
        return ids, mask, []
    # GroupQueryAttention knows no padding in front: it counts a row's tokens from its first.
    if not model.stem.startswith("genai"):
        mask[1, :2] = 0
    return ids, mask, [mask]


def test_the_likeliest_tokens(model: Path) -> None:
    ids, mask, given = prompts(model)
    got = onnx2nn.load(model).generate(ids, *given, max_new_tokens=NEW_TOKENS)
    assert torch.equal(got, loop(model, ids, mask))
    assert len({*got[0].tolist()}) > 3, "a text of one token shows little"


@SOME
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 2.0, "top_p": 0.6},
        {"temperature": 1.3, "top_k": 9, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 10_000},
    ],
    ids=str,
)
def test_drawn_tokens(model: Path, options: dict[str, Any]) -> None:
    ids, mask, given = prompts(model)
    texts = [
        run(generator=torch.Generator().manual_seed(5))
        for run in (
            lambda **more: onnx2nn.load(model).generate(
                ids, *given, max_new_tokens=NEW_TOKENS, **options, **more
            ),
            lambda **more: loop(model, ids, mask, **options, **more),
        )
    ]
    assert torch.equal(*texts)


@SOME
def test_rows_end_by_themselves(model: Path) -> None:
    """A row goes on with padding once it has ended, and the text ends with its last row."""
    ids, mask, given = prompts(model)
    net = onnx2nn.load(model)
    text = net.generate(ids, *given, max_new_tokens=NEW_TOKENS)
    first, second = int(text[0, 8]), int(text[1, 9])
    for end in (first, [first, second], text[:, 7].tolist()):
        options = {"eos_token_id": end, "pad_token_id": 1}
        got = net.generate(ids, *given, max_new_tokens=NEW_TOKENS, **options)
        assert torch.equal(got, loop(model, ids, mask, **options))
    assert got.shape[1] <= 8
    assert torch.equal(net.generate(ids, *given, max_new_tokens=0), ids)


@pytest.mark.slow
def test_pages_are_written_as_people_write(models: dict[str, Path], tmp_path: Path) -> None:
    """Formatted and typed."""
    for name, model in models.items():
        source = _native.convert(str(model)).source
        (tmp_path / f"{name.replace('-', '_')}.py").write_text(source)
        assert source.count("    def generate(") == 1
    for command in (
        ["ruff", "format", "--diff", "--isolated", "--no-cache"],
        ["ruff", "check", "--isolated", "--no-cache"],
        ["mypy", "--cache-dir=cache"],
        ["basedpyright", "--level=error", f"--pythonpath={sys.executable}"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command, "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_a_decoder_of_genai_is_a_page(models: dict[str, Path]) -> None:
    """Layers that loop, the author's names, and no helpers but for what torch has not."""
    conversion = _native.convert(str(models["genai"]))
    source = conversion.source
    assert re.findall(r"^def (\w+)", source, re.MULTILINE) == [
        "append_to_cache",
        "rotate_halves",
        "load",
    ]
    assert "for layer, past_key, past_value in zip(" in source
    assert "*present[::2], *present[1::2]" in source
    keys = {w["key"] for w in conversion.weights if w["persistent"]}
    layer = ["input_layernorm", "attn.qkv_proj", "attn.o_proj", "post_attention_layernorm"]
    layer += ["mlp.up_proj", "mlp.down_proj"]
    wanted = {f"model.layers.{i}.{name}.weight" for i in range(LAYERS) for name in layer}
    assert keys == wanted | {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize("name", ["optimum", "genai", "genai-4-bit"])
def test_half_precision(models: dict[str, Path], name: str) -> None:
    """Logits and caches are of the weights' type."""
    net = onnx2nn.load(models[name], dtype=torch.bfloat16)
    ids, _, given = prompts(models[name])
    past = net.empty_cache(len(ids))
    assert past[0].dtype == torch.bfloat16
    logits, past = net.step(ids, past, *given)
    assert logits.dtype == past[0].dtype == torch.bfloat16
    assert net.generate(ids, *given, max_new_tokens=2).shape == (3, ids.shape[1] + 2)


def renamed(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """A copy in which a value has another name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for named in (*copy.graph.input, *copy.graph.output, *copy.graph.initializer):
        named.name = new if named.name == old else named.name
    for node in copy.graph.node:
        for names in node.input, node.output:
            names[:] = [new if name == old else name for name in names]
    return copy


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("logits", "scores"),
        ("input_ids", "tokens"),
        ("attention_mask", "past"),
        ("present.1.value", "present.1.key2"),
        ("present.1.value", "PRESENT.0.key"),
        ("past_key_values.1.value", "past_key_values.1.key\n    def generate(self): pass"),
        # A weight that is called as a method would be keeps its name.
        ("model.embed_tokens.weight", "step.weight"),
    ],
)
def test_what_is_not_understood_gets_no_methods(
    models: dict[str, Path], tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(renamed(onnx.load(models["genai"]), old, new), path)
    assert not hasattr(onnx2nn.load(path), "empty_cache")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["genai", "genai-4-bit", "genai-experts", "merged"], indirect=True
)
def test_verified(model: Path) -> None:
    """The sizes that are drawn fit each other, and ONNX Runtime rounds as the model asks."""
    assert onnx2nn.verify(model).ok
