"""Architectures that people export, written anew in torch: compact, with seeded random weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(
    n: int, m: int, k: int = 1, s: int = 1, groups: int = 1, act: type | None = None
) -> nn.Sequential:
    """Convolution, batch norm and perhaps an activation."""
    layers = [nn.Conv2d(n, m, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(m)]
    return nn.Sequential(*layers, *([act()] if act else []))


class InvertedResidual(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, n: int, m: int, stride: int, expand: int) -> None:
        super().__init__()
        h = n * expand
        widen = [conv(n, h, act=nn.ReLU6)] if expand != 1 else []
        self.conv = nn.Sequential(*widen, conv(h, h, 3, stride, h, nn.ReLU6), conv(h, m))
        self.skip = stride == 1 and n == m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, width 1."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 32, 3, 2, act=nn.ReLU6)]
        n = 32
        plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
        for expand, m, count, stride in [*plan, (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
            for i in range(count):
                layers.append(InvertedResidual(n, m, stride if i == 0 else 1, expand))
                n = m
        self.features = nn.Sequential(*layers, conv(n, 1280, act=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))


class ShuffleUnit(nn.Module):
    """ShuffleNet v2's unit; channels are shuffled by reshaping with sizes of the run."""

    def __init__(self, n: int, m: int, stride: int) -> None:
        super().__init__()
        h = m // 2
        self.stride = stride
        if stride > 1:
            self.branch1 = nn.Sequential(conv(n, n, 3, stride, n), conv(n, h, act=nn.ReLU))
        first = n if stride > 1 else h
        self.branch2 = nn.Sequential(
            conv(first, h, act=nn.ReLU), conv(h, h, 3, stride, h), conv(h, h, act=nn.ReLU)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            x = torch.cat((left, self.branch2(right)), dim=1)
        else:
            x = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleNetV2(nn.Module):
    """Ma et al. 2018, 1x."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = conv(3, 24, 3, 2, act=nn.ReLU)
        self.pool = nn.MaxPool2d(3, 2, 1)
        n = 24
        for i, (m, count) in enumerate([(116, 4), (232, 8), (464, 4)]):
            units = [ShuffleUnit(n if j == 0 else m, m, 2 if j == 0 else 1) for j in range(count)]
            setattr(self, f"stage{i + 2}", nn.Sequential(*units))
            n = m
        self.conv5 = conv(n, 1024, act=nn.ReLU)
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return self.fc(x.mean([2, 3]))


class PreActivation(nn.Module):
    """The bottleneck of ResNet v2: norm and activation come first."""

    def __init__(self, n: int, m: int, stride: int) -> None:
        super().__init__()
        h = m // 4
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(n), nn.BatchNorm2d(h), nn.BatchNorm2d(h)
        self.conv1 = nn.Conv2d(n, h, 1, bias=False)
        self.conv2 = nn.Conv2d(h, h, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(h, m, 1, bias=False)
        self.downsample = nn.Conv2d(n, m, 1, stride, bias=False) if n != m or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        skip = x if self.downsample is None else self.downsample(y)
        y = self.conv1(y)
        y = self.conv2(F.relu(self.norm2(y)))
        return self.conv3(F.relu(self.norm3(y))) + skip


class ResNet50V2(nn.Module):
    """He et al. 2016."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        stages, n = [], 64
        for i, count in enumerate([3, 4, 6, 3]):
            m = 256 << i
            blocks = [
                PreActivation(n if j == 0 else m, m, 2 if j == 0 and i > 0 else 1)
                for j in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            n = m
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(n)
        self.head = nn.Linear(n, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        x = F.relu(self.norm(self.stages(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Conv(nn.Module):
    """YOLOv5's convolution."""

    def __init__(self, n: int, m: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n, m, k, s, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(m)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Focus(nn.Module):
    """Every second pixel into channels."""

    def __init__(self, n: int, m: int, k: int) -> None:
        super().__init__()
        self.conv = Conv(n * 4, m, k)

    def forward(self, x: Tensor) -> Tensor:
        parts = (x[..., i::2, j::2] for j in (0, 1) for i in (0, 1))
        return self.conv(torch.cat(list(parts), 1))


class Bottleneck(nn.Module):
    """Two convolutions and perhaps a skip."""

    def __init__(self, n: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(n, n), Conv(n, n, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage bottlenecks with three convolutions."""

    def __init__(self, n: int, m: int, count: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        h = m // 2
        self.cv1, self.cv2, self.cv3 = Conv(n, h), Conv(n, h), Conv(2 * h, m)
        self.m = nn.Sequential(*[Bottleneck(h, shortcut) for _ in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPP(nn.Module):
    """Pooling at three scales."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(n, n // 2), Conv(n * 2, m)
        self.m = nn.ModuleList([nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [m(x) for m in self.m], 1))


class Detect(nn.Module):
    """The head: boxes from grids and anchors, all scales in one tensor."""

    def __init__(self, classes: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.no = classes + 5
        self.stride = (8, 16, 32)
        anchors = torch.tensor(
            [
                [10, 13, 16, 30, 33, 23],
                [30, 61, 62, 45, 59, 119],
                [116, 90, 156, 198, 373, 326],
            ]
        )
        self.register_buffer("anchors", anchors.float().view(3, 1, 3, 1, 1, 2))
        self.m = nn.ModuleList([nn.Conv2d(c, self.no * 3, 1) for c in channels])

    def forward(self, xs: list[Tensor]) -> Tensor:
        out = []
        for i, x in enumerate(xs):
            x = self.m[i](x)
            n, _, h, w = x.shape
            x = x.view(n, 3, self.no, h, w).permute(0, 1, 3, 4, 2).contiguous()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).float()
            y = x.sigmoid()
            xy = (y[..., 0:2] * 2.0 - 0.5 + grid) * self.stride[i]
            wh = (y[..., 2:4] * 2) ** 2 * self.anchors[i]
            out.append(torch.cat((xy, wh, y[..., 4:]), -1).view(n, -1, self.no))
        return torch.cat(out, 1)


class YoloV5s(nn.Module):
    """YOLOv5s of version 4: Focus stem, SPP, PANet with nearest upsampling."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = Focus(3, 32, 3)
        self.stage1 = nn.Sequential(Conv(32, 64, 3, 2), C3(64, 64, 1), Conv(64, 128, 3, 2))
        self.stage2 = C3(128, 128, 3)
        self.stage3 = nn.Sequential(Conv(128, 256, 3, 2), C3(256, 256, 3))
        self.stage4 = nn.Sequential(Conv(256, 512, 3, 2), SPP(512, 512), C3(512, 512, 1, False))
        self.lateral5, self.lateral4 = Conv(512, 256), Conv(256, 128)
        self.up = nn.Upsample(None, 2, "nearest")
        self.top4, self.top3 = C3(512, 256, 1, False), C3(256, 128, 1, False)
        self.down3, self.down4 = Conv(128, 128, 3, 2), Conv(256, 256, 3, 2)
        self.out4, self.out5 = C3(256, 256, 1, False), C3(512, 512, 1, False)
        self.detect = Detect(classes, (128, 256, 512))

    def forward(self, x: Tensor) -> Tensor:
        p3 = self.stage2(self.stage1(self.stem(x)))
        p4 = self.stage3(p3)
        p5 = self.lateral5(self.stage4(p4))
        q4 = self.lateral4(self.top4(torch.cat((self.up(p5), p4), 1)))
        o3 = self.top3(torch.cat((self.up(q4), p3), 1))
        o4 = self.out4(torch.cat((self.down3(o3), q4), 1))
        o5 = self.out5(torch.cat((self.down4(o4), p5), 1))
        return self.detect([o3, o4, o5])


def seeded(net: nn.Module) -> nn.Module:
    """The net in eval mode, with weights and statistics that keep signals alive and all different."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.1, generator=generator)
                m.running_var.uniform_(0.5, 1.5, generator=generator)
                m.weight.uniform_(0.8, 1.2, generator=generator)
                m.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(m, (nn.Conv2d, nn.Linear)):
                fan = m.weight[0].numel()
                m.weight.normal_(0, (2 / fan) ** 0.5, generator=generator)
                if m.bias is not None:
                    m.bias.normal_(0, 0.1, generator=generator)
    return net.eval()
