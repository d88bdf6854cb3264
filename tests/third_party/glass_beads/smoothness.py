"""A reason of one's own why the volume moves, and ways to get one wrong."""

from typing import Literal

import torch
from torch import nn

from mnist3d.training.objectives.base import Batch, Objective


class TotalVariation(Objective):
    """Mean difference between a point's attenuation and its neighbour's.

    Args:
        weight: Of the difference, >= 0.
        reach: World units from a point to its neighbour, above 0.
        norm: How differences are measured: absolute or squared.
    """

    name = "total_variation"

    def __init__(self, weight: float = 0.1, reach: float = 0.05, norm: Literal["absolute", "squared"] = "absolute"):
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight={weight}: must be >= 0")
        self.weight, self.reach, self.norm = weight, reach, norm
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(()))

    def loss(self, batch: Batch) -> torch.Tensor | None:
        points = 1.4 * torch.rand(256, 3, generator=batch.generator).to(self.mean.device) - 0.7
        there, _ = batch.volume(points)
        near, _ = batch.volume(points + self.reach)
        difference = (there - near).abs().mean() if self.norm == "absolute" else (there - near).square().mean()
        self.mean.lerp_(difference.detach(), 0.1)
        return self.weight * difference

    def metrics(self) -> dict[str, float]:
        return {"total_variation_loss": self.mean.item()}


class Named(Objective):
    """What the following share."""

    def loss(self, batch: Batch) -> torch.Tensor | None:
        return None


class Nameless(Named):
    """Has no name."""


class Loud(Named):
    """Its name could be no key."""

    name = "Loud!"


class Section(Named):
    """Its name is one of ours."""

    name = "targets"


class Flag(Named):
    """Its name is a flag's."""

    name = "print_config"


class Twin(Named):
    """Its name is another's."""

    name = "total_variation"


class Needs(Named):
    """Asks for something.

    Args:
        file: Where it lies.
    """

    name = "needs"

    def __init__(self, file: str) -> None:
        super().__init__()


class Lossless(Objective):
    """Has no loss."""

    name = "lossless"


class Other(nn.Module):
    """No objective."""
