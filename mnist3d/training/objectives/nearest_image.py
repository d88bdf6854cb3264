"""The nearest-image loss: late in a run each view is compared with the real image nearest to it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data.augment import tilted
from ...data.nearest import Exemplars
from ...data.registration import registered
from ..processes import ALONE, Processes
from .base import Batch, Objective, check_weight
from .group_weights import GroupWeights

# Found on digits, see research/log.md; what they do stands at `NearestImage`.
QUANTILE, REGISTRATION, FOCUS = 0.58, 0.2, 6.0
# Tilted copies of each real image, where the exemplars stay this few: every step looks through all of a class.
COPIES, MOST_EXEMPLARS = 2, 20_000
MOST_PIXELS = MOST_EXEMPLARS * 28 * 28
TILTED_AT_ONCE = 1024


@dataclass
class NearestImageOptions:
    """Each view should be similar to its nearest real image, of the class that the discriminator reads in it.

    Args:
        weight: Weight of the nearest-image loss at the end of the run, >= 0. With 0 the run is a pure GAN.
        start: Progress at which the weight starts to grow linearly from 0, >= 0 and < 1; 0.3 is three tenths of the
            run.
    """

    weight: float = 24.0
    start: float = 0.3

    def __post_init__(self) -> None:
        check_weight("nearest_image.weight", self.weight)
        if not 0.0 <= self.start < 1.0:
            raise ValueError(f"nearest_image.start={self.start}: must be >= 0 and < 1")

    def weight_at(self, progress: float) -> float:
        """The weight when so much of the run is done."""
        return self.weight * max(0.0, progress - self.start) / (1.0 - self.start)


class NearestImage(Objective):
    """Difference between views and the real images nearest to them, classes weighted.

        loss = mean weight_k * 2 max(q (x - view), (q - 1) (x - view))      x the nearest real image, q the quantile

    With q = .5 that is the absolute difference, whose best answer to several x is their median: dark, where strokes lie
    a pixel apart. Views then lose a quarter of their light; a somewhat larger quantile keeps it (the pinball loss of
    quantile regression, Koenker & Bassett 1978).

    Before that, x is moved, turned and stretched a little to meet the view (`registered`): a view is asked
    to become some digit, not to lie in a certain place, and neighbouring views ask less of each other.

    A view weighs what its class does in `GroupWeights`: more, the further the class is behind.

    Args:
        images: brightness in [0, 1].
        labels: class of each, or None: then all are one class.
        num_classes: K, 0 without labels.
        options: the weight, and when it begins.
        focus: of `GroupWeights`, >= 0; 0 weighs all classes alike.
        quantile: q, in (0, 1); above .5 missing light counts more than light where there should be none.
        registration: of `registered`, >= 0; 0 leaves the real images as they are.
        tilt: degrees, 0 to 60: images are also seen from random directions near their normals (`data.augment.tilted`).
            The same ones always, so that a resumed run finds them again.

    Its state is the running means of the classes.
    """

    name = "nearest_image"

    def __init__(
        self,
        images: Float[Tensor, "N 1 H W"],
        labels: Int[Tensor, " N"] | None,
        num_classes: int,
        options: NearestImageOptions | None = None,
        *,
        focus: float = FOCUS,
        quantile: float = QUANTILE,
        registration: float = REGISTRATION,
        tilt: float = 0.0,
    ) -> None:
        super().__init__()
        self.options = options or NearestImageOptions()
        self._last: Tensor | float = 0.0
        self.quantile, self.registration = quantile, registration
        room = min(MOST_EXEMPLARS // len(images), MOST_PIXELS // images.numel())
        copies = max(0, min(COPIES, room - 1)) if tilt > 0 else 0
        generator = torch.Generator().manual_seed(0)
        parts = images.split(TILTED_AT_ONCE) * copies
        every = [images, *(tilted(part, tilt, generator) for part in parts)]
        self.exemplars = Exemplars(torch.cat(every), None if labels is None else labels.repeat(1 + copies))
        self.weights = GroupWeights(max(num_classes, 1), focus).to(images)

    def loss(self, batch: Batch) -> Float[Tensor, ""] | None:
        """The weighted loss; None before its start."""
        weight = self.options.weight_at(batch.progress)
        if weight == 0.0 or batch.class_logits is None:
            self._last = 0.0
            return None
        loss = self.difference(batch.views, batch.class_logits, batch.processes)
        self._last = loss.detach()
        return weight * loss

    def metrics(self) -> dict[str, Any]:
        """The mean difference (pinball) before its weight; 0 before its start."""
        return {"nearest_loss": self._last}

    def difference(
        self, views: Float[Tensor, "B 1 H W"], logits: Float[Tensor, "B K"], processes: Processes = ALONE
    ) -> Float[Tensor, ""]:
        """The loss before its weight, at least 0; moves the running means.

        Args:
            views: brightness in [0, 1].
            logits: of the class head, K = 0 without one; the largest says with which class's images a view is compared.
            processes: share the search for the real images.

        Gradients:
            To the views; the exemplars and the weights are constants.
        """
        kind = logits.argmax(dim=1) if logits.shape[1] else None
        own = processes.own(len(views))
        sought = views[own].detach()
        found = self.exemplars.nearest(sought, None if kind is None else kind[own])
        (targets,) = processes.whole(len(views), registered(found, sought, self.registration))
        missing = targets - views
        off = missing.detach().abs().mean(dim=(1, 2, 3))
        loss = _pinball(missing, self.quantile).mean(dim=(1, 2, 3))
        if kind is None:
            return loss.mean()
        return (self.weights(kind, off, targets) * loss).mean()


def _pinball(missing: Float[Tensor, "*S"], quantile: float) -> Float[Tensor, "*S"]:
    """2 max(q x, (q - 1) x), with the mean of both slopes at 0; in half the operators of `torch.maximum`."""
    slopes = 2.0 * quantile, 2.0 * (quantile - 1.0)
    slope, other = (torch.tensor(each, dtype=missing.dtype, device="cpu") for each in slopes)
    difference = missing.detach()
    return missing * torch.where(difference > 0.0, slope, torch.where(difference < 0.0, other, 0.5 * (slope + other)))
