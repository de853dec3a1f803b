"""`onnx2nn.transformers`: Hugging Face's own `generate` and `pipeline`, in an environment of their own."""

import json
from pathlib import Path

import pytest
import torch
from tests.backend.suite import ROOT
from tests.exports.environments import run
from tests.generation.decoders import LAYOUTS, VOCABULARY

import onnx2nn

WRITE = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import torch, onnx2nn
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, pipeline
model = onnx2nn.transformers(sys.argv[2], pad_token_id=0)
ids, mask = torch.tensor(json.loads(sys.argv[3])), torch.tensor(json.loads(sys.argv[4]))
texts = []
for options in json.loads(sys.argv[5]):
    torch.manual_seed(7)
    text = model.generate(ids, attention_mask=mask, max_new_tokens=10, **options)
    texts.append(text.tolist())
words = Tokenizer(models.WordLevel({str(i): i for i in range(model.config.vocab_size)}, "0"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0")
write = pipeline("text-generation", model=model, tokenizer=tokenizer)
(answer,) = write("5 6 7", max_new_tokens=5, do_sample=False, return_full_text=True)
print(json.dumps([texts, answer["generated_text"]]))
"""
GREEDY = {"do_sample": False}
DRAWN = {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9}
BEAMS = {"do_sample": False, "num_beams": 3}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["optimum", "joined", "bare", "merged", "genai-4-bit"])
def test_generate(tmp_path: Path, name: str) -> None:
    """Its texts are those of the page's own `generate`, drawn ones too; beams find likelier ones."""
    path = tmp_path / "net.onnx"
    LAYOUTS[name](path)
    torch.manual_seed(2)
    ids = torch.randint(3, VOCABULARY, (2, 5))
    mask = torch.ones_like(ids)
    if name in ("optimum", "joined", "merged"):
        mask[1, :2] = 0
    lists = [json.dumps(x) for x in (ids.tolist(), mask.tolist(), [GREEDY, DRAWN, BEAMS])]
    texts, answer = run("transformers", WRITE, tmp_path, str(ROOT / "python"), str(path), *lists)
    net = onnx2nn.load(path)
    given = [] if name == "bare" else [mask]
    assert texts[0] == net.generate(ids, *given, max_new_tokens=10).tolist()
    torch.manual_seed(7)
    drawn = {k: v for k, v in DRAWN.items() if k != "do_sample"}
    assert texts[1] == net.generate(ids, *given, max_new_tokens=10, **drawn).tolist()
    assert log_likelihood(net, torch.tensor(texts[2]), mask) >= log_likelihood(
        net, torch.tensor(texts[0]), mask
    )
    (continued,) = net.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5).tolist()
    assert answer.replace(" ", "") == "".join(str(token) for token in continued)


def log_likelihood(net: torch.nn.Module, text: torch.Tensor, mask: torch.Tensor) -> float:
    """Of the first row, as the model sees the whole of it at once."""
    text = text[:1]
    takes_mask = "attention_mask" in net.step.__code__.co_varnames
    with torch.no_grad():
        given = [torch.ones_like(text)] if takes_mask else []
        logits, _ = net.step(text, net.empty_cache(1), *given)
    new = text.shape[1] - mask.shape[1]
    scores = logits.log_softmax(-1)[0, :-1].gather(1, text[0, 1:, None])
    return float(scores[-new:].sum())


def test_without_transformers() -> None:
    """What is missing, or wrong with the model, is said."""
    with pytest.raises(onnx2nn.Error, match="pip install transformers"):
        onnx2nn.transformers(ROOT / "examples" / "digits.onnx")
