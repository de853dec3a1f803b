"""An encoder and its decoder: texts token by token as a loop over ONNX Runtime writes them.

By `generate` of the merged decoder's page, and by `onnx2nn.transformers(encoder, decoder)`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from tests.backend.suite import ROOT
from tests.exports.environments import run
from tests.generation.changes import branch, double_weight, exchange_outputs
from tests.generation.decoders import HEADS, SIZE, VOCABULARY, WIDTH
from tests.generation.encoder_decoders import write

import onnx2nn
from onnx2nn import _native

NEW_TOKENS = 10

WRITE = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import torch, onnx2nn
ids, mask = torch.tensor(json.loads(sys.argv[2])), torch.tensor(json.loads(sys.argv[3]))
texts = []
for decoders in json.loads(sys.argv[4]):
    model = onnx2nn.transformers(
        "encoder.onnx", *decoders, decoder_start_token_id=0, pad_token_id=0
    )
    for beams in 1, 3:
        text = model.generate(
            ids, attention_mask=mask, max_new_tokens=10, do_sample=False, num_beams=beams
        )
        texts.append(text.tolist())
print(json.dumps(texts))
"""


def loop(folder: Path, ids: Any, mask: Any) -> list[list[int]]:
    encoder, first, later = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("encoder", "decoder", "decoder_with_past")
    )
    (states,) = encoder.run(None, {"input_ids": ids, "attention_mask": mask})
    text = np.zeros((len(ids), 1), np.int64)
    names = [i.name for i in later.get_inputs()][2:]
    given, session = {"encoder_hidden_states": states}, first
    for _ in range(NEW_TOKENS):
        feed = {"encoder_attention_mask": mask, "input_ids": text[:, -1:]} | given
        logits, *caches = session.run(None, feed)
        given, session = dict(zip(names, caches, strict=True)), later
        text = np.concatenate([text, logits[:, -1:].argmax(-1)], 1)
    return text.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder_decoder")
    write(path)
    return path


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of the encoder's input, the second with padding behind."""
    ids = torch.randint(3, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    return ids, mask


def as_optimum(model: onnx.ModelProto) -> None:
    """The branch with caches gives constants of no element for the encoder's keys and values."""
    graph = branch(model, "then_branch")
    for i, output in enumerate(graph.output):
        if ".encoder." in output.name:
            nothing = np.zeros((0, HEADS, 1, SIZE), np.float32)
            node = helper.make_node(
                "Constant", [], [f"nothing_{i}"], value=numpy_helper.from_array(nothing)
            )
            graph.node.insert(0, node)
            graph.output[i].name = node.output[0]
            del graph.output[i].type.tensor_type.shape.dim[:]
            for name in (0, HEADS, 1, SIZE):
                graph.output[i].type.tensor_type.shape.dim.add().dim_value = name


def exchange(model: onnx.ModelProto) -> None:
    """The encoder's keys and values change places where they are computed."""
    exchange_outputs(branch(model, "else_branch"), 3, 4)


def other_weight(model: onnx.ModelProto) -> None:
    """The first tokens go through a last layer of their own."""
    graph = branch(model, "else_branch")
    node = next(n for n in reversed(graph.node) if n.op_type == "MatMul")
    double_weight(model, graph, node)


def assert_right(path: Path) -> None:
    """On both branches, with caches of several lengths, also where nobody wants them."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    net = onnx2nn.load(path)
    random = np.random.default_rng(5)
    for use_cache, past, new, length in (
        (True, 4, 1, 5),
        (True, 1, 3, 1),
        (True, 7, 2, 3),
        (False, 0, 4, 5),
        (False, 1, 1, 2),
        (False, 5, 3, 7),
    ):
        feed: dict[str, Any] = {
            "encoder_attention_mask": np.ones((2, length), np.int64),
            "input_ids": random.integers(0, VOCABULARY, (2, new)),
            "encoder_hidden_states": random.standard_normal((2, length, WIDTH), np.float32),
            "use_cache_branch": np.array([use_cache]),
        }
        feed["encoder_attention_mask"][1, (length + 1) // 2 :] = 0
        for i in session.get_inputs():
            if i.name not in feed:
                kept = past if ".decoder." in i.name else length if use_cache else 1
                feed[i.name] = random.standard_normal((2, HEADS, kept, SIZE), np.float32)
        got = net(*(torch.from_numpy(feed[i.name]) for i in session.get_inputs()))
        for mine, wanted in zip(got, session.run(None, feed), strict=True):
            assert mine.shape == wanted.shape
            torch.testing.assert_close(mine, torch.from_numpy(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [None, as_optimum])
def test_page(folder: Path, tmp_path: Path, change: Any) -> None:
    """One function, with a choice in the attention to the encoder alone."""
    path = tmp_path / "net.onnx"
    model = onnx.load(folder / "merged.onnx")
    if change is not None:
        change(model)
    onnx.save(model, path)
    source = _native.convert(str(path)).source
    assert source.count("        if use_cache_branch:") == 1
    assert "if use_cache_branch:" in source.split("class Other(")[1].split("class ")[0]
    assert_right(path)
    ids, mask = prompts()
    session = onnxruntime.InferenceSession(
        folder / "encoder.onnx", providers=["CPUExecutionProvider"]
    )
    feed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    states = torch.from_numpy(session.run(None, feed)[0])
    start = torch.zeros(2, 1, dtype=torch.int64)
    text = onnx2nn.load(path).generate(start, states, mask, max_new_tokens=NEW_TOKENS)
    assert text.tolist() == loop(folder, ids.numpy(), mask.numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder: Path, dtype: torch.dtype) -> None:
    """Masks are made of numbers that no weight says the type of, and change that of nothing."""
    encoder, decoder = (
        onnx2nn.load(folder / f"{n}.onnx", dtype=dtype) for n in ("encoder", "merged")
    )
    ids, mask = prompts()
    states = encoder(ids, mask)
    assert states.dtype == dtype
    start = torch.zeros(2, 1, dtype=torch.int64)
    logits, caches = decoder.step(start, decoder.empty_cache(2), states, mask)
    assert logits.dtype == caches[0].dtype == dtype
    wanted = onnx2nn.load(folder / "encoder.onnx")(ids, mask)
    torch.testing.assert_close(
        states.float(), wanted, rtol=0.02, atol=0.02 * wanted.abs().max().item()
    )
    text = decoder.generate(start, states, mask, max_new_tokens=NEW_TOKENS)
    assert text.shape == (2, 1 + NEW_TOKENS)


@pytest.mark.parametrize("change", [exchange, other_weight])
def test_branches_that_differ_stay(folder: Path, tmp_path: Path, change: Any) -> None:
    path = tmp_path / "net.onnx"
    model = onnx.load(folder / "merged.onnx")
    change(model)
    onnx.save(model, path)
    assert "if use_cache_branch else 0" not in _native.convert(str(path)).source
    assert_right(path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_generate(folder: Path) -> None:
    """From a merged decoder, and from the two that it is merged of."""
    ids, mask = prompts()
    decoders = [["merged.onnx"], ["decoder.onnx", "decoder_with_past.onnx"]]
    lists = [json.dumps(x) for x in (ids.tolist(), mask.tolist(), decoders)]
    texts = run("transformers", WRITE, folder, str(ROOT / "python"), *lists)
    want = loop(folder, ids.numpy(), mask.numpy())
    assert len({*want[0]}) > 3, "a text of one token shows little"
    assert texts[0] == texts[2] == want
    assert texts[1] == texts[3], "beams"
