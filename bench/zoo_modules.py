"""Networks of the zoo that no library has whole: they need torch alone, but for the detector."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY = 60
TOKENS = 12  # of a sequence


class Tagger(nn.Module):
    """Tags the tokens of a text, by an LSTM or a GRU."""

    def __init__(
        self, kind: type[nn.LSTM] | type[nn.GRU], layers: int = 2, bidirectional: bool = True
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 24)
        self.rnn = kind(24, 16, num_layers=layers, bidirectional=bidirectional, batch_first=True)
        self.classifier = nn.Linear(16 * (1 + bidirectional), 9)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.rnn(self.embedding(tokens))[0])


class TimeBlock(nn.Module):
    """A residual block of a diffusion network, shifted by the embedding of its time step."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, channels), nn.Conv2d(channels, out, 3, padding=1)
        self.time = nn.Linear(time, out)
        self.norm2, self.conv2 = nn.GroupNorm(4, out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class SpatialAttention(nn.Module):
    """Self-attention between the places of a picture, by one projection for queries, keys and values."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, channels)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        q, k, v = (
            self.qkv(self.norm(x))
            .reshape(b, 3, self.heads, c // self.heads, h * w)
            .transpose(3, 4)
            .unbind(1)
        )
        x_ = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(x_.transpose(2, 3).reshape(b, c, h, w))


class DiffusionUNet(nn.Module):
    """Predicts the noise of a picture at a time step: two resolutions, attention at the lower."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.time_mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = TimeBlock(width, width, 4 * width)
        self.downsample = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.mid1 = TimeBlock(2 * width, 2 * width, 4 * width)
        self.mid_attention = SpatialAttention(2 * width, 4)
        self.mid2 = TimeBlock(2 * width, 2 * width, 4 * width)
        self.upsample = nn.Conv2d(2 * width, width, 3, padding=1)
        self.up = TimeBlock(2 * width, width, 4 * width)
        self.norm_out, self.conv_out = nn.GroupNorm(4, width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        half = self.width // 2
        frequencies = torch.exp(-np.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
        angles = step[:, None].float() * frequencies[None]
        time = self.time_mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))
        skip = self.down(self.conv_in(x), time)
        h = self.mid2(self.mid_attention(self.mid1(self.downsample(skip), time)), time)
        h = self.upsample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(self.up(torch.cat((h, skip), dim=1), time))))


class Detector(nn.Module):
    """A pyramid on a small backbone and the heads of RetinaNet or FCOS, before boxes are chosen."""

    def __init__(self, head: str) -> None:
        super().__init__()
        from torchvision.models.detection import fcos, retinanet
        from torchvision.ops import FeaturePyramidNetwork

        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8 * 2**i, 16 * 2**i, 3, 2, 1, bias=False),
                nn.BatchNorm2d(16 * 2**i),
                nn.ReLU(),
            )
            for i in range(3)
        )
        self.fpn = FeaturePyramidNetwork([16, 32, 64], 32)
        self.head: nn.Module = (
            fcos.FCOSHead(32, 1, 5, num_convs=2)
            if head == "fcos"
            else retinanet.RetinaNetHead(32, 3, 5)
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        features = {}
        for i, layer in enumerate(self.layers):
            x = features[str(i)] = layer(x)
        return self.head(list(self.fpn(features).values()))


class Generator(nn.Module):
    """A DCGAN generator that ends in a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(16, 32, 4, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(True),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
            nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.main(z)


class TextConvolutions(nn.Module):
    """A temporal convolutional network over tokens: dilated, causal, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 16, 3, dilation=2**i) for i in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(4))
        self.out = nn.Linear(16, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            h = conv(F.pad(norm(x).transpose(1, 2), (2 * 2**i, 0)))
            x = x + F.gelu(h).transpose(1, 2)
        return self.out(x.amax(1))


class Encoder(nn.Module):
    """torch's own transformer encoder over tokens, with padding masked."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.position = nn.Parameter(torch.zeros(1, TOKENS, 32))
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, batch_first=True, norm_first=norm_first, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(
            layer, 2, norm=nn.LayerNorm(32), enable_nested_tensor=False
        )
        self.head = nn.Linear(32, 7)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.embedding(tokens) + self.position, src_key_padding_mask=tokens == 0)
        return self.head(x[:, 0])


class Autoencoder(nn.Module):
    """A variational autoencoder of flat pictures, at its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.BatchNorm1d(32))
        self.mean, self.log_variance = nn.Linear(32, 8), nn.Linear(32, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        h = self.encoder(x.flatten(1))
        mean, log_variance = self.mean(h), self.log_variance(h)
        return self.decoder(mean).view_as(x), mean, log_variance
