"""The networks of the two evaluation classifiers: of different architecture, so that they err differently."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 64  # of each classifier's last hidden layer


class _Pyramid(nn.Module):
    """Classifier one: convolutions and pooling, as VGG (Simonyan & Zisserman 2014)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm2d(24)]
        for width, channels in ((24, 48), (48, 96)):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(channels)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(96 * 9, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, outputs)
        self.register_buffer("spread", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(2.0 * images - 1.0)
        return self.head(features), features


class _MixerBlock(nn.Module):
    """Mixing across the places, then between the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.across = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.between = nn.Conv2d(channels, channels, 1)
        self.across_norm, self.between_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across_norm(F.gelu(self.across(x)))
        return self.between_norm(F.gelu(self.between(x)))


class _Mixer(nn.Module):
    """Classifier two: overlapping patches, then depthwise and pointwise mixing (ConvMixer, Trockman & Kolter 2022)."""

    def __init__(self, outputs: int, channels: int = 96) -> None:
        super().__init__()
        patches = nn.Conv2d(1, channels, 8, stride=4, padding=2)
        blocks = [_MixerBlock(channels) for _ in range(3)]
        self.body = nn.Sequential(patches, nn.GELU(), nn.BatchNorm2d(channels), *blocks, nn.Flatten())
        self.last = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels * 49, FEATURES), nn.GELU())
        self.head = nn.Linear(FEATURES, outputs)
        self.register_buffer("spread", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.last(self.body(2.0 * images - 1.0))
        return self.head(features), features


ARCHITECTURES: list[Callable[[int], nn.Module]] = [_Pyramid, _Mixer]
