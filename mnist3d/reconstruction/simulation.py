"""Images of a volume as a detector would take them: line integrals from random directions, shifted, with noise."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ..geometry.rotations import PoseOptions, sample_rotations
from .images import moved_by
from .pixels import disc
from .pose_search import Poses
from .projection import line_integrals

VIEWS_AT_ONCE = 100


@dataclass(frozen=True)
class Simulated:
    """Images and how they came about.

    Args:
        lines: line integrals, with noise.
        poses: the true ones.
        noise: its standard deviation.
    """

    lines: Float[Tensor, "B N N"]
    poses: Poses
    noise: float


def simulate(
    attenuation: Float[Tensor, "Z Y X"],
    *,
    views: int,
    size: int,
    generator: Generator,
    poses: PoseOptions | None = None,
    signal_to_noise: float | None = None,
    max_shift: float = 0.0,
    tell: Callable[[float], None] = lambda share: None,
) -> Simulated:
    """Images of a volume.

    A pixel is the mean over its area where the volume is finer than the images. Noise is Gaussian, white and added to
    the line integrals.

    Args:
        attenuation: per world unit, >= 0.
        views: number of images.
        size: pixels.
        generator: of poses, shifts and noise.
        poses: their distribution; default all rotations alike.
        signal_to_noise: variance of the line integrals inside the unit disc by that of the noise; None: no noise.
        max_shift: pixels, along each axis, uniform.
        tell: is handed the share that is done.
    """
    rotations = sample_rotations(views, generator, poses or PoseOptions("so3"))
    finer = max(1, -(-max(attenuation.shape) // size))
    lines = torch.empty(views, size, size)
    for part in torch.arange(views).split(VIEWS_AT_ONCE):
        lines[part] = F.avg_pool2d(line_integrals(attenuation, rotations[part], finer * size), finer)
        tell(int(part[-1] + 1) / views)
    shifts = (2.0 * torch.rand(views, 2, generator=generator) - 1.0) * max_shift
    if max_shift > 0.0:
        lines = moved_by(lines, shifts)
    noise = 0.0
    if signal_to_noise is not None:
        noise = float((lines[:, disc(size)].var() / signal_to_noise).sqrt())
        lines += noise * torch.randn(lines.shape, generator=generator)
    return Simulated(lines, Poses(rotations, shifts, torch.zeros(views)), noise)
