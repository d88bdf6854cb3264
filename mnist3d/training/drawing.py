"""The rotations of a step: of the run's distribution, and where some objectives alone decide there are others."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ..geometry.rotations import PoseOptions, training_rotations
from .objectives.base import Objective

ROTATIONS_PER_VIEW = 4  # drawn where objectives claim directions, so that enough look where none does


def unclaimed_rotations(
    count: int, generator: Generator, poses: PoseOptions, objectives: Sequence[Objective]
) -> Float[Tensor, "B 3 3"]:
    """Rotations of a run's distribution, as far as possible where no objective alone decides.

    Args:
        count: of rotations, B.
        generator: the only source of randomness, on the CPU.
        poses: the distribution.
        objectives: each may claim directions.
    """
    if _claimed(torch.eye(3, device="cpu")[None], objectives) is None:
        return training_rotations(count, generator, poses)
    rotations = training_rotations(ROTATIONS_PER_VIEW * count, generator, poses)
    claimed = _claimed(rotations, objectives)
    assert claimed is not None
    return rotations[claimed.int().argsort(stable=True)[:count]]


def _claimed(rotations: Float[Tensor, "B 3 3"], objectives: Sequence[Objective]) -> Bool[Tensor, " B"] | None:
    claims = [claim for each in objectives if (claim := each.claims(rotations)) is not None]
    return torch.stack(claims).any(dim=0) if claims else None
