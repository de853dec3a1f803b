"""Forward of what onnx2nn makes of a network against the network itself: nine networks, at real and at small sizes.

usage: eager.py [NETWORK ...] [--size real|small] [--exporter dynamo|legacy] [--rounds N] [--json]

Runs in the zoo's virtual environment, with the project's `python` folder (and its native module) on PYTHONPATH:
    PYTHONPATH=python zoovenv/bin/python bench/eager.py

Each network is exported by torch with seeded random weights, converted and loaded; then both are called in turns, on one
thread, in rounds that alternate which is first. A row has the microseconds of a call of each (of the process, so that other
work on the machine counts little) and the median of the rounds' ratios. Answers that differ are told instead of a ratio.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from torch import nn
from zoo import answers, export, randomise
from zoo_modules import Tagger
from zoo_networks import NETWORKS, ROWS, Network, images, tv

import onnx2nn

_ROUND_S = 0.02  # of one module, at least
_TOKENS = 128
_WORDS = 30522
_OPSET = {"dynamo": 18, "legacy": 17}


def _text(words: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(ROWS, _TOKENS, dtype=torch.int64)
    mask[-1, -30:] = 0
    return {"input_ids": torch.randint(3, words, (ROWS, _TOKENS)), "attention_mask": mask}


def _bert() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig())


def _gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))


def _llama() -> nn.Module:
    """A Llama of 135 million weights."""
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )


def _tagger() -> nn.Module:
    model = Tagger(nn.LSTM)
    model.embedding = nn.Embedding(_WORDS, 300)
    model.rnn = nn.LSTM(300, 256, num_layers=2, bidirectional=True, batch_first=True)
    model.classifier = nn.Linear(512, 9)
    return model


REAL: dict[str, Network] = {
    "resnet50": Network(tv.resnet50, partial(images, 224)),
    "mobilenet-v2": Network(tv.mobilenet_v2, partial(images, 224)),
    "convnext": Network(tv.convnext_tiny, partial(images, 224)),
    "vit-tv": Network(tv.vit_b_16, partial(images, 224)),
    "swin-tv": Network(tv.swin_t, partial(images, 224)),
    "bert": Network(_bert, partial(_text, _WORDS)),
    "gpt2": Network(_gpt2, partial(_text, 50257)),
    "llama": Network(_llama, partial(_text, 49152)),
    "lstm-tagger": Network(_tagger, lambda: {"tokens": torch.randint(3, _WORDS, (ROWS, _TOKENS))}),
}
# The zoo has small ones of the same, ResNet's by another name.
SMALL = {name: NETWORKS["resnext" if name == "resnet50" else name] for name in REAL}


def in_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int
) -> tuple[float, float, float]:
    """(microseconds of a call of ours, of theirs, the median ratio) of the process's own time."""

    def run(call: Callable[[], Any], times: int) -> float:
        start = time.process_time()
        for _ in range(times):
            call()
        return (time.process_time() - start) / times

    run(ours, 2)
    once = max(run(theirs, 3), 1e-7)
    times = max(1, round(_ROUND_S / once))
    a: list[float] = []
    b: list[float] = []
    for i in range(rounds):
        for seconds, call in ((a, ours), (b, theirs))[:: 1 if i % 2 else -1]:
            seconds.append(run(call, times))
    ratio = statistics.median(x / y for x, y in zip(a, b))
    return statistics.median(a) * 1e6, statistics.median(b) * 1e6, ratio


def measure(name: str, size: str, network: Network, exporter: str, rounds: int) -> dict[str, Any]:
    """Exports, converts and loads the network, compares the answers, and times both."""
    torch.manual_seed(0)
    original = network.make().eval()
    randomise(original)
    inputs = network.inputs()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(original, inputs, path, exporter, _OPSET[exporter])
        original.__dict__.pop("forward", None)  # which the older exporter's form has covered
        converted = onnx2nn.load(path)
        with torch.no_grad():
            values = [inputs[value.name] for value in onnx.load(path).graph.input]
            same = all(
                torch.allclose(y, w, rtol=1e-3, atol=1e-3 * float(w.abs().max()))
                for y, w in zip(answers(converted(*values)), answers(original(**inputs)))
            )
            a, b, ratio = in_turns(lambda: converted(*values), lambda: original(**inputs), rounds)
    return {
        "network": name,
        "size": size,
        "ours_us": a,
        "theirs_us": b,
        "ratio": ratio,
        "same": same,
    }


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="all nine where none is named")
    parser.add_argument("--size", choices=("real", "small"), help="both where it is not given")
    parser.add_argument("--exporter", choices=tuple(_OPSET), default="dynamo")
    parser.add_argument("--rounds", type=int, default=31, help="of each module (default 31)")
    parser.add_argument("--json", action="store_true", help="print one JSON array and nothing else")
    a = parser.parse_args()
    if unknown := set(a.names) - set(REAL):
        parser.error("no network is called " + ", ".join(sorted(unknown)))
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    rows = []
    for size, networks in (("small", SMALL), ("real", REAL)):
        for name, network in networks.items():
            if (a.names and name not in a.names) or a.size not in (None, size):
                continue
            row = measure(name, size, network, a.exporter, a.rounds)
            rows.append(row)
            if not a.json:
                ratio = f"{row['ratio']:.3f}" if row["same"] else "differs"
                print(
                    f"{name:14}{size:6}{row['ours_us']:12.0f}{row['theirs_us']:12.0f}  {ratio}",
                    flush=True,
                )
    ratios = [r["ratio"] for r in rows]
    if a.json:
        print(json.dumps(rows, indent=1))
    else:
        print(f"median {statistics.median(ratios):.3f}, largest {max(ratios):.3f}")
    return 0 if all(r["same"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
