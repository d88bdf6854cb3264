"""What one step of training did, in numbers: for progress, files and the watchdog. The verdict is `diagnosis`."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass
class StepReport:
    """What a step did.

    Args:
        step: steps done, this one included.
        progress: share of the run that is done, [0, 1].
        metrics: figures by name: "mean_brightness" of the views, and what each objective reports.
    """

    step: int
    progress: float
    metrics: dict[str, Any] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A figure, or None where this run does not report it."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@torch.no_grad()
def variety(images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """One minus the mean correlation between two of the images.

        1 - mean over pairs a != b of <z_a, z_b>,   z = (image - its mean) / |image - its mean|

    0 when all show the same, whatever their brightness and contrast; about 1 when they have nothing in common.

    Args:
        images: two or more; an image without contrast has nothing in common with any.
    """
    flat = images.flatten(1)
    unit = F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)
    count = len(unit)
    return 1.0 - (unit.sum(dim=0).square().sum() - unit.square().sum()) / (count * (count - 1))
