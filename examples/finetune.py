"""Fine-tunes a converted model: the digit classifier of this folder learns digits that lie on their side.

The data are scikit-learn's 1,797 handwritten digits, which come with that package, so that nothing is downloaded:
pip install scikit-learn, then python examples/finetune.py. Takes some seconds on one core.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import onnx2nn

FOLDER = Path(__file__).parent


def digits_on_their_side() -> tuple[Tensor, Tensor]:
    """Pictures f32[1797, 1, 8, 8] turned by 90 degrees, and their labels i64[1797]."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return torch.rot90(images, dims=(2, 3)), torch.tensor(data.target)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()  # batch norms see the batch again and move their statistics
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    epochs = parser.parse_args().epochs
    torch.manual_seed(0)
    model = onnx2nn.load(FOLDER / "digits.onnx")
    images, labels = digits_on_their_side()
    # The digits that the model itself has not seen are held out here too.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    held_out, rest = order[:300], order[300:]
    print(f"before: {accuracy(model, images[held_out], labels[held_out]):.1%}")
    train(model, images[rest], labels[rest], epochs)
    print(f"after:  {accuracy(model, images[held_out], labels[held_out]):.1%}")


if __name__ == "__main__":
    main()
