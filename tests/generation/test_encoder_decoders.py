"""`onnx2nn.transformers(encoder, decoder)`: texts token by token as a loop over ONNX Runtime writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tests.backend.suite import ROOT
from tests.exports.environments import run
from tests.generation.decoders import VOCABULARY
from tests.generation.encoder_decoders import write

NEW_TOKENS = 10

WRITE = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import torch, onnx2nn
ids, mask = torch.tensor(json.loads(sys.argv[2])), torch.tensor(json.loads(sys.argv[3]))
texts = []
for decoders in json.loads(sys.argv[4]):
    model = onnx2nn.transformers(
        "encoder.onnx", *decoders, decoder_start_token_id=0, pad_token_id=0, vocab_size=53
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_generate(tmp_path: Path) -> None:
    """From a merged decoder, and from the two that it is merged of."""
    write(tmp_path)
    torch.manual_seed(3)
    ids, mask = torch.randint(3, VOCABULARY, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    decoders = [["merged.onnx"], ["decoder.onnx", "decoder_with_past.onnx"]]
    lists = [json.dumps(x) for x in (ids.tolist(), mask.tolist(), decoders)]
    texts = run("transformers", WRITE, tmp_path, str(ROOT / "python"), *lists)
    want = loop(tmp_path, ids.numpy(), mask.numpy())
    assert len({*want[0]}) > 3, "a text of one token shows little"
    assert texts[0] == texts[2] == want
    assert texts[1] == texts[3], "beams"
