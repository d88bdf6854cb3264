"""How much noise is in the images."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .pixels import RING, disc, radius_of

BEYOND = 1.1  # by how much noise must be beyond that of the border, if the border is to have been cut out
ENOUGH = 0.7  # share of what noise there is at least inside that must be found, if it is to be all
TAKEN_AWAY = 0.1  # how far the middle is below the border, in standard deviations, where matter must be negative
SOME, USUAL = 2**20, 0.999  # values that are looked at, and the share of them that is taken for usual
CORE = 0.5  # within this radius no mask cuts anything out, world units


@dataclass(frozen=True)
class Noise:
    """What was measured.

    Args:
        deviation: standard deviation of a pixel's noise.
        filled: share of an image's pixels that hold noise; less than 1 where images were masked.
        known: whether it can be all the noise.
    """

    deviation: float
    filled: float = 1.0
    known: bool = True


def noise_of(lines: Float[Tensor, "B N N"]) -> Noise:
    """The noise of images as a detector took them, white but for a mask.

    It is measured where no ray meets the ball. Images that were masked have less there than inside: values below those
    of the border, where the object adds to them, are noise. Theirs is measured in the corners of the spectrum, beyond
    the finest detail that a volume of so many voxels can show.

    Args:
        lines: line integrals; in the pixels of their file, as bringing them to another size spreads what a mask left.
    """
    ring = lines[:, radius_of(lines.shape[-1]) > RING]
    border, inside = float(ring.std()), lines[:, disc(lines.shape[-1])] - ring.median()
    taken_away = float(inside.mean()) < -TAKEN_AWAY * float(inside.std())  # by the object: another mistake
    # Without an object as many values would be above as below, so it is that much at least.
    least = math.sqrt(2.0 * float(inside.clamp_max(0.0).square().mean()))
    if len(lines) < 2 or taken_away or least <= BEYOND * border:
        return Noise(border)
    finest = beyond_nyquist(lines)
    white = math.sqrt(float(finest.square().mean((1, 2)).median()))
    if white <= BEYOND * border:
        return Noise(border, known=border >= ENOUGH * least)
    deviation = white / math.sqrt(float(share_of_noise(finest).square().mean()))
    return Noise(deviation, (white / deviation) ** 2, deviation >= ENOUGH * least)


def share_of_noise(finest: Float[Tensor, "B N N"]) -> Float[Tensor, "N N"]:
    """How much of the noise a mask has left at each pixel, beside the middle, where it cuts nothing out, [0, 1].

    Args:
        finest: of `beyond_nyquist`.
    """
    spread = finest.abs().median(0).values
    typical = spread[radius_of(finest.shape[-1]) < CORE].median()
    return (spread / typical).clamp(max=1.0) if float(typical) > 0.0 else torch.ones_like(spread)


def beyond_nyquist(lines: Float[Tensor, "B N N"]) -> Float[Tensor, "B N N"]:
    """What the images hold in the corners of their spectrum, but for what is the same in all of them; white noise comes
    out with the strength that it has.

    Args:
        lines: line integrals of at least two images.
    """
    count, size = lines.shape[:2]
    axis = torch.fft.fftfreq(size) * size
    corners = (axis[:, None].square() + axis.square()).sqrt() > size / 2.0
    limit = lines.abs().flatten()[:: max(1, lines.numel() // SOME)].quantile(USUAL)
    same = lines.clamp(-limit, limit).mean(0)  # which a hot pixel is not
    found = torch.fft.ifft2(torch.fft.fft2(lines - same) * corners).real
    return found * math.sqrt(count / (count - 1) / float(corners.float().mean()))
