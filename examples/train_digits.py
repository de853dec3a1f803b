"""Trains the digit classifier of this folder and exports it: digits.onnx and digits_sample.npz.

The data are scikit-learn's 1,797 handwritten digits (8 x 8 pixels), which come with that package, so that
nothing is downloaded: pip install torch onnx scikit-learn, then python examples/train_digits.py.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

FOLDER = Path(__file__).parent
EPOCHS = 60


class Block(nn.Module):
    """Two convolutions and a way round them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(x + y)


class Digits(nn.Module):
    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.layer1 = Block(channels)
        self.layer2 = Block(channels)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(channels * 4, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem(image))
        x = F.max_pool2d(self.layer1(x), 2)
        x = F.max_pool2d(self.layer2(x), 2)
        return self.fc(self.drop(x.flatten(1)))


def train(model: Digits, images: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(images) // 64 + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            # Moving the digits by up to one pixel stands in for more of them.
            dx, dy = torch.randint(-1, 2, (2,)).tolist()
            moved = torch.roll(images[batch], (dy, dx), (2, 3))
            loss = F.cross_entropy(model(moved), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main() -> None:
    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    held_out, rest = order[:300], order[300:]

    model = Digits()
    train(model, images[rest], labels[rest])
    with torch.no_grad():
        right = (model(images[held_out]).argmax(1) == labels[held_out]).sum().item()
    print(f"{right} of {len(held_out)} digits that it has not seen are right")

    # PRESERVE keeps BatchNormalization as it is instead of folding it into the convolutions, so that the
    # model can be trained on.
    torch.onnx.export(
        model,
        (images[:2],),
        FOLDER / "digits.onnx",
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
        opset_version=20,
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )
    samples = held_out[:10]
    np.savez(FOLDER / "digits_sample.npz", image=images[samples].numpy())
    print("digits.onnx written; the sample shows", labels[samples].tolist())


if __name__ == "__main__":
    main()
