"""How good a reconstruction is, as far as the images alone can tell, and what is said where it is doubtful."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .fourier import IMAGES_AT_ONCE, coefficients, half_disc, moved
from .images import Observed
from .pose_search import Poses
from .projection import line_integrals
from .refinement import compared_shell
from .so3 import rotation_grid

# What marks a result as doubtful; found by runs made to fail: docs/reconstruction.md.
AGREEMENT = 0.9  # correlation of the coarse volumes of two starts, aligned
SUPPORT = 1.0 / 3.0  # share of the other starts, at least, that must agree with the best: chance does not repeat itself
EXCESS = 0.04  # share of the images' power that is left unexplained beyond the noise
COVERED = 0.8  # share of the finest shell that is believed which the images' slices cover, at least
PLACES = 2000  # at which that is measured
LEAST = 1e-30  # power that counts as some


def unexplained_by(
    volume: Float[Tensor, "N N N"], lines: Float[Tensor, "B N N"], poses: Poses, resolution: float
) -> Float[Tensor, " B"]:
    """Share of each image's power up to a shell, but for its mean, that the volume's view leaves, >= 0.

    Args:
        volume: attenuation per world unit, >= 0.
        lines: line integrals.
        poses: of each.
        resolution: of the volume, shell.
    """
    size = lines.shape[-1]
    frequencies = half_disc(compared_shell(resolution, size))
    shares: list[Tensor] = []
    for part in torch.arange(len(lines)).split(IMAGES_AT_ONCE):
        images = moved(coefficients(lines[part], frequencies), frequencies, -poses.shifts[part], size)
        views = coefficients(line_integrals(volume, poses.rotations[part], size), frequencies)
        shares.append((images - views).square().sum((1, 2)) / images.square().sum((1, 2)).clamp_min(LEAST))
    return torch.cat(shares)


def noise_share_of(observed: Observed, resolution: float) -> float:
    """What the noise of the images adds to the images' power up to a shell, as a share of it."""
    size = observed.lines.shape[-1]
    frequencies = half_disc(compared_shell(resolution, size))
    power = coefficients(observed.lines, frequencies).square().sum((1, 2))
    noise = observed.white_noise**2 * size**2 * len(frequencies)
    return float((noise / power.clamp_min(LEAST)).mean().clamp(max=1.0))


def coverage(rotations: Float[Tensor, "B 3 3"], shell: float) -> float:
    """Share of a shell in Fourier space that lies within half a frequency of a view's slice.

    Args:
        rotations: of the views.
        shell: cycles over the world's width.

    Source:
        Crowther, DeRosier, Klug, "The reconstruction of a three-dimensional structure from projections and its
        application to electron microscopy" (1970), whose count is for tilts about one axis.
    """
    places = rotation_grid(math.sqrt(4.0 * math.pi / PLACES))[:, 0, 2]
    near = torch.zeros(len(places), dtype=torch.bool)
    for part in rotations[:, 2].split(PLACES):
        near |= ((places @ part.T).abs() * shell <= 0.5).any(1)
    return float(near.float().mean())


def warnings_of(
    agreement: list[float],
    unexplained: float,
    noise_share: float,
    covered: float = 1.0,
    count: int = 0,
    resolution: float = 1.0,
) -> list[str]:
    """What looks wrong with a volume, in words.

    Args:
        agreement: of the other starts with the best, correlations.
        unexplained: share of the images' power.
        noise_share: likewise; NaN where the images do not tell.
        covered: of `coverage`.
        count: of the images.
        resolution: shell up to which the half-maps agree.
    """
    found = []
    if resolution < 1.0:
        found.append(
            "the volumes of the two halves of the images agree on no detail at all: nothing was found; the images may "
            "be noise alone, or too few"
        )
    agreeing = sum(each >= AGREEMENT for each in agreement)
    if agreement and agreeing < SUPPORT * len(agreement):
        found.append(
            f"of {len(agreement) + 1} independent starts only {1 + agreeing} agree (correlation {max(agreement):.2f} "
            "at best): the volume may be wrong; give more --seeds or more images"
        )
    if math.isnan(noise_share) and unexplained > EXCESS:
        found.append(
            f"the volume leaves {unexplained:.0%} of the images unexplained, and how much of that is noise cannot be "
            "said, as there is none at the border and none in the finest detail: give images that were neither "
            "masked nor smoothed"
        )
    elif unexplained > noise_share + EXCESS or not math.isfinite(unexplained):
        found.append(
            f"the volume leaves {unexplained:.0%} of the images unexplained, and noise accounts for {noise_share:.0%}: "
            "it may be wrong, the images may show several objects, or --input, --invert or --max_shift may be"
        )
    if covered < COVERED:
        found.append(
            f"the {count:,} images cover {covered:.0%} of the finest detail that is kept: between them it is guessed; "
            "give more images, or images from other directions"
        )
    return found
