"""Makes a tiny decoder, converts it, and writes on with it: usage: generate.py [FOLDER]

It is trained for some seconds to count, exported with its keys and values as torch's exporter does it, and
converted; the page then continues a text, token by token.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import onnx2nn

TOKENS, WIDTH = 10, 32


class Counter(nn.Module):
    """One layer of attention over digits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.lm_head = nn.Linear(WIDTH, TOKENS)

    def forward(self, input_ids: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        x = self.embed(input_ids)
        q, k, v = (y.unsqueeze(1) for y in self.qkv(x).chunk(3, -1))
        key, value = torch.cat([key, k], 2), torch.cat([value, v], 2)
        scores = q @ key.mT / WIDTH**0.5
        new, past = input_ids.shape[1], key.shape[2] - input_ids.shape[1]
        seen = torch.arange(key.shape[2]) <= (torch.arange(new) + past).unsqueeze(1)
        weights = scores.masked_fill(~seen, -1e9).softmax(-1)
        return self.lm_head(x + (weights @ value).squeeze(1)), key, value


def trained() -> Counter:
    torch.manual_seed(0)
    net = Counter()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    none = torch.zeros(16, 1, 0, WIDTH)
    for _ in range(150):
        text = (torch.randint(TOKENS, (16, 1)) + torch.arange(8)) % TOKENS
        logits = net(text[:, :-1], none, none)[0]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", default=tempfile.mkdtemp())
    folder = Path(parser.parse_args().folder)
    past = {0: "batch", 2: "past"}
    torch.onnx.export(
        trained(),
        (torch.zeros(2, 3, dtype=torch.int64), *torch.zeros(2, 2, 1, 4, WIDTH)),
        folder / "counter.onnx",
        input_names=["input_ids", "past_key_values.0.key", "past_key_values.0.value"],
        output_names=["logits", "present.0.key", "present.0.value"],
        dynamic_shapes=({0: "batch", 1: "new"}, past, past),
        dynamo=True,
        verbose=False,
    )
    onnx2nn.convert(folder / "counter.onnx", folder / "counter.py", force=True)
    sys.path.insert(0, str(folder))
    net = importlib.import_module("counter").load()
    text = net.generate(torch.tensor([[3, 4, 5], [7, 8, 9]]), max_new_tokens=6)
    for row in text.tolist():
        print(*row)


if __name__ == "__main__":
    main()
