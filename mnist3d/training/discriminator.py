"""The discriminator of single images: a small convolutional network with a score and, with labels, a class head."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .options import PrecisionName

LEAK = 0.2  # slope of the leaky ReLU below 0: DCGAN, Radford et al. 2015


@dataclass
class DiscriminatorOptions:
    """The network that learns to tell real images from views.

    Args:
        channels: Channels of each convolution, each >= 1. Each convolution halves the size of the image.
        features: Width of the last hidden layer, >= 1.
        rate: Learning rate, > 0. It follows the same schedule as the volume's.
    """

    channels: list[int] = field(default_factory=lambda: [24, 48, 96])
    features: int = 128
    rate: float = 0.0015

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"discriminator.channels={self.channels}: must be one or more widths, each >= 1")
        if self.features < 1:
            raise ValueError(f"discriminator.features={self.features}: must be >= 1")
        if not 0.0 < self.rate < math.inf:
            raise ValueError(f"discriminator.rate={self.rate}: must be finite and > 0")


class Discriminator(nn.Module):
    """Convolutions of stride 2 without normalisation, then a linear layer, a score and a class head.

    Args:
        image_size: pixels along each edge, at least 8.
        num_classes: of the class head; 0 leaves it out.
        options: widths.

    Raises:
        ValueError: images too small for the convolutions.
    """

    def __init__(self, image_size: int = 28, num_classes: int = 10, options: DiscriminatorOptions | None = None):
        super().__init__()
        options = options or DiscriminatorOptions()
        if image_size < 8:
            raise ValueError(f"image_size={image_size}: the discriminator needs images of 8 pixels or more")
        layers: list[nn.Module] = []
        width, size = 1, image_size
        for k, channels in enumerate(options.channels):
            if size < 2:
                raise ValueError(
                    f"discriminator.channels={options.channels}: {len(options.channels)} halvings are too many for "
                    f"images of {image_size} pixels"
                )
            kernel = 4 if k < 2 else 3
            layers += [nn.Conv2d(width, channels, kernel, stride=2, padding=1), nn.LeakyReLU(LEAK)]
            width, size = channels, (size + 2 - kernel) // 2 + 1
        layers += [nn.Flatten(), nn.Linear(width * size * size, options.features), nn.LeakyReLU(LEAK)]
        self.body = nn.Sequential(*layers)
        self.score = nn.Linear(options.features, 1)
        self.classes = nn.Linear(options.features, num_classes) if num_classes else None

    def forward(
        self, images: Float[Tensor, "B 1 H W"], precision: PrecisionName = "float32"
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B K"]]:
        """Score (unbounded, higher is more real) and class logits (K = 0 without a class head).

        Args:
            images: in [0, 1].
            precision: what the body computes in, all layers but the last; the weights stay what they are. With
                bfloat16 it takes half of the memory; its 8 bits are enough there, as its exponents are float32's.
        """
        features = self._features(2.0 * images - 1.0, precision)
        score = self.score(features).squeeze(1)
        return score, features.new_zeros(len(score), 0) if self.classes is None else self.classes(features)

    def _features(self, images: Float[Tensor, "B 1 H W"], precision: PrecisionName) -> Float[Tensor, "B F"]:
        if precision == "float32":
            return self.body(images)
        # Each weight is used once in a pass: none is kept in 16 bits, which would be out of date after the next step.
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            return self.body(images).to(self.score.weight.dtype)
