"""A first, coarse volume of images whose directions nobody knows: stochastic expectation maximisation from noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from .fourier import (
    coefficients,
    half_disc,
    insert,
    low_pass,
    moved,
    resized,
    slices,
    soft_ball,
    solve,
    volume_transform,
)
from .pose_draws import chosen_by, draw_shifts
from .so3 import rotation_grid

SIZE = 16  # pixels: 2,000 directions are told apart, and a try takes seconds
SPACING = math.radians(15.0)  # of the rotations that a view is compared at: shell 6 changes over 10 degrees or more
FIRST_SHELL, LAST_SHELL = 2.0, 6.0  # what is compared, at the start and at the end
EDGE = 0.25  # shells over which it fades
FLOOR = 0.01  # of `solve`: a batch leaves gaps


@dataclass(frozen=True)
class Annealing:
    """How a start from noise is cooled down. Found by trials: research/log.md.

    Args:
        iterations: batches of images.
        batch: images of each.
        memory: share of the slices of all batches before that is kept at each.
        first, last: temperature at the start and at the end, in units of what the best poses leave unexplained.
    """

    iterations: int = 60
    batch: int = 500
    memory: float = 0.7
    first: float = 4.0
    last: float = 0.3


CLEAR, NOISY = Annealing(), Annealing(iterations=200, memory=0.9, first=1.0)
NOISY_BELOW = 0.5  # signal-to-noise ratio of a pixel


def start_from_noise(
    images: Float[Tensor, "B N N"],
    generator: Generator,
    annealing: Annealing = CLEAR,
    tell: Callable[[float], None] = lambda share: None,
    max_shift: float = 0.0,
) -> tuple[Float[Tensor, "K K K"], float]:
    """A volume of 16^3 voxels that explains the images from some directions, and how well.

    Each batch is compared with views of the present volume from everywhere; each image draws a pose, likelier where it
    fits better; the volume is solved for anew. Always taking the best pose would end in a wrong volume.

    Args:
        images: line integrals, dimensionless, at least 16 pixels wide.
        generator: of all random numbers.
        annealing: how it is cooled down.
        tell: is handed the share that is done.
        max_shift: how far the object may be off the middle, pixels of the images: a shift is drawn for each image after
            its rotation then, and kept until the image's turn comes again. 0: it is in the middle.

    Returns:
        The volume, attenuation per world unit; the share of the images' power that it leaves unexplained, [0, 1].

    Source:
        Punjani et al., "cryoSPARC: algorithms for rapid unsupervised cryo-EM structure determination" (2017), whose
        gradient step is a Fourier reconstruction with memory here.
    """
    coarse = resized(images, SIZE, 2)
    frequencies = half_disc(LAST_SHELL)
    radius = frequencies.double().norm(dim=-1).float()
    wanted = coefficients(coarse, frequencies)
    grid = rotation_grid(SPACING).flatten(0, 1)
    ball = soft_ball(SIZE)
    volume = low_pass(torch.randn(SIZE, SIZE, SIZE, generator=generator), FIRST_SHELL).clamp_min(0.0) * ball
    volume *= coarse.sum((1, 2)).mean().clamp_min(1e-12) / (volume.sum() * 2.0 / SIZE)
    shifts, reach = coarse.new_zeros(len(coarse), 2), max_shift * SIZE / images.shape[-1]
    sums, unexplained = None, 1.0
    for step in range(annealing.iterations):
        progress = step / max(annealing.iterations - 1, 1)
        shell = FIRST_SHELL + (LAST_SHELL - FIRST_SHELL) * progress
        temperature = annealing.first * (annealing.last / annealing.first) ** progress
        weight = torch.sigmoid((shell + 0.5 - radius) / EDGE)[:, None]
        chosen = torch.randperm(len(images), generator=generator)[: annealing.batch]
        image = (moved(wanted[chosen], frequencies, -shifts[chosen], SIZE) * weight).flatten(1)
        view = (slices(volume_transform(volume), grid, frequencies) * weight).flatten(1)
        score = image @ view.T - 0.5 * view.square().sum(1)  # log likelihood, but for the variance
        power = image.square().sum(1)
        left = (power - 2.0 * score.amax(1)).clamp_min(1e-12)
        variance = (left.median() / (2.0 * weight.square().sum())).clamp_min(1e-30)
        certainty = 1.0 / (variance * temperature)
        drawn = chosen_by(score * certainty, 1, generator)[:, 0]
        if reach > 0.0:
            seen, its = view[drawn].unflatten(1, (-1, 2)), wanted[chosen] * weight
            shifts[chosen] = draw_shifts(its, seen, frequencies, SIZE, certainty, reach, generator)
        new = insert(coarse[chosen], grid[drawn], shifts[chosen])
        sums = new if sums is None else annealing.memory * sums + new
        volume = low_pass(solve(sums, FLOOR), shell + 1.0).clamp_min(0.0) * ball
        unexplained = float((left / power.clamp_min(1e-12)).mean())
        tell((step + 1) / annealing.iterations)
    return volume, unexplained
