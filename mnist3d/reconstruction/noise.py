"""How much noise is in the images."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .pixels import RING, disc, radius_of

CUT_OUT = 0.2  # noise at the border, by what noise there is at least inside, below which the border was cut out
TAKEN_AWAY = 0.1  # how far the middle is below the border, in standard deviations, where matter must be negative
SOME = 1000  # images whose spectrum is looked at
VARIES = 1e-3  # of the largest standard deviation over the images: pixels with less are outside a mask


def noise_of(lines: Float[Tensor, "B N N"]) -> tuple[float, float]:
    """Standard deviation of the noise of a pixel, and the share of an image's pixels that hold noise.

    Measured where no ray meets the ball. Where images were masked to a circle nothing is left there: it is measured in
    the corners of their spectrum then, beyond the finest detail that a volume of so many voxels can show.

    Args:
        lines: line integrals.
    """
    border = float(lines[:, radius_of(lines.shape[-1]) > RING].std())
    if is_told(lines, border):
        return border, 1.0
    spread = lines.std(0)
    filled = float((spread > VARIES * spread.max()).float().mean())
    return max(border, _in_the_corners(lines) / math.sqrt(filled)), filled


def is_told(lines: Float[Tensor, "B N N"], noise: float) -> bool:
    """Whether it can be all the noise: not where pixels inside are noisier, as in images masked and smoothed.

    Values below those of the border, where the object adds to them, are noise. Without an object they would be as far
    below, in the mean square, as noise is above: 1 / sqrt(2) of its standard deviation.

    Args:
        lines: line integrals.
        noise: standard deviation that is to be believed.
    """
    size = lines.shape[-1]
    inside = lines[:, disc(size)] - lines[:, radius_of(size) > RING].median()
    if float(inside.mean()) < -TAKEN_AWAY * float(inside.std()):
        return True  # the object takes away from them: another mistake
    return noise >= CUT_OUT * float(inside.clamp_max(0.0).square().mean().sqrt())


def _in_the_corners(lines: Float[Tensor, "B N N"]) -> float:
    """By the power beyond Nyquist's circle, which noise that fills the images has there as everywhere."""
    size = lines.shape[-1]
    axis = torch.fft.fftfreq(size) * size
    corners = (axis[:, None].square() + axis.square()).sqrt() > size / 2.0
    power = torch.fft.fft2(lines[:SOME] - lines.mean(0)).abs().square()[:, corners].mean()
    return float(power.sqrt()) / size
